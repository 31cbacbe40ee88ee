"""The servers behind REDIS_URL: one, a master that Sentinels name, or a Cluster. All behave alike, and their
replies are the same.

None retries by itself: a command whose answer was lost may have been done, and only the caller knows what
that means. A command that a Cluster sends elsewhere (MOVED, ASK) was not done and follows.
"""

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import hiredis
from loguru import logger
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff

from app.config.redis_url import RedisAddress
from app.redis_client.commands import Arg, Command, Key
from app.redis_client.refusals import HandshakeRefused, is_away, server_words
from app.utils import SHARDS
from app.utils.stopping import NoCancelLost, end_tasks

if TYPE_CHECKING:
    from fakeredis import FakeServer

BLOCKING_READS: Final = SHARDS + 4
"""Reads that wait at the same time: one for each shard, the inbox, and some room."""

_CLIENT_NAME: Final = "coze-fastapi"

_AT_HAND: Final = 4
"""Connections that stay outside the pool, ready to be used."""

_AT_A_TIME: Final = 50
"""Replies that are read before others get their turn."""

_TOLD_AT_ONCE: Final = 8
"""Replies that are handed out in a turn of the event loop: all whom they wake go on in the next one. Without
that those who were once woken together would stay together, and hundreds would go on in one turn."""

_EXTRA_CONNECTIONS: Final = 8
"""Connections to a node beyond the commands that run at once: what was given up may still hold one."""


Reply = object
"""As the wire has it, or a command's own error."""
AnyCommand = Command[object]
Parts = tuple[Arg, ...]
MakeClient = Callable[[int, float | None], Redis]


