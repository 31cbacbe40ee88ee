"""Redis: connection policy, key names, scripts. The typed stores in ``app.stores`` stand on this."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.config.redis_url import parse_redis_url
from app.observing.metrics import Metrics
from app.observing.tracing import Tracing
from app.redis_client.commands import Arg, Command, Fields, Key, Number, Script, Text, Texts, pairs
from app.redis_client.gate import RedisGate, RedisRefused
from app.redis_client.keys import ALL, HeldKeys, Keys, RateKeys, SessionKeys, UsageKeys
from app.redis_client.refusals import reason
from app.redis_client.servers import (
    AnyServers,
    Servers,
    open_cluster,
    open_embedded,
    open_sentinel,
    open_single,
)

__all__ = [
    "ALL",
    "Arg",
    "Command",
    "Fields",
    "HeldKeys",
    "Key",
    "Keys",
    "Number",
    "RateKeys",
    "RedisGate",
    "RedisRefused",
    "Script",
    "Servers",
    "SessionKeys",
    "Text",
    "Texts",
    "UsageKeys",
    "open_embedded",
    "open_redis",
    "pairs",
    "reason",
]


def _open_servers(url: str, pool_size: int, reply_timeout: float) -> AnyServers:
    address = parse_redis_url(url)
    if address.kind == "memory":
        return open_embedded(reply_timeout)
    if address.kind == "cluster":
        return open_cluster(address, pool_size=pool_size, reply_timeout=reply_timeout)
    open_master = open_sentinel if address.kind == "sentinel" else open_single
    return open_master(address, pool_size=pool_size, reply_timeout=reply_timeout)


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    pool_size: int,
    reply_timeout: float,
    prefix: str = "coze:",
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    servers: AnyServers | None = None,
) -> AsyncIterator[RedisGate]:
    """A gate to ``url`` (``memory://``: an embedded fake of this process alone). Nothing is connected yet.

    Args:
        reply_timeout: seconds for connecting, for a reply, and for a free connection of the pool.
        servers: what is behind the gate, instead of ``url``; closed with it.
        prefix: of all keys; in each shard a probe writes on a key of its own.

    Raises:
        ValueError: the address cannot be used; the text does not quote it.
    """
    servers = servers or _open_servers(url, pool_size, reply_timeout)
    gate = RedisGate(servers, probe_keys=Keys(prefix).probes, metrics=metrics, tracing=tracing)
    try:
        yield gate
    finally:
        await gate.close()
