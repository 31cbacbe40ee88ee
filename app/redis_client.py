"""Redis: connection policy, key names, scripts. The typed stores in ``app.stores`` stand on this.

Policy: one blocking pool of a stated size, short time-outs, no hidden retries. The first command that
finds Redis away closes the gate: later ones fail at once with ``RedisUnavailable`` instead of each
waiting for its own time-out, and a probe opens the gate again by itself when Redis answers.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from loguru import logger
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.exceptions import Overloaded, RedisUnavailable
from app.utils import SHARDS, group_of, shard_of

_LUA_DIR: Final = Path(__file__).parent / "stores" / "lua"
_PROBE_SECONDS: Final = 0.2
_AWAY: Final = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    OSError,
)

Arg = str | bytes | int


class Keys:
    """Every key name, in one place.

    A session, its chats, their logs, its queue and the shard's leases carry the shard as hash tag, so
    they share a slot. Indexes have a tag of their own.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def _shard(self, shard: int) -> str:
        return f"{self.prefix}{{{shard:02d}}}:"

    def session(self, session_id: str) -> str:
        return f"{self._shard(shard_of(session_id))}session:{session_id}"

    def order(self, session_id: str) -> str:
        """List of the session's chat ids, newest first."""
        return f"{self._shard(shard_of(session_id))}order:{session_id}"

    def queue(self, session_id: str) -> str:
        return f"{self._shard(shard_of(session_id))}queue:{session_id}"

    def chats(self, any_id: str) -> str:
        """Hash of a session's chat records, ``owner`` among them; a chat's id leads there too."""
        return f"{self._shard(shard_of(any_id))}chats:{group_of(any_id)}"

    def run_prefix(self, any_id: str) -> str:
        return f"{self._shard(shard_of(any_id))}run:"

    def run(self, chat_id: str) -> str:
        """What the owner of a chat that is not over needs: epoch, ids at Coze, the request."""
        return self.run_prefix(chat_id) + chat_id

    def log(self, chat_id: str) -> str:
        return self.log_prefix(chat_id) + chat_id

    def leases(self, shard: int) -> str:
        return f"{self._shard(shard)}leases"

    def leases_of(self, any_id: str) -> str:
        return self.leases(shard_of(any_id))

    def idempotency(self, session_id: str, digest: str) -> str:
        return f"{self._shard(shard_of(session_id))}idem:{digest}"

    def session_idempotency(self, digest: str) -> str:
        return f"{self.prefix}{{index}}:idem:{digest}"

    def bell(self, shard: int, process: str) -> str:
        """Stream that wakes this process' own blocking read of a shard."""
        return f"{self._shard(shard)}bell:{process}"

    def inbox(self, process: str) -> str:
        """Stream of what other processes ask this one to do."""
        return f"{self.prefix}inbox:{process}"

    def user_sessions(self, user: str) -> str:
        return f"{self.prefix}{{index}}:user:{user}"

    def kept_sessions(self, user: str) -> str:
        """Also those that are over, until nothing is left of them."""
        return f"{self.prefix}{{index}}:kept:{user}"

    def namesakes(self, name: str) -> str:
        """Users of one name in one root, whoever owns them."""
        return f"{self.prefix}{{index}}:names:{name}"

    def rate(self, kind: str, user: str) -> str:
        return f"{self.prefix}rate:{kind}:{user}"

    def keys_used(self, session_id: str) -> str:
        """Set of the session's Idempotency-Keys, so that they can be erased."""
        return f"{self._shard(shard_of(session_id))}used:{session_id}"

    def erased(self, session_id: str) -> str:
        return f"{self._shard(shard_of(session_id))}erased:{session_id}"

    def waiting(self, shard: int) -> str:
        """Chats that wait for tool outputs; a score is the time after which it is forgotten."""
        return f"{self._shard(shard)}waiting"

    def queued(self, shard: int) -> str:
        return f"{self._shard(shard)}queued"

    def log_prefix(self, any_id: str) -> str:
        return f"{self._shard(shard_of(any_id))}log:"

    @property
    def all_sessions(self) -> str:
        return f"{self.prefix}{{index}}:sessions"

    @property
    def all_users(self) -> str:
        return f"{self.prefix}{{index}}:users"

    @property
    def shards(self) -> range:
        return range(SHARDS)


class Script:
    """A Lua script by the name of its file; its digest is what travels."""

    def __init__(self, name: str) -> None:
        prelude = (_LUA_DIR / "prelude.lua").read_text(encoding="utf-8")
        self.name = name
        self.source = prelude + (_LUA_DIR / f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], args: Sequence[Arg]) -> tuple[Arg, ...]:
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


