"""Redis: connection policy, key names, scripts. The typed stores in ``app.stores`` stand on this."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from app.metrics import Metrics
from app.redis_client.gate import RedisGate
from app.redis_client.keys import Arg, Keys, Script
from app.redis_client.servers import Servers, open_cluster, open_sentinel, open_single
from app.redis_url import parse_redis_url
from app.tracing import Tracing

__all__ = ["Arg", "Keys", "RedisGate", "Script", "Servers", "open_redis"]

_OPENERS: Final = {"single": open_single, "sentinel": open_sentinel, "cluster": open_cluster}


def _embedded(reply_timeout: float) -> Servers:
    from fakeredis import FakeAsyncRedis, FakeServer

    server = FakeServer()
    return Servers(
        FakeAsyncRedis(server=server), blocking=FakeAsyncRedis(server=server), reply_timeout=reply_timeout
    )


def _open_servers(url: str, pool_size: int, reply_timeout: float) -> Servers:
    address = parse_redis_url(url)
    if address.kind == "memory":
        return _embedded(reply_timeout)
    return _OPENERS[address.kind](address, pool_size=pool_size, reply_timeout=reply_timeout)


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    pool_size: int,
    reply_timeout: float,
    prefix: str = "coze:",
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    servers: Servers | None = None,
) -> AsyncIterator[RedisGate]:
    """A gate to ``url`` (``memory://``: an embedded fake of this process alone). Nothing is connected yet.

    Args:
        reply_timeout: seconds for connecting, for a reply, and for a free connection of the pool.
        servers: what is behind the gate, instead of ``url``; closed with it.
        prefix: of all keys; a key that stands for each shard is deleted to see whether writing works again.

    Raises:
        ValueError: the address cannot be used; the text does not quote it.
    """
    servers = servers or _open_servers(url, pool_size, reply_timeout)
    gate = RedisGate(servers, probe_keys=Keys(prefix).probes, metrics=metrics, tracing=tracing)
    try:
        yield gate
    finally:
        await gate.close()
