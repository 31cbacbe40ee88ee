"""The one way to Redis, which knows whether Redis is there.

Policy: one blocking pool of a stated size, short time-outs, no hidden retries. The first command that
finds Redis away closes the gate: later ones fail at once with ``RedisUnavailable`` instead of each
waiting for its own time-out, and a probe opens the gate again by itself when Redis answers. Only the first
probe is waited for, and not for long: connections that were closed (by Redis, or by a box in between) are no
outage, and a new one shows that. A time-out alone
says less, since one slow script is enough for it: then a probe decides whether the gate is closed. So it is
where a command is refused, be it that a right is missing; whoever asked gets ``RedisRefused``.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar, cast

from loguru import logger
from redis import exceptions as redis_errors

from app.exceptions import Overloaded, RedisUnavailable
from app.observing.metrics import Metrics
from app.observing.tracing import Tracing
from app.redis_client.commands import Arg, Command, Key, Script, ScriptCall
from app.redis_client.refusals import CAUGHT, is_away, is_read_only, reason
from app.redis_client.servers import AnyServers
from app.utils.stopping import NoCancelLost, end_tasks

_T = TypeVar("_T")
Streams = list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]

_PROBE_SECONDS: Final = 0.2
_SLOWEST_PROBE_SECONDS: Final = 2.0
_AFTER_FAULT_SECONDS: Final = 1.0
_TIMED_OUT: Final = (redis_errors.TimeoutError, TimeoutError)


@Script
def probe(*, key: Key, thorough: bool) -> int:  # type: ignore[empty-body]
    """-> 1. Raises where anything that the service needs is refused."""


class RedisRefused(RedisUnavailable):
    """Redis answers, and refused this command: a right is missing, or nobody knows why."""


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
        self._metrics.redis_away.set(0)
        self._tracing = tracing or Tracing()
        self._servers = servers
        self._probe_keys = probe_keys
        self._open = asyncio.Event()
        self._open.set()
        self._looked = asyncio.Event()
        """Whether a probe has ended since the gate was closed, or a probe broke."""
        self._looked.set()
        self._probe: asyncio.Task[None] | None = None
        self._suspicion: asyncio.Task[None] | None = None
        self._closed = False
        self.outages = 0
        """How often Redis was found away; whoever kept state across a change must look again."""
        self._stalls = 0
        self.why = ""
        """What was the matter with Redis when it was last found away, in one line that holds no secret."""

    @property
    def away(self) -> bool:
        return not self._open.is_set()

    @property
    def trouble(self) -> int:
        """Changes whenever Redis has answered nobody for longer than a reply may take, be it only slow."""
        return self.outages + self._stalls

    async def wait_open(self) -> None:
        await self._open.wait()

    async def _first_look(self) -> None:
        if self.away and not self._looked.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._looked.wait()

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
            except CAUGHT as exc:
                if not is_away(exc):
                    raise
                raise self._failed(exc) from exc

    def refused(self, name: str, error: Exception) -> RedisRefused:
        """What to raise for a command that was refused; a probe finds out whether all others are, too."""
        logger.error("Redis refuses {}: {}", name, reason(error))
        self._suspect()
        return RedisRefused()

    async def run(self, command: Command[_T], *, alone: bool = False) -> _T:
        """The reply. ``alone``: it may be long, and whatever is asked for at the same time must not wait for
        it, or fail with it.

        Raises:
            RedisUnavailable: Redis is away; at once, where that is known.
            RedisRefused: Redis refused this command.
            Overloaded: no connection became free.
        """
        if not isinstance(command, ScriptCall):
            [reply] = await self._without_errors(command.name, [command], alone)
            return reply
        with self._tracing.span(f"redis {command.name}", kind="client", only_inside=True):
            [reply] = await self._without_errors(command.name, [command], alone)
            return reply

    async def pipeline(self, commands: Sequence[Command[_T]]) -> list[_T]:
        """Replies in order. Commands about one slot are done in their order; where one fails the others may
        have been done. Raises as ``run``."""
        return await self._without_errors("pipeline", commands)

    async def attempt(self, commands: Sequence[Command[_T]]) -> list[_T | Exception]:
        """As ``pipeline``, but returns a command's own error in its place; still raises what says that Redis
        is away."""
        return [cast("_T | Exception", reply) for reply in await self._send("pipeline", commands)]

    async def _without_errors(
        self, name: str, commands: Sequence[Command[_T]], alone: bool = False
    ) -> list[_T]:
        replies = await self._send(name, commands, alone)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, redis_errors.ResponseError):
                raise self.refused(command.name, reply) from reply
            if isinstance(reply, Exception):
                raise reply
        return cast("list[_T]", replies)

    async def _send(
        self, name: str, commands: Sequence[Command[object]], alone: bool = False
    ) -> Sequence[object]:
        if not commands:
            return []
        await self._first_look()
        with self._watched(), self._metrics.redis(name):
            replies = await self._replies(commands, alone)
            for reply in replies:
                if isinstance(reply, Exception) and is_away(reply):
                    raise reply
        return replies

    async def _replies(self, commands: Sequence[Command[object]], alone: bool = False) -> list[object]:
        replies = [*await self._servers.send(commands, alone=alone)]
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, redis_errors.NoScriptError)]
        if unknown:  # it has been restarted, or is new: these were not done
            missed = [commands[n] for n in unknown]
            again = await self._servers.send(missed, in_full=True, alone=alone)
            for n, reply in zip(unknown, again, strict=True):
                replies[n] = reply
        return replies

    async def on_each(self, *parts: Arg) -> Sequence[object]:
        """What every server that holds keys replies to a command without a key. Raises as ``run``, but a
        command's own error as redis-py's ResponseError: the service does without what it asks for here."""
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
        try:
            with self._watched():
                parts: tuple[Arg, ...] = (*head, *places, *places.values())
                reply = await self._servers.read(next(iter(places)), parts, seconds)
        except redis_errors.ResponseError as error:
            raise self.refused("XREAD", error) from error
        return cast("Streams | None", reply) or []

    async def works(self, *, thorough: bool = False) -> bool:
        """Whether Redis takes a script in each slot as one that writes, now; a failure closes the gate. It
        changes nothing unless ``thorough``.

        Args:
            thorough: with all that the service ever asks of it.
        """
        await self._first_look()
        if self.away:
            return False
        try:
            with NoCancelLost():
                await self._try(thorough=thorough)
        except CAUGHT as exc:
            if isinstance(exc, _TIMED_OUT) or _no_connection(exc):
                self._failed(exc)
            else:
                self._close_gate(exc)
            return False
        return True

    async def _try(self, *, thorough: bool) -> None:
        """Raises what the first slot that does not work says."""
        calls = [probe(key=key, thorough=thorough) for key in self._probe_keys]
        replies = await self._replies(calls)
        if thorough:  # a server that knows the scripts today may be new tomorrow
            replies += await self._servers.send(calls[:1], in_full=True)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply

    def _failed(self, exc: Exception) -> RedisUnavailable | Overloaded:
        if _no_connection(exc):
            return Overloaded("All connections to the store are in use; try again shortly")
        if not isinstance(exc, _TIMED_OUT):
            self._close_gate(exc)
        else:
            self._suspect(slow=True)
        return RedisUnavailable()

    def _suspect(self, *, slow: bool = False) -> None:
        if self._suspicion is None and not self._closed and not self.away:
            self._suspicion = asyncio.create_task(self._check_suspicion(slow=slow), name="redis-doubt")
            self._suspicion.add_done_callback(self._suspicion_checked)

    def _close_gate(self, exc: Exception) -> None:
        if self._open.is_set():
            self._open.clear()
            self._looked.clear()
            self.outages += 1
            self._metrics.redis_outages.inc()
            self._metrics.redis_away.set(1)
            self.why = reason(exc)
            logger.warning("Redis is away: {}", self.why)
            self._start_probe()

    async def _check_suspicion(self, *, slow: bool) -> None:
        """Was it that command alone, or is Redis away?"""
        try:
            with NoCancelLost():
                await self._try(thorough=not slow)
        except CAUGHT as exc:
            self._close_gate(exc)
        else:
            if slow:
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
        self._looked.set()
        if not probe.cancelled() and (error := probe.exception()) is not None:
            logger.opt(exception=error).error("looking for Redis broke")
            asyncio.get_running_loop().call_later(_AFTER_FAULT_SECONDS, self._start_probe)

    async def _probe_until_back(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                with NoCancelLost():
                    await self._servers.before_probe()
                    await self._try(thorough=True)
            except CAUGHT as exc:
                with NoCancelLost():
                    if is_read_only(exc):
                        await self._servers.connect_anew()
                self._still_away(exc)
                self._looked.set()
                # The longer it has been away, the less it matters whether it is found a moment later.
                away = loop.time() - began
                await asyncio.sleep(min(max(_PROBE_SECONDS, away / 20), _SLOWEST_PROBE_SECONDS))
            else:
                break
        logger.warning("Redis is back")
        self._metrics.redis_away.set(0)
        self._open.set()
        self._looked.set()

    def _still_away(self, exc: Exception) -> None:
        """Says so where the reason is another one than before: what is to be done may be, too."""
        if (why := reason(exc)) != self.why:
            self.why = why
            logger.warning("Redis is still away: {}", why)

    async def close(self) -> None:
        self._closed = True
        self._looked.set()
        await end_tasks(task for task in (self._probe, self._suspicion) if task is not None)
        await self._servers.close()


def _no_connection(exc: Exception) -> bool:
    """Whether all of ours are in use, which says nothing of Redis."""
    return isinstance(exc, redis_errors.MaxConnectionsError) or "No connection available" in str(exc)
