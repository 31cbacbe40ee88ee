"""The servers behind REDIS_URL: one, a master that Sentinels name, or a Cluster. All behave alike.

None retries by itself: a command whose answer was lost may have been done, and only the caller knows what
that means. A command that a Cluster sends elsewhere (MOVED, ASK) was not done and follows.
"""

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import hiredis
from loguru import logger
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from app.redis_client.keys import Arg
from app.redis_url import RedisAddress
from app.stopping import NoCancelLost, end_tasks
from app.utils import SHARDS

_BLOCKED: Final = SHARDS + 4
"""Reads that wait at the same time: one for each shard, the inbox, and some room."""

_AS_IT_COMES: Final = frozenset({"EVALSHA", "EVAL", "HMGET", "HGET", "GET", "SET", "DEL", "ZREM"})
"""Commands whose replies are used as they come, and so need nothing of redis-py but its connection."""

_KEPT: Final = 4
"""Connections kept out of the pool, ready to be used."""

_AT_A_TIME: Final = 50
"""Replies that are read before others get their turn."""

_SPARE: Final = 8
"""Connections to a node beyond the commands that run at once: what was given up may still hold one."""


class HandshakeRefused(redis_errors.ConnectionError):
    """The server answers and lets nobody in: it refuses a command of the handshake (CLIENT, SELECT). Its text
    is the server's own."""


