"""REDIS_URL, understood: one server, a master that Sentinels name, a Cluster, or the embedded fake."""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

RedisKind = Literal["single", "sentinel", "cluster", "memory"]

_SENTINEL_PORT: Final = 26379
_REDIS_PORT: Final = 6379
_FORMS: Final = (
    "redis://host:port/db, rediss://..., unix:///path, redis+sentinel://host:port,host:port/service/db, "
    "redis+cluster://host:port,host:port or memory://"
)
_ENCODE: Final = (
    "percent-encode what is not a letter or digit in its user and password "
    "(# is %23, / is %2F, ? is %3F, @ is %40, : is %3A, [ is %5B)"
)


def _number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None


def _seconds(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is not None and float(text) > 0


def _flags(text: str) -> bool:
    return all(name.strip() in ssl.VerifyFlags.__members__ for name in text.strip("[]").split(","))


_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_SECONDS: Final = (_seconds, "must be a number of seconds above 0")
_COUNT: Final = (lambda text: _number(text) and int(text) > 0, "must be a whole number above 0")
_SWITCH: Final = (
    lambda text: text.lower() in ("true", "false", "yes", "no", "1", "0", "t", "f", "y", "n"),
    "must be true or false",
)
_VERIFY: Final = (_flags, "must be names of Python's ssl.VerifyFlags, with commas between them")
_FREE: Final = (lambda _: True, "")
_OPTIONS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    **dict.fromkeys(("username", "password", "client_name", "sentinel_username", "sentinel_password"), _FREE),
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout", "timeout"), _SECONDS),
    **dict.fromkeys(("max_connections", "socket_read_size"), _COUNT),
    **dict.fromkeys(("db", "health_check_interval"), (_number, "must be a whole number")),
    **dict.fromkeys(("socket_keepalive", "retry_on_timeout", "ssl_check_hostname"), _SWITCH),
    **dict.fromkeys((*_FILES, "ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_ciphers"), _FREE),
    **dict.fromkeys(("ssl_include_verify_flags", "ssl_exclude_verify_flags"), _VERIFY),
    "protocol": (lambda text: text in ("2", "3"), "must be 2 or 3"),
    "ssl_cert_reqs": (
        lambda text: text in ("none", "optional", "required"),
        "must be none, optional or required",
    ),
    "ssl_min_version": (lambda text: text in ("771", "772"), "must be 771 (TLS 1.2) or 772 (TLS 1.3)"),
}
"""What may stand behind ``?``: whether a value can be used, and the rule. redis-py finds out later, and some
of it only when it connects."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """``url`` is what redis-py takes for one server: user, password, database and options, TLS or not. With
    Sentinels and Clusters its host is only the first of ``nodes``. ``shown`` holds no secret."""

    kind: RedisKind
    url: str
    shown: str
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    has_login: bool = False


def parse_redis_url(url: str) -> RedisAddress:
    """Raises ``ValueError``, whose text holds nothing of the address: it may hold a password."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ValueError(f"must be {_FORMS}")
    if scheme == "memory":
        return RedisAddress("memory", url, "memory://")
    base, plus, kind = scheme.partition("+")
    if (base != "unix" or plus) and (
        base not in ("redis", "rediss") or (plus and kind not in ("sentinel", "cluster"))
    ):
        raise ValueError(f"must be {_FORMS}")
    parts = _split(url)
    options = _options(parts.query, is_tls=base == "rediss", is_socket=base == "unix")
    login, _, places = parts.netloc.rpartition("@")
    has_login = bool(login) or "password" in options or "username" in options
    if base == "unix":
        if places or not parts.path:
            raise ValueError("needs the path of a socket: unix:///path, or unix://user:password@/path")
        return RedisAddress("single", url, f"unix://{parts.path}", has_login=has_login)
    default_port = _SENTINEL_PORT if kind == "sentinel" else _REDIS_PORT
    nodes = tuple(_node(place, default_port) for place in places.split(","))
    if not plus and len(nodes) > 1:
        raise ValueError("names several hosts: redis+sentinel:// and redis+cluster:// may")
    service, database = _path(kind, parts.path)
    query = "&".join(part for part in parts.query.split("&") if part and not part.startswith("sentinel_"))
    host, port = nodes[0]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return RedisAddress(
        kind="single" if not plus else "sentinel" if kind == "sentinel" else "cluster",
        url=f"{base}://{login}{'@' if login else ''}{place}/{database}{'?' if query else ''}{query}",
        shown=f"{scheme}://{','.join(f'{host}:{port}' for host, port in nodes)}{parts.path}",
        nodes=nodes,
        service=service,
        sentinel_username=options.get("sentinel_username", [None])[0],
        sentinel_password=options.get("sentinel_password", [None])[0],
        has_login=has_login,
    )


def check_redis_files(url: str) -> None:
    """Raises ``ValueError`` where a file that the address names cannot be read."""
    options = _options(_split(url).query, is_tls=True, is_socket=False)
    for name in _FILES:
        for path in options.get(name, ()):
            try:
                Path(path).open("rb").close()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "not a path"
                raise ValueError(f"the file of {name} cannot be read ({why})") from None


def _split(url: str) -> SplitResult:
    """A character of a login that ends the host's part of an address would cut it there, in silence."""
    if re.search(r"[\x00-\x20\x7f]", url) or "#" in url:
        raise ValueError(f"holds a space, a control character or #: {_ENCODE}")
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes the login
        raise ValueError(f"cannot be read: {_ENCODE}") from None
    if "@" not in parts.netloc and "@" in parts.path:
        raise ValueError(f"has a login that ends too early: {_ENCODE}")
    return parts


def _options(query: str, *, is_tls: bool, is_socket: bool) -> dict[str, list[str]]:
    options = parse_qs(query, keep_blank_values=True)
    if set(options) - set(_OPTIONS):
        raise ValueError(
            f"has an option behind ? that is not known. If the ? belongs to the password, {_ENCODE}; "
            "for a certificate: ssl_ca_certs, ssl_certfile, ssl_keyfile"
        )
    for name, values in options.items():
        can_be_used, rule = _OPTIONS[name]
        if any(value and not can_be_used(value) for value in values):
            raise ValueError(f"has {name} behind ? with a value that cannot be used: it {rule}")
        if name.startswith("ssl_") and not is_tls:
            raise ValueError(f"has {name} behind ?, which needs TLS: rediss:// in place of redis://")
        if name == "socket_keepalive" and is_socket:
            raise ValueError("has socket_keepalive behind ?, which a socket on this machine does not take")
    return options


def _node(place: str, default_port: int) -> tuple[str, int]:
    """``host``, ``host:port``, ``[::1]`` or ``[::1]:port``."""
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"has a port that is not a number from 1 to 65535 (or {_ENCODE})") from None
    if not host:
        # redis:///0 has always meant this machine.
        if not place and default_port == _REDIS_PORT:
            return "localhost", default_port
        raise ValueError("names a host that is empty")
    return host, default_port if port is None else port


def _path(kind: str, path: str) -> tuple[str, str]:
    """Service and database."""
    parts = [part for part in path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not parts:
            raise ValueError("must name the service: redis+sentinel://host:port,.../service/db")
        service = parts.pop(0)
    database = parts[0] if parts else "0"
    if len(parts) > 1 or not (database.isascii() and database.isdecimal()):
        raise ValueError(f"has a database that is not a number (or {_ENCODE})")
    if kind == "cluster" and int(database):
        raise ValueError("names a database other than 0, which a Redis Cluster does not have")
    return service, database
