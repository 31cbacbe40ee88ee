"""The one way to Redis, which knows whether Redis is there.

Policy: one blocking pool of a stated size, short time-outs, no hidden retries. The first command that
finds Redis away closes the gate: later ones fail at once with ``RedisUnavailable`` instead of each
waiting for its own time-out, and a probe opens the gate again by itself when Redis answers. A time-out alone
says less, since one slow script is enough for it: then a probe decides whether the gate is closed.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar, cast

from loguru import logger
from redis import exceptions as redis_errors

from app.exceptions import Overloaded, RedisUnavailable
from app.metrics import Metrics
from app.redis_client.commands import Arg, Command, Key, ScriptCall
from app.redis_client.servers import AnyServers, HandshakeRefused
from app.stopping import NoCancelLost, end_tasks
from app.tracing import Tracing

_T = TypeVar("_T")
Streams = list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]

_PROBE_SECONDS: Final = 0.2
_SLOWEST_PROBE_SECONDS: Final = 2.0
_AFTER_FAULT_SECONDS: Final = 1.0
_AWAY: Final = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterError,
    redis_errors.AskError,  # MOVED, too: redirected so often that there is no end to it
    redis_errors.TryAgainError,
    redis_errors.SlotNotCoveredError,
    OSError,
)
_AWAY_PREFIXES: Final = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED", "BUSY ")
"""First words of replies by which a server says that it cannot serve now. UNBLOCKED: it became a replica
while a read waited there. BUSY: somebody's script has been running for so long that it refuses all else."""
_TIMED_OUT: Final = (redis_errors.TimeoutError, TimeoutError)

_OUR_FAULT: Final = ("same key slot", "No way to dispatch", "Invalid args", "Too many targets")
_CAUGHT: Final = (*_AWAY, redis_errors.RedisClusterException, redis_errors.ResponseError)


def _is_away(error: BaseException) -> bool:
    """Whether this says that Redis, or a part of it, cannot be used at the moment."""
    if isinstance(error, _AWAY):
        return True
    text = str(error)
    if isinstance(error, redis_errors.RedisClusterException):
        return not any(words in text for words in _OUR_FAULT)
    return isinstance(error, redis_errors.ResponseError) and text.startswith(_AWAY_PREFIXES)


