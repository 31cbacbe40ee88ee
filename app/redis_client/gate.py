"""The one way to Redis, which knows whether Redis is there.

Policy: one blocking pool of a stated size, short time-outs, no hidden retries. The first command that
finds Redis away closes the gate: later ones fail at once with ``RedisUnavailable`` instead of each
waiting for its own time-out, and a probe opens the gate again by itself when Redis answers. A time-out alone
says less, since one slow script is enough for it: then a probe decides whether the gate is closed.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from loguru import logger
from redis import exceptions as redis_errors

from app.exceptions import Overloaded, RedisUnavailable
from app.metrics import Metrics
from app.redis_client.keys import Arg, Script
from app.redis_client.servers import HandshakeRefused, Servers
from app.stopping import NoCancelLost, end_tasks
from app.tracing import Tracing

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
_AWAY_WORDS: Final = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED", "BUSY ")
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
    return isinstance(error, redis_errors.ResponseError) and text.startswith(_AWAY_WORDS)


class RedisGate:
    """All commands go through here, so that one place knows whether Redis is there.

    Of a Cluster all nodes count as one: while one of them is away, so is Redis.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        probe_keys: Sequence[str] = ("coze:probe",),
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
        self._doubt: asyncio.Task[None] | None = None
        self._closed = False
        self.outages = 0
        """How often Redis was found away; whoever kept state across a change must look again."""
        self._stalls = 0

    @property
    def client(self) -> Any:
        """redis-py's own client."""
        return self._servers.client

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
        if self._doubt is not None:
            await asyncio.wait([self._doubt])
        return self.away

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
        """The script's reply. Raises ``RedisUnavailable`` at once while Redis is known to be away."""
        with self._tracing.span(f"redis {script.name}", kind="client", only_inside=True):
            try:
                return await self._command(script.name, script.command(keys, args))
            except redis_errors.NoScriptError:
                return await self._command(script.name, ("EVAL", script.source, len(keys), *keys, *args))

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

    async def command(self, *parts: Arg) -> Any:
        """A command with a key."""
        return await self._command(str(parts[0]), parts)

    async def _command(self, name: str, parts: tuple[Arg, ...]) -> Any:
        with self._watched(), self._metrics.redis(name):
            return await self._servers.command(*parts)

    async def pipeline(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        """Replies in order; a command's own error is returned in its place, not raised.

        Commands about one slot are done in their order; where one fails for want of Redis all count as
        failed, though some may have been done.
        """
        with self._watched(), self._metrics.redis("pipeline"):
            replies = await self._servers.pipeline(commands)
            for reply in replies:
                if isinstance(reply, Exception) and _is_away(reply):
                    raise reply
        return replies

    async def on_each(self, *parts: Arg) -> list[Any]:
        """What every server that holds keys replies to a command without a key."""
        with self._watched(), self._metrics.redis(str(parts[0])):
            return await self._servers.on_each(*parts)

    async def read_streams(self, places: dict[str, str], seconds: float, count: int = 100) -> Any:
        """XREAD BLOCK of streams that share a slot: ``[(key, [(id, fields), ...]), ...]``, empty when
        nothing came in time."""
        milliseconds = max(1, int(seconds * 1000))
        head: tuple[Arg, ...] = ("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS")
        with self._watched():
            reply = await self._servers.read([*places], (*head, *places, *places.values()), seconds)
        return reply or []

    async def load(self, scripts: Sequence[Script]) -> None:
        for script in scripts:
            await self.on_each("SCRIPT LOAD", script.source)

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
        elif self._doubt is None and not self._closed:
            self._doubt = asyncio.create_task(self._find_out(), name="redis-doubt")
            self._doubt.add_done_callback(self._found_out)
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

    async def _find_out(self) -> None:
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

    def _found_out(self, doubt: "asyncio.Task[None]") -> None:
        self._doubt = None
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
        await end_tasks(task for task in (self._probe, self._doubt) if task is not None)
        await self._servers.close()
