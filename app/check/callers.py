"""Who calls: can the HTY auth service be asked, does it refuse what is no token, and what opens the door for
Coze's own SDKs."""

from typing import Final

import httpx

from app.auth.bounds import CannotAsk
from app.auth.options import AuthOptions
from app.auth.service import AuthService
from app.check.lines import Line
from app.config import Settings
from app.doors.coze.errors import COZE_ERRORS

_NAME: Final = "auth service"
_NO_TOKEN: Final = "not-a-token"  # noqa: S105  # that is the point of it


async def check_auth(options: AuthOptions | None, http: httpx.AsyncClient, local_host: str) -> Line:
    """``options`` None: authentication is off. ``local_host``: a root that only developers have."""
    if options is None:
        text = "ENABLE_AUTH=false: whoever reaches the port is an administrator"
        return Line("warn", _NAME, text, "set ENABLE_AUTH=true", "未开启鉴权")
    if options.jwt_key is not None:
        return Line("ok", _NAME, "not needed: HTY_JWT_KEY checks tokens here", "", "本地校验令牌")
    roots = [root for root in options.roots if root != local_host.lower()] or list(options.roots)
    if options.verify_url is not None:
        roots = roots[:1]
    silent = {}
    for root in roots:
        try:
            if await AuthService(http, options).accepts(_NO_TOKEN, root):
                text = f"{options.url_of(root)} accepts what is no token at all"
                fix = "correct HTY_VERIFY_URL: this is not the auth service"
                return Line("fail", _NAME, text, fix, "鉴权服务接受了无效令牌")
        except CannotAsk as error:
            silent[root] = str(error)
    if not silent:
        return Line("ok", _NAME, f"answers for {', '.join(roots)}", "", "鉴权服务可用")
    text = "; ".join(f"{options.url_of(root)} cannot be asked: {why}" for root, why in silent.items())
    fix = "check the network, HTTP_SCHEME and the *_HOST settings, or HTY_VERIFY_URL"
    return Line("fail" if len(silent) == len(roots) else "warn", _NAME, text, fix, "无法访问鉴权服务")


def describe_coze_door(settings: Settings) -> Line:
    """What to set in a program that calls Coze by an official SDK, so that it calls this service. Nothing
    here can be wrong."""
    base = f"http://localhost:{settings.port}{COZE_ERRORS.prefix}, or that path at your own host"
    if not settings.enable_auth:
        token = "any token opens it, since ENABLE_AUTH=false"  # noqa: S105
    elif settings.api_keys or settings.api_keys_file:
        token = "its token is a key of COZE_API_KEYS, or an HTY token with HtyHost beside it"  # noqa: S105
    else:
        token = "its token is an HTY token with HtyHost beside it; COZE_API_KEYS is not set"  # noqa: S105
    text = f"cozepy, @coze/api and others take {base} as their base URL; {token}"
    return Line("ok", "coze's sdks", text, "", "扣子官方 SDK 改用此地址即可")
