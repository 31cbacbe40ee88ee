"""While authentication is off: who may call nevertheless.

Then whoever reaches the port is an administrator, and a browser reaches it for every page that it shows. So
what a foreign page sends is refused, and what comes under a name that is none of ours (a page whose name was
made to lead here, "DNS rebinding"). Programs send none of these headers but Host.
"""

from ipaddress import ip_address
from typing import Final

from starlette.types import Receive, Scope, Send

from app.config import Settings
from app.exceptions import AuthForbidden
from app.http.middleware import HttpMiddleware, part_of
from app.http.protocol import REFUSAL

_OURS: Final = frozenset({b"same-origin", b"none"})
_LOOKING: Final = frozenset({"GET", "HEAD"})


class OpenDoor(HttpMiddleware):
    """Outside of ``Refusals``, which answers."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = part_of(scope, "settings")
        if settings is not None and not settings.enable_auth:
            why = refused_because(scope, settings)
            if why is not None:
                scope["state"].setdefault(REFUSAL, AuthForbidden(why))
        await self._app(scope, receive, send)


def refused_because(scope: Scope, settings: Settings) -> str | None:
    """Why a request may not be served without authentication; None if it may."""
    headers = dict(scope["headers"])
    host = headers.get(b"host")
    if host is not None and not is_known(_name_of(host.decode("latin-1")), settings):
        return "This Host is not known here, and authentication is off: name it in COZE_ALLOWED_HOSTS"
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site in _OURS or (site is None and origin is None):
        return None
    listed = settings.cors_allow_origins.split(",")
    if origin is not None:
        text = origin.decode("latin-1").lower()
        if "*" in listed or text in listed:
            return None
        if site is None and host is not None and text.partition("://")[2] == host.decode("latin-1").lower():
            return None
    if headers.get(b"sec-fetch-mode") == b"navigate" and scope["method"] in _LOOKING:
        return None  # somebody follows a link; the page with the link sees nothing of it
    return "Pages of other origins are refused while authentication is off: name theirs in CORS_ALLOW_ORIGINS"


def is_known(name: str, settings: Settings) -> bool:
    """Addresses, names without a dot, HOST, and what COZE_ALLOWED_HOSTS lists.

    A foreign page can only have a name of the public DNS made to lead here, and such a one has a dot;
    ``localhost`` and the names of containers have none.
    """
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        listed = settings.allowed_hosts.lower().split(",")
        return name in (settings.host.lower(), *map(str.strip, listed)) or "*" in map(str.strip, listed)
    return True


def _name_of(host: str) -> str:
    """Without the port, in lower case; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()