class Servers:
    """One server, or the master of a group: everything goes to the same place."""

    def __init__(self, client: Any, *, blocking: Any, reply_timeout: float) -> None:
        self.client = client
        self.blocking = blocking
        """For reads that wait: the same server without a read time-out (redis-py would end them)."""
        self._reply_timeout = reply_timeout
        self._leaving: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._departures: dict[asyncio.Task[None], None] = {}
        self._kept: list[Any] = []

    async def command(self, *parts: Arg) -> Any:
        """The reply; raises the command's own error. Commands of the same moment travel together."""
        if parts[0] not in _AS_IT_COMES:
            return await self.client.execute_command(*parts)
        packed = _packed(parts)  # here, so that what cannot be packed fails its own caller alone
        waiting = asyncio.get_running_loop().create_future()
        self._leaving.append((packed, waiting))
        if len(self._leaving) == 1:
            task = asyncio.create_task(self._send_off(), name="redis-commands")
            self._departures[task] = None
            task.add_done_callback(self._departed)
        reply = await waiting
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _send_off(self) -> None:
        """A turn of the loop later, so that what all its tasks have asked for goes as one pipeline: a burst
        of requests needs one connection and not one each."""
        leaving, self._leaving = self._leaving, []
        replies: Sequence[Any] = ()
        try:
            replies = await self._exchange([packed for packed, _ in leaving])
        finally:
            # Whatever went wrong, nobody is left waiting. A cancel is meant for this task and not for them.
            error = sys.exception()
            instead = error if isinstance(error, Exception) else redis_errors.ConnectionError("No reply")
            for number, (_, waiting) in enumerate(leaving):
                if not waiting.done():  # else whoever asked has gone
                    waiting.set_result(replies[number] if number < len(replies) else instead)

    def _departed(self, task: "asyncio.Task[None]") -> None:
        """What went wrong is raised where it was asked for; only what nobody expects is told here, too."""
        self._departures.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, redis_errors.RedisError | OSError):
            logger.error("a pipeline broke: {}", type(error).__name__)

    async def pipeline(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        """Replies in order as they came, errors among them."""
        return await self._exchange([_packed(parts) for parts in commands])

    async def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies to packed commands.

        On redis-py's connections, but without its Pipeline: the log is written dozens of times a second, and
        packing in C and one time-out for all replies halve what that costs.
        """
        connection = await self._connection()
        sound = False
        try:
            async with asyncio.timeout(self._reply_timeout):
                with NoCancelLost():  # or the time-out might be lost, and what follows waits without one
                    await connection.send_packed_command(commands)
                replies = []
                for number in range(len(commands)):
                    replies.append(await _reply(connection))
                    if number % _AT_A_TIME == _AT_A_TIME - 1:
                        await asyncio.sleep(0)  # replies that are here already would be read without a pause
            sound = True
            return replies
        except TimeoutError:
            raise redis_errors.TimeoutError from None
        finally:
            if sound and len(self._kept) < min(_KEPT, self.client.connection_pool.max_connections // 4):
                self._kept.append(connection)
            else:
                if not sound:  # replies may be still to come: they must not answer somebody else
                    await connection.disconnect(nowait=True)
                await self.client.connection_pool.release(connection)

    async def _connection(self) -> Any:
        """One of those that are kept at hand, since taking one from the pool and giving it back costs as much
        as a command; else one from the pool."""
        while self._kept:
            connection = self._kept.pop()
            with contextlib.suppress(redis_errors.RedisError, OSError):
                if connection.is_connected and not await connection.can_read():  # what is closed can be read
                    return connection
            await self.client.connection_pool.release(connection)
        return await self.client.connection_pool.get_connection()

    async def _give_back(self) -> None:
        while self._kept:
            await self.client.connection_pool.release(self._kept.pop())

    async def on_each(self, *parts: Arg) -> list[Any]:
        """The replies of all that hold keys, to a command without a key."""
        return [await self.client.execute_command(*parts)]

    async def read(self, keys: Sequence[str], parts: tuple[Arg, ...], seconds: float) -> Any:
        """A command that waits up to ``seconds``, about keys that share a slot.

        A server that has vanished without a word says nothing even then: that ends the wait, too.
        """
        async with asyncio.timeout(seconds + self._reply_timeout):
            return await self.blocking.execute_command(*parts)

    async def answers(self, keys: Sequence[str]) -> None:
        """Raises unless every place answers and takes a write. Disturbs nothing that is under way."""
        await self.client.execute_command("DEL", keys[0])

    async def check(self, keys: Sequence[str]) -> None:
        """The same after an outage. Connections are made anew where the server at their other end may have
        become a replica."""
        await self._give_back()
        try:
            await self.answers(keys)
        except redis_errors.ReadOnlyError:
            await self.client.connection_pool.disconnect(inuse_connections=False)
            await self.blocking.connection_pool.disconnect(inuse_connections=False)
            raise

    async def close(self) -> None:
        await end_tasks(self._departures)
        leaving, self._leaving = self._leaving, []
        for _, waiting in leaving:  # their pipeline was cancelled before it had begun
            if not waiting.done():
                waiting.set_result(redis_errors.ConnectionError("No reply"))
        await self._give_back()
        for client in (self.blocking, self.client):
            await client.aclose()


class SentinelServers(Servers):
    def __init__(self, client: Any, *, blocking: Any, reply_timeout: float, sentinel: Sentinel) -> None:
        super().__init__(client, blocking=blocking, reply_timeout=reply_timeout)
        self.sentinel = sentinel

    async def close(self) -> None:
        await super().close()
        await self.sentinel.aclose()


class ClusterServers(Servers):
    """A Redis Cluster. Where a command goes is decided here, by its key: redis-py would ask the server for
    the keys of some, and send others anywhere while it learns the slots anew."""

    def __init__(self, client: Any, *, blocking: Any, reply_timeout: float, pool_size: int) -> None:
        super().__init__(client, blocking=blocking, reply_timeout=reply_timeout)
        # A node's pool does not wait for a free connection, so the waiting is done here.
        self._room = asyncio.Semaphore(pool_size)
        self._patience = 2 * reply_timeout
        """For one step with all that it may need: learning the slots asks one node after the other."""

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._reply_timeout):
                await self._room.acquire()
        except TimeoutError:
            raise redis_errors.MaxConnectionsError from None
        try:
            async with asyncio.timeout(self._patience):
                yield
        finally:
            self._room.release()

    async def command(self, *parts: Arg) -> Any:
        async with self._place():
            return await self._at_its_node(self.client, _key_of(parts), parts)

    async def _at_its_node(self, client: Any, key: Arg, parts: tuple[Arg, ...]) -> Any:
        await client.initialize()
        return await client.execute_command(*parts, target_nodes=client.get_node_from_key(key))

    async def pipeline(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        client = self.client
        async with self._place():
            await client.initialize()
            async with client.pipeline() as pipe:
                for parts in commands:
                    pipe.execute_command(*parts, target_nodes=client.get_node_from_key(_key_of(parts)))
                replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies

    async def on_each(self, *parts: Arg) -> list[Any]:
        async with self._place():
            await self.client.initialize()
            nodes = self.client.get_primaries()
            return await asyncio.gather(
                *(self.client.execute_command(*parts, target_nodes=node) for node in nodes)
            )

    async def read(self, keys: Sequence[str], parts: tuple[Arg, ...], seconds: float) -> Any:
        async with asyncio.timeout(seconds + self._patience):
            return await self._at_its_node(self.blocking, keys[0], parts)

    async def answers(self, keys: Sequence[str]) -> None:
        replies = await self.pipeline([("DEL", key) for key in keys])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply

    async def check(self, keys: Sequence[str]) -> None:
        # Asked for its slots again: redis-py does so only after some of the failures.
        await self.client.aclose()
        await self.answers(keys)


async def _greet(connection: Any) -> None:
    """redis-py's handshake. What is refused there says that the server cannot be used; redis-py would raise
    it as the error of the command that happened to need the connection."""
    try:
        await connection.on_connect_check_health(check_health=False)
    except redis_errors.ResponseError as error:
        raise HandshakeRefused(f"it refuses connections: {str(error)[:200]}") from error


def _packed(parts: tuple[Arg, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub asks for a tuple of one
    return packed


async def _reply(connection: Any) -> Any:
    """Broken off, it closes the connection: what is still to come must not answer somebody else."""
    try:
        return await connection.read_response(timeout=math.inf)
    except redis_errors.ResponseError as error:
        return error


def _key_of(parts: tuple[Arg, ...]) -> Arg:
    """The first key; all others share its slot."""
    return parts[3] if parts[0] in ("EVALSHA", "EVAL") else parts[1]


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, and asks the Sentinels for the master whenever it makes one."""


def _options(read_timeout: float | None, timeout: float) -> dict[str, Any]:
    return {
        "socket_connect_timeout": timeout,
        "socket_timeout": read_timeout,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "client_name": "coze-fastapi",
        "redis_connect_func": _greet,
    }


def open_single(address: RedisAddress, *, pool_size: int, reply_timeout: float) -> Servers:
    def client(size: int, read_timeout: float | None) -> Any:
        options = _options(read_timeout, reply_timeout)
        return Redis.from_pool(
            BlockingConnectionPool.from_url(
                address.url, max_connections=size, timeout=reply_timeout, **options
            )
        )

    return Servers(
        client(pool_size, reply_timeout), blocking=client(_BLOCKED, None), reply_timeout=reply_timeout
    )


def open_sentinel(address: RedisAddress, *, pool_size: int, reply_timeout: float) -> SentinelServers:
    given: dict[str, Any] = {**parse_url(address.url)}
    given.pop("host", None)
    given.pop("port", None)
    tls = given.pop("connection_class", None) is SSLConnection
    sentinel_options = _options(reply_timeout, reply_timeout)
    sentinel_options |= {name: value for name, value in given.items() if name.startswith("ssl_")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        address.nodes,
        sentinel_kwargs={
            **sentinel_options,
            "ssl": tls,
            "username": address.sentinel_username,
            "password": address.sentinel_password,
        },
    )

    def client(size: int, read_timeout: float | None) -> Any:
        pool = _MasterPool(  # type: ignore[no-untyped-call]
            address.service,
            sentinel,
            connection_class=SentinelManagedSSLConnection if tls else SentinelManagedConnection,
            max_connections=size,
            timeout=reply_timeout,
            **(_options(read_timeout, reply_timeout) | given),
        )
        return Redis.from_pool(pool)

    return SentinelServers(
        client(pool_size, reply_timeout),
        blocking=client(_BLOCKED, None),
        reply_timeout=reply_timeout,
        sentinel=sentinel,
    )


def open_cluster(address: RedisAddress, *, pool_size: int, reply_timeout: float) -> ClusterServers:
    given: dict[str, Any] = {**parse_url(address.url)}
    for name in ("host", "port", "db"):
        given.pop(name, None)
    given["ssl"] = given.pop("connection_class", None) is SSLConnection

    def client(size: int, read_timeout: float | None) -> Any:
        options = _options(read_timeout, reply_timeout) | given
        greet = options.pop("redis_connect_func")
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
            # A slot that moved is learnt by itself; learning all anew would cut what is under way.
            reinitialize_steps=0,
            max_connections=size + _SPARE,
            **options,
        )
        # It takes no such option, though its connections do.
        cluster.connection_kwargs["redis_connect_func"] = greet
        for node in cluster.startup_nodes:
            node.connection_kwargs["redis_connect_func"] = greet
        return cluster

    return ClusterServers(
        client(pool_size, reply_timeout),
        blocking=client(_BLOCKED, None),
        reply_timeout=reply_timeout,
        pool_size=pool_size,
    )