class RedisGate:
    """All commands go through here, so that one place knows whether Redis is there.

    Of a Cluster all nodes count as one: while one of them is away, so is Redis.
    """

    def __init__(
        self,
        servers: AnyServers,
        *,
        probe_keys: Sequence[Key],
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._tracing = tracing or Tracing()
        self._servers = servers
        self._probe_keys = probe_keys
        self._open = asyncio.Event()
        self._open.set()
        self._probe: asyncio.Task[None] | None = None
        self._suspicion: asyncio.Task[None] | None = None
        self._closed = False
        self.outages = 0
        """How often Redis was found away; whoever kept state across a change must look again."""
        self._stalls = 0

    @property
    def away(self) -> bool:
        return not self._open.is_set()

    @property
    def trouble(self) -> int:
        """Changes whenever Redis has answered nobody for longer than a reply may take, be it only slow."""
        return self.outages + self._stalls

    async def wait_open(self) -> None:
        await self._open.wait()

    async def found_away(self) -> bool:
        """Whether Redis is away, for somebody who was told ``RedisUnavailable``: where that was a time-out,
        the probe is waited for."""
        if self._suspicion is not None:
            await asyncio.wait([self._suspicion])
        return self.away

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if self.away:
            raise RedisUnavailable
        with NoCancelLost():
            try:
                yield
            except _CAUGHT as exc:
                if not _is_away(exc):
                    raise
                raise self._failed(exc) from exc

    async def run(self, command: Command[_T]) -> _T:
        """The reply.

        Raises:
            RedisUnavailable: Redis is away; at once, where that is known.
            Overloaded: no connection became free.
            redis.exceptions.ResponseError: the command's own error.
        """
        if not isinstance(command, ScriptCall):
            [reply] = await self._without_errors(command.name, [command])
            return reply
        with self._tracing.span(f"redis {command.name}", kind="client", only_inside=True):
            [reply] = await self._without_errors(command.name, [command])
            return reply

    async def pipeline(self, commands: Sequence[Command[_T]]) -> list[_T]:
        """Replies in order. Commands about one slot are done in their order; where one fails the others may
        have been done. Raises as ``run``."""
        return await self._without_errors("pipeline", commands)

    async def attempt(self, commands: Sequence[Command[_T]]) -> list[_T | Exception]:
        """As ``pipeline``, but returns a command's own error in its place; still raises what says that Redis
        is away."""
        return [cast("_T | Exception", reply) for reply in await self._send("pipeline", commands)]

    async def _without_errors(self, name: str, commands: Sequence[Command[_T]]) -> list[_T]:
        replies = await self._send(name, commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return cast("list[_T]", replies)

    async def _send(self, name: str, commands: Sequence[Command[object]]) -> Sequence[object]:
        if not commands:
            return []
        with self._watched(), self._metrics.redis(name):
            replies = [*await self._servers.send(commands)]
            unknown = [n for n, reply in enumerate(replies) if isinstance(reply, redis_errors.NoScriptError)]
            if unknown:  # it has been restarted, or is new: these were not done
                again = await self._servers.send([commands[n] for n in unknown], in_full=True)
                for n, reply in zip(unknown, again, strict=True):
                    replies[n] = reply
            for reply in replies:
                if isinstance(reply, Exception) and _is_away(reply):
                    raise reply
        return replies

    async def on_each(self, *parts: Arg) -> Sequence[object]:
        """What every server that holds keys replies to a command without a key. Raises as ``run``."""
        with self._watched(), self._metrics.redis(str(parts[0])):
            return await self._servers.on_each(*parts)

    async def info(self, section: str = "default") -> list[dict[str, str | int]]:
        """INFO's names and values, of every server that holds keys. Raises as ``run``."""
        texts = [reply.decode() for reply in await self.on_each("INFO", section) if isinstance(reply, bytes)]
        pairs = [[line.partition(":") for line in text.splitlines()] for text in texts]
        return [
            {name: int(value) if value.isdecimal() else value for name, colon, value in lines if colon}
            for lines in pairs
        ]

    async def read_streams(self, places: Mapping[Key, str], seconds: float, count: int = 100) -> Streams:
        """New entries of streams that share a slot: ``[(key, [(id, fields), ...]), ...]``.

        Args:
            places: for each stream the id behind which to read.
            seconds: how long to wait for the first entry; then it is empty.
            count: entries of each stream, at most.
        """
        milliseconds = max(1, int(seconds * 1000))
        head = ("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS")
        with self._watched():
            reply = await self._servers.read(next(iter(places)), (*head, *places, *places.values()), seconds)
        return cast("Streams | None", reply) or []

    async def ping(self) -> bool:
        """Whether Redis answers now; a failure closes the gate, an odd answer is only logged."""
        try:
            await self.on_each("PING")
        except RedisUnavailable:
            return False
        except redis_errors.RedisError as error:
            logger.warning("Redis does not answer as it should: {}", type(error).__name__)
            return False
        return True

    def _failed(self, exc: Exception) -> RedisUnavailable | Overloaded:
        if isinstance(exc, redis_errors.MaxConnectionsError) or "No connection available" in str(exc):
            return Overloaded("All connections to the store are in use; try again shortly")
        if not isinstance(exc, _TIMED_OUT):
            self._close_gate(exc)
        elif self._suspicion is None and not self._closed:
            self._suspicion = asyncio.create_task(self._check_suspicion(), name="redis-doubt")
            self._suspicion.add_done_callback(self._suspicion_checked)
        return RedisUnavailable()

    def _close_gate(self, exc: Exception) -> None:
        if self._open.is_set():
            self._open.clear()
            self.outages += 1
            self._metrics.redis_outage()
            logger.warning(
                "Redis is away: {}", exc if isinstance(exc, HandshakeRefused) else type(exc).__name__
            )
            self._start_probe()

    async def _check_suspicion(self) -> None:
        """Was it that command alone, or is Redis away?"""
        try:
            with NoCancelLost():
                await self._servers.answers(self._probe_keys)
        except _CAUGHT as exc:
            if _is_away(exc):
                self._close_gate(exc)
        else:
            self._stalls += 1
            logger.warning("Redis was slow: a command timed out")

    def _suspicion_checked(self, doubt: "asyncio.Task[None]") -> None:
        self._suspicion = None
        if not doubt.cancelled() and (error := doubt.exception()) is not None:
            logger.opt(exception=error).error("looking for Redis broke")

    def _start_probe(self) -> None:
        if self._closed:
            return
        self._probe = asyncio.create_task(self._probe_until_back(), name="redis-probe")
        self._probe.add_done_callback(self._probe_ended)

    def _probe_ended(self, probe: "asyncio.Task[None]") -> None:
        """Whatever breaks a probe, the next one is tried: nobody else opens the gate."""
        if not probe.cancelled() and (error := probe.exception()) is not None:
            logger.opt(exception=error).error("looking for Redis broke")
            asyncio.get_running_loop().call_later(_AFTER_FAULT_SECONDS, self._start_probe)

    async def _probe_until_back(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                with NoCancelLost():
                    await self._servers.check(self._probe_keys)
            except _CAUGHT as exc:
                if not _is_away(exc):
                    logger.warning("Redis answers again, though not as it should: {}", type(exc).__name__)
                    break
                # The longer it has been away, the less it matters whether it is found a moment later.
                away = loop.time() - began
                await asyncio.sleep(min(max(_PROBE_SECONDS, away / 20), _SLOWEST_PROBE_SECONDS))
            else:
                break
        logger.warning("Redis is back")
        self._open.set()

    async def close(self) -> None:
        self._closed = True
        await end_tasks(task for task in (self._probe, self._suspicion) if task is not None)
        await self._servers.close()
