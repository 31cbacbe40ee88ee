"""REDIS_URL, understood: one server, a master that Sentinels name, a Cluster, or the embedded fake."""

import re
from dataclasses import dataclass
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
_OPTIONS: Final = frozenset(
    {
        *("db", "username", "password", "client_name", "protocol", "timeout", "max_connections"),
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
        *("health_check_interval", "retry_on_timeout", "sentinel_username", "sentinel_password"),
        *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
        *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
        *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
    }
)


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
    options = _options(parts.query)
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


def _options(query: str) -> dict[str, list[str]]:
    options = parse_qs(query, keep_blank_values=True)
    if set(options) - _OPTIONS:
        raise ValueError(
            f"has an option behind ? that is not known. If the ? belongs to the password, {_ENCODE}; "
            "for a certificate: ssl_ca_certs, ssl_certfile, ssl_keyfile"
        )
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
