"""REDIS_URL, understood: one server, a master that Sentinels name, a Cluster, or the embedded fake."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

RedisKind = Literal["single", "sentinel", "cluster", "memory"]

_SENTINEL_PORT: Final = 26379
_REDIS_PORT: Final = 6379
_FORMS: Final = (
    "redis://host:port/db, rediss://..., unix:///path, redis+sentinel://host:port,host:port/service/db, "
    "redis+cluster://host:port,host:port or memory://"
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


def parse_redis_url(url: str) -> RedisAddress:
    """Raises ``ValueError``, whose text holds nothing of the address: it may hold a password."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ValueError(f"must be {_FORMS}")
    if scheme == "memory":
        return RedisAddress("memory", url, "memory://")
    base, plus, kind = scheme.partition("+")
    if base == "unix" and not plus:
        return _unix(url)
    if base not in ("redis", "rediss") or (plus and kind not in ("sentinel", "cluster")):
        raise ValueError(f"must be {_FORMS}")
    parts = urlsplit(url)
    login, _, places = parts.netloc.rpartition("@")
    default_port = _SENTINEL_PORT if kind == "sentinel" else _REDIS_PORT
    nodes = tuple(_node(place, default_port) for place in places.split(","))
    if not plus and len(nodes) > 1:
        raise ValueError("names several hosts: redis+sentinel:// and redis+cluster:// may")
    service, database = _path(kind, parts.path)
    shown = f"{scheme}://{','.join(f'{host}:{port}' for host, port in nodes)}{parts.path}"
    options = parse_qs(parts.query)
    query = "&".join(part for part in parts.query.split("&") if part and not part.startswith("sentinel_"))
    host, port = nodes[0]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return RedisAddress(
        kind="single" if not plus else "sentinel" if kind == "sentinel" else "cluster",
        url=f"{base}://{login}{'@' if login else ''}{place}/{database}{'?' if query else ''}{query}",
        shown=shown,
        nodes=nodes,
        service=service,
        sentinel_username=options.get("sentinel_username", [None])[0],
        sentinel_password=options.get("sentinel_password", [None])[0],
    )


def _unix(url: str) -> RedisAddress:
    path = urlsplit(url).path
    if not path:
        raise ValueError("unix:// needs the path of a socket")
    return RedisAddress("single", url, f"unix://{path}")


def _node(place: str, default_port: int) -> tuple[str, int]:
    """``host``, ``host:port``, ``[::1]`` or ``[::1]:port``."""
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 1 to 65535") from None
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
    if len(parts) > 1 or not database.isdecimal():
        raise ValueError("has a database that is not a number")
    if kind == "cluster" and int(database):
        raise ValueError("names a database other than 0, which a Redis Cluster does not have")
    return service, database
