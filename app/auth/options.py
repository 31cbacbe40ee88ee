"""What can be chosen about authentication, and its HTTP client."""

import re
import ssl
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Final

import httpx
from pydantic import SecretStr

from app.auth.bounds import bounded_transport
from app.auth.hosts import host_name
from app.auth.lanes import most_at_once

VERIFY_PATH: Final = "/api/v1/uc/verify_jwt_token"
_KEEPALIVE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """Times in seconds.

    ``scheme``: ``https://`` or ``http://``. ``roots``: the allow-listed root domains. ``verify_url``:
    replaces the whole address of the auth service. ``timeout``: for one check, its retry included.
    ``cache_ttl``, ``negative_ttl``: how long a yes and a no are believed; 0 believes nothing.
    ``jwt_key``: check signatures here instead of asking. With it, and with ``verify_url``, a token counts for
    whichever root its bearer names: all roots must be of one issuer. ``admin_roles``: role keys of admins.

    Raises:
        ValueError: naming the setting that cannot work, never its value.
    """

    scheme: str
    roots: tuple[str, ...]
    verify_url: str | None = None
    timeout: float = 5.0
    cache_ttl: float = 60.0
    negative_ttl: float = 5.0
    max_entries: int = 10_000
    jwt_key: SecretStr | None = None
    admin_roles: frozenset[str] = frozenset({"ROOT", "ADMIN"})

    def __post_init__(self) -> None:
        if self.scheme not in ("https://", "http://"):
            raise ValueError("HTTP_SCHEME must be https:// or http://")
        if not self.roots or any(host_name(root) != root.lower() for root in self.roots):
            raise ValueError("ALCHEMY_HOST, MOICEN_HOST, HUIWINGS_HOST and LOCAL_HOST must be host names")
        object.__setattr__(self, "roots", tuple(dict.fromkeys(root.lower() for root in self.roots)))
        if self.verify_url is not None and not _is_plain_http(self.verify_url):
            raise ValueError("HTY_VERIFY_URL must be an http(s) address without user, password and fragment")

    def url_of(self, root: str) -> str:
        """Where tokens of ``root`` are verified."""
        return self.verify_url or f"{self.scheme}admin.{root}{VERIFY_PATH}"


def _is_plain_http(address: str) -> bool:
    """``user:password@`` would make httpx send Basic in place of the token."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and _is_host(url.host) and not (url.userinfo or url.fragment)


def _is_host(host: str) -> bool:
    """Less strict than for names from outside: inner networks have names with underscores."""
    try:
        ip_address(host)
    except ValueError:
        return re.fullmatch("[A-Za-z0-9._-]+", host) is not None
    return True


def build_auth_client(
    options: AuthOptions, *, ssl_context: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """The auth service's own pooled client; whoever builds it closes it.

    No redirect is followed with a token in hand. The environment (proxies, .netrc) is not consulted: .netrc
    could replace the Authorization header. Cookies are not kept: all callers share this client.
    """
    transport = bounded_transport(
        ssl_context or httpx.create_ssl_context(trust_env=False),
        max_connections=most_at_once(len(options.roots)),  # whoever has a turn waits for no connection
        keepalive_seconds=_KEEPALIVE_SECONDS,
    )
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(options.timeout),
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        headers={"User-Agent": "coze-fastapi"},
    )
