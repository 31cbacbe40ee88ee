"""What people write into settings: cleaned where it is clear what is meant, refused where it is not.

The texts of the errors name the rule and the remedy. They hold no piece of the value, which may be a secret.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_BEARER: Final = re.compile(r"(?:authorization\s*:\s*)?bearer\s+", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[!#%&(-+\--:=?-\[\]-_a-z|~]+")
"""Printable ASCII without what quotes, separates, or stands around the name of something to be filled in."""
_OTHER_PATH: Final = re.compile(r"(^|/)(v[0-9]+|open_api|chat)(/|$)")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_TOKEN_RULE: Final = (
    "must be printable ASCII without spaces, quotes, commas "  # noqa: S105
    "and any of ; $ < > { } \\: copy the token again"
)
_WEB_SITES: Final = frozenset({"coze.cn", "www.coze.cn", "coze.com", "www.coze.com"})


def unquoted(text: str) -> str:
    """Without white space around it, and without the quotes that some readers of env files leave there."""
    text = text.strip()
    # One that is inside, too, belongs to the entries of a list.
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def clean_token(text: str) -> str:
    """The token alone: without quotes, ``Bearer``, white space and a byte order mark."""
    before, text = "", text.lstrip("\ufeff")
    while text != before:
        before, text = text, unquoted(text)
        if bearer := _BEARER.match(text):
            text = text[bearer.end() :]
    return text


def checked_token(text: str) -> str:
    """``clean_token``. Raises ``ValueError`` where a header could not carry it."""
    token = clean_token(text)
    if token and not _TOKEN.fullmatch(token):
        raise ValueError(_TOKEN_RULE)
    return token


def checked_tokens(listed: str) -> list[str]:
    """Tokens between commas or white space, each once, in their order. Raises ``ValueError``."""
    parts = re.split(r"[\s,]+", _BEARER.sub("", unquoted(listed)))
    try:
        return list(dict.fromkeys(filter(None, map(checked_token, parts))))
    except ValueError:
        raise ValueError(f"each token {_TOKEN_RULE}") from None


def split_address(text: str) -> SplitResult:
    """``urlsplit`` that quotes nothing. Raises ``ValueError``."""
    if re.search(r"[\x00-\x20\x7f\\]", text):
        raise ValueError("holds a space, a line break, a control character or a backslash")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("has a host or a port that cannot be read (a port is from 0 to 65535)") from None
    return parts


def web_address(text: str, *, query: bool = False) -> str:
    """An http(s) address. ``query``: whether it may have one. Raises ``ValueError``."""
    parts = split_address(text)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise ValueError("must not have a user and a password in it")
    if "#" in text or ("?" in text and not query):
        raise ValueError("must not have ? or # in it")
    return text


def _coze_address(text: str) -> str:
    """Raises ``ValueError``, also for where people use Coze: programs are not answered there."""
    text = web_address(text).rstrip("/")
    if urlsplit(text).hostname in _WEB_SITES:
        raise ValueError("is Coze's web site; its API is at https://api.coze.cn or https://api.coze.com")
    return text


def collector_address(text: str) -> str:
    """What precedes ``/v1/traces``. Raises ``ValueError``."""
    return web_address(text, query=True).rstrip("/").removesuffix("/v1/traces")


def chat_address(text: str, *, has_base: bool) -> str:
    """The address that chats are POSTed to, from that or from what precedes ``/v3/chat``.

    Args:
        has_base: COZE_BASE_URL is set, so that this one may end as it likes.

    Raises:
        ValueError: what it leads to is not the chat address of Coze's API v3.
    """
    text = _coze_address(text)
    path = urlsplit(text).path
    if path.endswith("/v3/chat") or (has_base and path):
        return text
    base = text.removesuffix("/v3") if path.endswith("/v3") else text
    if _OTHER_PATH.search(path.removesuffix("/v3")):
        raise ValueError(
            "must be Coze's address, such as https://api.coze.cn, or end in /v3/chat "
            "(another end needs COZE_BASE_URL, too)"
        )
    return base.rstrip("/") + "/v3/chat"


def base_address(text: str) -> str:
    """What precedes ``/v3``. Raises ``ValueError``."""
    text = _coze_address(text)
    path = urlsplit(text).path
    for end in ("/v3/chat", "/v3"):
        if path.endswith(end):
            return text.removesuffix(end).rstrip("/")
    return text


def proxy_address(text: str) -> str:
    """``http://[user:password@]host[:port]``. Raises ``ValueError``."""
    parts = split_address(text)
    if (
        parts.scheme.lower() != "http"
        or not parts.hostname
        or parts.path.strip("/")
        or "?" in text
        or "#" in text
    ):
        raise ValueError(
            "must be http://host:port, with user:password@ where the proxy asks for them "
            "(percent-encode / ? # @ : in those)"
        )
    return text.rstrip("/")


def checked_origins(listed: str) -> list[str]:
    """Origins between commas, as browsers write them. Raises ``ValueError`` for one that can never match."""
    origins = []
    for number, entry in enumerate(filter(None, map(unquoted, listed.split(","))), 1):
        origin = entry.rstrip("/").lower()
        scheme = origin.partition("://")[0]
        if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"entry {number} can match no page: it must be scheme://host or scheme://host:port, without "
                "a path and without * inside (names beyond ASCII as xn--...)"
            )
        origins.append(origin.removesuffix(_DEFAULT_PORTS.get(scheme, "\0")))
    return list(dict.fromkeys(origins))