class RedisGate:
    """All commands go through here, so that one place knows whether Redis is there."""

    def __init__(self, client: Any, *, blocking: Any) -> None:
        self.client = client
        self.blocking = blocking
        """For reads that wait: the same server without a read time-out (redis-py would end them)."""
        self._open = asyncio.Event()
        self._open.set()
        self._probe: asyncio.Task[None] | None = None
        self.outages = 0
        """How often Redis was found away; whoever kept state across a change must look again."""

    @property
    def away(self) -> bool:
        return not self._open.is_set()

    async def wait_open(self) -> None:
        await self._open.wait()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
        """The script's reply. Raises ``RedisUnavailable`` at once while Redis is known to be away."""
        try:
            return await self.command(*script.command(keys, args))
        except redis_errors.NoScriptError:
            return await self.command("EVAL", script.source, len(keys), *keys, *args)

    async def command(self, *parts: Arg) -> Any:
        if self.away:
            raise RedisUnavailable
        try:
            return await self.client.execute_command(*parts)
        except _AWAY as exc:
            raise self._failed(exc) from exc

    async def pipeline(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        """Replies in order; a command's own error is returned in its place, not raised."""
        if self.away:
            raise RedisUnavailable
        try:
            async with self.client.pipeline(transaction=False) as pipe:
                for parts in commands:
                    pipe.execute_command(*parts)
                replies: list[Any] = await pipe.execute(raise_on_error=False)
        except _AWAY as exc:
            raise self._failed(exc) from exc
        for reply in replies:
            if isinstance(reply, _AWAY):
                raise self._failed(reply) from reply
        return replies

    async def read_streams(self, places: dict[str, str], seconds: float, count: int = 100) -> Any:
        """XREAD BLOCK: ``[(key, [(id, fields), ...]), ...]``, empty when nothing came in time."""
        if self.away:
            raise RedisUnavailable
        try:
            reply = await self.blocking.xread(places, count=count, block=max(1, int(seconds * 1000)))
        except _AWAY as exc:
            raise self._failed(exc) from exc
        return reply or []

    async def load(self, scripts: Sequence[Script]) -> None:
        for script in scripts:
            await self.command("SCRIPT LOAD", script.source)

    async def ping(self) -> bool:
        """Whether Redis answers now; a failure closes the gate."""
        try:
            await self.command("PING")
        except RedisUnavailable:
            return False
        return True

    def _failed(self, exc: BaseException) -> RedisUnavailable | Overloaded:
        if isinstance(exc, redis_errors.MaxConnectionsError) or "No connection available" in str(exc):
            return Overloaded("All connections to the store are in use; try again shortly")
        if self._open.is_set():
            self._open.clear()
            self.outages += 1
            logger.warning("Redis is away: {}", type(exc).__name__)
            self._probe = asyncio.create_task(self._probe_until_back(), name="redis-probe")
        return RedisUnavailable()

    async def _probe_until_back(self) -> None:
        while True:
            try:
                await self.client.execute_command("PING")
            except _AWAY:
                await asyncio.sleep(_PROBE_SECONDS)
            else:
                logger.warning("Redis is back")
                self._open.set()
                return

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        for client in (self.blocking, self.client):
            await client.aclose()


def _client(url: str, *, pool_size: int, timeout: float, read_timeout: float | None) -> Any:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=pool_size,
        timeout=timeout,
        socket_connect_timeout=timeout,
        socket_timeout=read_timeout,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="coze-fastapi",
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def open_redis(url: str, *, pool_size: int, reply_timeout: float) -> AsyncIterator[RedisGate]:
    """A gate to ``url`` (``memory://``: an embedded fake of this process alone).

    Args:
        reply_timeout: seconds for connecting, for a reply, and for a free connection of the pool.
    """
    if url.startswith("memory://"):
        from fakeredis import FakeAsyncRedis, FakeServer

        server = FakeServer()
        gate = RedisGate(FakeAsyncRedis(server=server), blocking=FakeAsyncRedis(server=server))
    else:
        gate = RedisGate(
            _client(url, pool_size=pool_size, timeout=reply_timeout, read_timeout=reply_timeout),
            blocking=_client(url, pool_size=SHARDS + 4, timeout=reply_timeout, read_timeout=None),
        )
    try:
        yield gate
    finally:
        await gate.close()