class Servers:
    """One server, or the master of a group: everything goes to the same place.

    Args:
        client: makes a client of so many connections, with that read time-out.
        pool_size: connections for commands.
        reply_timeout: seconds for a reply, and for all replies of a pipeline together.
        sentinel: tells where the master is; closed with the rest.
    """

    def __init__(
        self, client: MakeClient, *, pool_size: int, reply_timeout: float, sentinel: Sentinel | None = None
    ) -> None:
        self._client = client(pool_size, reply_timeout)
        self._sentinel = sentinel
        self._blocking = client(BLOCKING_READS, None)  # else redis-py would end reads that wait
        self._blocking.response_callbacks.clear()  # replies as they come, everywhere
        self._reply_timeout = reply_timeout
        self._next_batch: list[tuple[bytes, asyncio.Future[Reply]]] = []
        self._batches: dict[asyncio.Task[None], None] = {}
        self._at_hand: list[AbstractConnection] = []

    async def send(
        self, commands: Sequence[AnyCommand], *, in_full: bool = False, alone: bool = False
    ) -> Sequence[Reply]:
        """Replies in order, a command's own error in its place. A single command travels with all others of
        the same turn of the event loop, unless it has to go ``alone``. ``in_full``: for a server that does
        not know the scripts."""
        packed = [_packed(each.in_full if in_full else each.parts) for each in commands]
        if alone or len(packed) > 1:
            return await self._exchange(packed)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._next_batch.append((packed[0], reply))
        if len(self._next_batch) == 1:
            task = asyncio.create_task(self._send_batch(), name="redis-commands")
            self._batches[task] = None
            task.add_done_callback(self._batch_ended)
        return [await reply]

    async def _send_batch(self) -> None:
        """A turn of the loop later, so that what all its tasks have asked for goes as one pipeline: a burst
        of requests needs one connection and not one each."""
        batch, self._next_batch = self._next_batch, []
        replies: Sequence[Reply] = ()
        try:
            replies = await self._exchange([packed for packed, _ in batch])
        finally:
            # Whatever went wrong, nobody is left waiting. A cancel is meant for this task and not for them.
            error = sys.exception()
            instead = error if isinstance(error, Exception) else redis_errors.ConnectionError("No reply")
            missing = [instead] * (len(batch) - len(replies))
            _hand_out(iter([*zip((reply for _, reply in batch), [*replies, *missing], strict=True)]))

    def _batch_ended(self, task: "asyncio.Task[None]") -> None:
        """What went wrong is raised where it was asked for; only what nobody expects is told here, too."""
        self._batches.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, redis_errors.RedisError | OSError):
            logger.error("a pipeline broke: {}", type(error).__name__)

    async def _exchange(self, packed: Sequence[bytes]) -> list[Reply]:
        """The replies to packed commands, on redis-py's connections but without its Pipeline.

        Packing in C, one time-out for all replies, and a connection that is at hand: in CPU time a command
        costs 6 to 10 us in a pipeline of 50 (redis-py's: 47), 95 us alone (190), and 10 to 20 us where 50
        tasks ask in one turn (150 to 210). Without connections at hand it is 200 us alone. Measured with
        redis-py 8.1, hiredis 3.5, uvloop, XADD and GET.
        """
        connection = await self._connection()
        sound = False
        try:
            async with asyncio.timeout(self._reply_timeout):
                with NoCancelLost():  # or the time-out might be lost, and what follows waits without one
                    await connection.send_packed_command(packed)
                replies = []
                for number in range(len(packed)):
                    replies.append(await _reply(connection))
                    if number % _AT_A_TIME == _AT_A_TIME - 1:
                        await asyncio.sleep(0)  # replies that are here already would be read without a pause
            sound = True
            return replies
        except TimeoutError:
            raise redis_errors.TimeoutError from None
        finally:
            pool = self._client.connection_pool
            if sound and len(self._at_hand) < min(_AT_HAND, pool.max_connections // 4):
                self._at_hand.append(connection)
            else:
                if not sound:  # replies may be still to come: they must not answer somebody else
                    await connection.disconnect(nowait=True)
                await pool.release(connection)

    async def _connection(self) -> AbstractConnection:
        """One that is at hand, else one from the pool."""
        pool = self._client.connection_pool
        while self._at_hand:
            connection = self._at_hand.pop()
            with contextlib.suppress(redis_errors.RedisError, OSError):
                if connection.is_connected and not await connection.can_read():  # what is closed can be read
                    return connection
            await pool.release(connection)
        fresh: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
        return fresh

    async def _give_back(self) -> None:
        while self._at_hand:
            await self._client.connection_pool.release(self._at_hand.pop())

    async def on_each(self, *parts: Arg) -> Sequence[Reply]:
        """The replies of all that hold keys, to a command without a key."""
        replies = await self._exchange([_packed(parts)])
        if isinstance(replies[0], Exception):
            raise replies[0]
        return replies

    async def read(self, key: Key, parts: Parts, seconds: float) -> Reply:
        """A command that waits up to ``seconds``; all its keys share a slot with ``key``.

        A server that has vanished without a word says nothing even then: that ends the wait, too.
        """
        async with asyncio.timeout(seconds + self._reply_timeout):
            reply: Reply = await self._blocking.execute_command(*parts)  # type: ignore[no-untyped-call]
            return reply

    async def before_probe(self) -> None:
        """After an outage: what was at hand is looked at by the pool again."""
        await self._give_back()

    async def connect_anew(self) -> None:
        """The server at the other end has become a replica; the master may be elsewhere by now."""
        await self._give_back()
        await self._client.connection_pool.disconnect(inuse_connections=False)
        await self._blocking.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        await end_tasks(self._batches)
        batch, self._next_batch = self._next_batch, []
        for _, reply in batch:  # their pipeline was cancelled before it had begun
            if not reply.done():
                reply.set_result(redis_errors.ConnectionError("No reply"))
        await self._give_back()
        for client in (self._blocking, self._client, self._sentinel):
            if client is not None:
                await client.aclose()


class ClusterServers:
    """A Redis Cluster; see ``Servers``. Where a command goes is decided here, by its key: redis-py would ask
    the server for the keys of some, and send others anywhere while it learns the slots anew."""

    def __init__(
        self, client: Callable[[int, float | None], RedisCluster], *, pool_size: int, reply_timeout: float
    ) -> None:
        self._client = client(pool_size, reply_timeout)
        self._blocking = client(BLOCKING_READS, None)
        self._reply_timeout = reply_timeout
        # A node's pool does not wait for a free connection, so the waiting is done here.
        self._slots = asyncio.Semaphore(pool_size)
        self._step_timeout = 2 * reply_timeout
        """For one step with all that it may need: learning the slots asks one node after the other."""

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._reply_timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise redis_errors.MaxConnectionsError from None
        try:
            async with asyncio.timeout(self._step_timeout):
                await self._client.initialize()
                yield
        finally:
            self._slots.release()

    async def send(
        self, commands: Sequence[AnyCommand], *, in_full: bool = False, alone: bool = False
    ) -> Sequence[Reply]:
        """``alone``: here each command is."""
        async with self._slot():
            if len(commands) == 1:
                parts = commands[0].in_full if in_full else commands[0].parts
                node = self._client.get_node_from_key(commands[0].key)
                try:
                    return [await self._client.execute_command(*parts, target_nodes=node)]
                except redis_errors.ResponseError as error:
                    return [error]
            async with self._client.pipeline() as pipe:
                for each in commands:
                    node = self._client.get_node_from_key(each.key)
                    pipe.execute_command(*(each.in_full if in_full else each.parts), target_nodes=node)
                replies: Sequence[Reply] = await pipe.execute(raise_on_error=False)
        return replies

    async def on_each(self, *parts: Arg) -> Sequence[Reply]:
        async with self._slot():
            nodes = self._client.get_primaries()
            replies: Sequence[Reply] = await asyncio.gather(
                *(self._client.execute_command(*parts, target_nodes=node) for node in nodes)
            )
            return replies

    async def read(self, key: Key, parts: Parts, seconds: float) -> Reply:
        async with asyncio.timeout(seconds + self._step_timeout):
            await self._blocking.initialize()
            node = self._blocking.get_node_from_key(key)
            reply: Reply = await self._blocking.execute_command(*parts, target_nodes=node)
            return reply

    async def before_probe(self) -> None:
        # Asked for its slots again: redis-py does so only after some of the failures.
        await self._client.aclose()

    async def connect_anew(self) -> None:
        """Nothing: a Cluster tells where its masters are."""

    async def close(self) -> None:
        for client in (self._blocking, self._client):
            await client.aclose()


AnyServers = Servers | ClusterServers


async def _handshake(connection: AbstractConnection) -> None:
    """redis-py's handshake, and our name for whoever lists the clients. What is refused there says that the
    server cannot be used; redis-py would raise it as the error of the command that happened to need the
    connection. The name is for people alone: where it may not be given, as behind a proxy, it is left out."""
    # Else it sends CLIENT SETINFO and ignores the reply, in which a server may say why it hangs up.
    connection.driver_info = None
    try:
        await connection.on_connect_check_health(check_health=False)
    except redis_errors.ResponseError as error:
        raise _handshake_refused(error) from error
    try:
        await connection.send_command("CLIENT", "SETNAME", _CLIENT_NAME, check_health=False)
        await connection.read_response()
    except redis_errors.ResponseError as error:
        if is_away(error):
            raise _handshake_refused(error) from error


def _handshake_refused(error: Exception) -> HandshakeRefused:
    return HandshakeRefused(f"it refuses connections: {server_words(error)[:200]}")


def _hand_out(replies: Iterator[tuple[asyncio.Future[Reply], Reply]]) -> None:
    """Some now, the others in later turns of the event loop, whatever becomes of whoever has read them."""
    now = [*islice(replies, _TOLD_AT_ONCE)]
    for asked, reply in now:
        if not asked.done():  # else whoever asked has gone
            asked.set_result(reply)
    if len(now) == _TOLD_AT_ONCE:
        asyncio.get_running_loop().call_soon(_hand_out, replies)


def _packed(parts: Parts) -> bytes:
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub asks for a tuple of one
    return packed


async def _reply(connection: AbstractConnection) -> Reply:
    """Broken off, it closes the connection: what is still to come must not answer somebody else."""
    try:
        reply: Reply = await connection.read_response(timeout=math.inf)
        return reply
    except redis_errors.ResponseError as error:
        return error


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, and asks the Sentinels for the master whenever it makes one."""


def connection_options(read_timeout: float | None, timeout: float) -> dict[str, Any]:
    return {
        "socket_connect_timeout": timeout,
        "socket_timeout": read_timeout,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "redis_connect_func": _handshake,
    }


def open_embedded(reply_timeout: float, server: "FakeServer | None" = None) -> Servers:
    """A Redis inside this process: ``server``, or one of its own."""
    from fakeredis import FakeAsyncRedis, FakeServer

    server = server or FakeServer()
    return Servers(
        lambda *_: FakeAsyncRedis(server=server, protocol=2), pool_size=0, reply_timeout=reply_timeout
    )


def open_single(address: RedisAddress, *, pool_size: int, reply_timeout: float) -> Servers:
    def client(size: int, read_timeout: float | None) -> Redis:
        options = connection_options(read_timeout, reply_timeout)
        if address.url.startswith("unix:"):
            del options["socket_keepalive"]  # a socket on this machine takes no such option
        return Redis.from_pool(
            BlockingConnectionPool.from_url(
                address.url, max_connections=size, timeout=reply_timeout, **options
            )
        )

    return Servers(client, pool_size=pool_size, reply_timeout=reply_timeout)


def open_sentinel(address: RedisAddress, *, pool_size: int, reply_timeout: float) -> Servers:
    given: dict[str, Any] = {**parse_url(address.url)}
    given.pop("host", None)
    given.pop("port", None)
    tls = given.pop("connection_class", None) is SSLConnection
    options = connection_options(reply_timeout, reply_timeout)
    options |= {name: value for name, value in given.items() if name.startswith("ssl_")}
    options |= {"ssl": tls, "username": address.sentinel_username, "password": address.sentinel_password}
    sentinel = Sentinel(address.nodes, sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    def client(size: int, read_timeout: float | None) -> Redis:
        pool = _MasterPool(  # type: ignore[no-untyped-call]
            address.service,
            sentinel,
            connection_class=SentinelManagedSSLConnection if tls else SentinelManagedConnection,
            max_connections=size,
            timeout=reply_timeout,
            **(connection_options(read_timeout, reply_timeout) | given),
        )
        return Redis.from_pool(pool)

    return Servers(client, pool_size=pool_size, reply_timeout=reply_timeout, sentinel=sentinel)


def open_cluster(address: RedisAddress, *, pool_size: int, reply_timeout: float) -> ClusterServers:
    given: dict[str, Any] = {**parse_url(address.url)}
    for name in ("host", "port", "db"):
        given.pop(name, None)
    given["ssl"] = given.pop("connection_class", None) is SSLConnection

    def client(size: int, read_timeout: float | None) -> RedisCluster:
        options = connection_options(read_timeout, reply_timeout) | given
        greet = options.pop("redis_connect_func")
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in address.nodes],
            # A slot that moved is learnt by itself; learning all anew would cut what is under way.
            reinitialize_steps=0,
            max_connections=size + _EXTRA_CONNECTIONS,
            **options,
        )
        # It takes no such option, though its connections do.
        cluster.connection_kwargs["redis_connect_func"] = greet
        # Replies as they come, everywhere; but redis-py has to understand what it asks for itself.
        for name in [*cluster.response_callbacks]:
            if not name.startswith(("CLUSTER", "COMMAND")):
                del cluster.response_callbacks[name]
        return cluster

    return ClusterServers(client, pool_size=pool_size, reply_timeout=reply_timeout)
