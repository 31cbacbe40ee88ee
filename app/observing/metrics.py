"""Prometheus instruments of one app, and what a request has waited for (``Server-Timing``).

With PROMETHEUS_MULTIPROC_DIR in the environment (``python -m app`` sets it for WORKERS > 1) every worker
keeps its numbers in files of that directory, and whichever is scraped answers for all.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from app.exceptions import UpstreamError

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

MAX_LABELS: Final = 100
"""Different bots, and different Coze codes, that get a label of their own; the rest are ``other``."""

_LONGEST_ACCEPT: Final = 1000
"""Characters; Prometheus sends a third of that. What is longer gets the usual format."""
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CHAT_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 600)
_REDIS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5)
_ANSWER_BUCKETS: Final = (0, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
_KINDS_OF_UNREADABLE: Final = ("reply", "message", "event", "lost_event")
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class CredentialTimes(NamedTuple):
    """Unix seconds at which a credential for Coze expires (None: not known), and seconds until it is used
    again (0: it is in use)."""

    expires_at: int | None
    cool_down: float = 0.0


class Timings:
    """Seconds that one request, and the tasks it started, have waited: for Redis, and for Coze."""

    __slots__ = ("store", "upstream")

    def __init__(self) -> None:
        self.store = 0.0
        self.upstream = 0.0


_current_timings: Final[ContextVar[Timings | None]] = ContextVar("timings", default=None)


def begin_timings() -> Timings:
    """Those of the request that is handled from here on, in this task and in those it starts."""
    timings = Timings()
    _current_timings.set(timings)
    return timings


class _Timer:
    """Adds the time of a block to what the request has waited for ``kind``."""

    __slots__ = ("_kind", "_latency", "_started")

    def __init__(self, kind: Literal["store", "upstream"], latency: "Histogram | None" = None) -> None:
        self._kind = kind
        self._latency = latency

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._started
        if self._latency is not None:
            self._latency.observe(seconds)
        if (timings := _current_timings.get()) is not None:
            setattr(timings, self._kind, getattr(timings, self._kind) + seconds)


class _BoundedLabel:
    """The first ``MAX_LABELS`` different values as they are, all later ones as ``other``."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= MAX_LABELS:
                return "other"
            self._known.add(value)
        return value


class Metrics:
    """One per app: two may live in one process. All durations are in seconds.

    Labels come from our own code (routes, outcomes, commands) or are bounded. prometheus_client is imported
    here and not above: it reads the environment when it is.
    """

    def __init__(self, version: str = "") -> None:
        import prometheus_client

        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._prometheus = prometheus_client
        self._directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._registry = prometheus_client.CollectorRegistry()
        self._bot, self._code = _BoundedLabel(), _BoundedLabel()
        self._credential_times: Callable[[], Mapping[str, CredentialTimes]] = dict
        self._redis_latency: dict[str, Histogram] = {}
        self._request_series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        if self._directory:
            self._workers = Path(self._directory) / "workers"
            self._workers.mkdir(exist_ok=True)
            (self._workers / str(os.getpid())).touch()
        else:
            prometheus_client.ProcessCollector(registry=self._registry)
        self._add_instruments()
        self._build_info.labels(version).set(1)

    def _add_instruments(self) -> None:
        counter = partial(self._prometheus.Counter, registry=self._registry)
        gauge = partial(self._prometheus.Gauge, registry=self._registry)
        histogram = partial(self._prometheus.Histogram, registry=self._registry)
        self._requests = counter("coze_http_requests", "Requests answered", ["method", "route", "status"])
        text = "From a request to the headers of its answer"
        name = "coze_http_request_duration_seconds"
        self._request_seconds = histogram(name, text, ["route"], buckets=_REQUEST_BUCKETS)
        text = "Event streams being read"
        self.open_streams = gauge("coze_open_streams", text, multiprocess_mode="livesum")
        self._chats = counter("coze_chats", "Chats that ended here", ["outcome", "bot"])
        text = "From a chat's start to its first delta"
        self.first_delta = histogram("coze_chat_first_delta_seconds", text, buckets=_CHAT_BUCKETS)
        text = "From a chat's start to its end"
        self._chat_seconds = histogram("coze_chat_duration_seconds", text, ["outcome"], buckets=_CHAT_BUCKETS)
        text = "Characters of the answers of completed chats"
        self._answer_characters = histogram("coze_answer_characters", text, buckets=_ANSWER_BUCKETS)
        self._tokens = counter("coze_tokens", "Tokens that Coze has counted", ["bot", "direction"])
        self._recoveries = counter("coze_recoveries", "Chats whose cut answer was fetched from Coze")
        self.takeovers = counter("coze_takeovers", "Chats taken over from a process that is gone")
        self.running_chats = gauge("coze_running_chats", "Chats that run here", multiprocess_mode="livesum")
        text = "Messages waiting in queues, of all replicas; NaN: unknown"
        self.queued = gauge("coze_queued_chats", text, multiprocess_mode="mostrecent")
        text = "Failures of Coze by its code, without one by ours"
        self._upstream_errors = counter("coze_upstream_errors", text, ["code"])
        self.retries = counter("coze_upstream_retries", "Requests to Coze that were sent again")
        text = "What Coze sent and could not be read, or only in part"
        self.unreadable = counter("coze_upstream_unreadable", text, ["kind"])
        for kind in _KINDS_OF_UNREADABLE:
            self.unreadable.labels(kind)
        self.auth = counter("coze_auth", "Identifications by error code; OK: let in", ["outcome"])
        text = "Tokens looked up: hit, joined (another's call) or miss"
        self.auth_cache = counter("coze_auth_cache", text, ["result"])
        text = "Redis round trips by script or command"
        self._redis = histogram("coze_redis_duration_seconds", text, ["command"], buckets=_REDIS_BUCKETS)
        self.redis_outages = counter("coze_redis_outages", "Times that Redis was found away")
        text = "1 while Redis is away, else 0"
        self.redis_away = gauge("coze_redis_away", text, multiprocess_mode="livemax")
        text = "Calls refused because of a limit, by the layer that it holds for"
        self._refusals = counter("coze_refusals", text, ["limit", "layer"])
        text = "Idle sessions that were ended to make room for another one of their user"
        self.evictions = counter("coze_session_evictions", text)
        name, text = "coze_credential_expiry_seconds", "Until the Coze credential expires, if known"
        self._expiry = gauge(name, text, ["credential"], multiprocess_mode="mostrecent")
        name, text = "coze_credential_cooldown_seconds", "Until the Coze credential is used again; 0: it is"
        self._cool_down = gauge(name, text, ["credential"], multiprocess_mode="mostrecent")
        self._build_info = gauge("coze_build_info", "1, by version", ["version"], multiprocess_mode="max")

    # -- what happens ------------------------------------------------------------------------------------

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answer. ``route``: its template, not the path; ``seconds``: from the request to the
        answer's headers."""
        shown = method if method in _METHODS else "other"
        series = self._request_series.get((shown, route, status))
        if series is None:
            series = self._requests.labels(shown, route, str(status)), self._request_seconds.labels(route)
            self._request_series[shown, route, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def chat_ended(self, outcome: str, bot: str, seconds: float, *, recovered: bool, characters: int) -> None:
        """``characters``: of the answer, which counts where the chat is completed."""
        self._chats.labels(outcome, self._bot(bot)).inc()
        self._chat_seconds.labels(outcome).observe(seconds)
        if outcome == "completed":
            self._answer_characters.observe(characters)
        if recovered:
            self._recoveries.inc()

    def tokens(self, bot: str, *, read: int, written: int) -> None:
        """What Coze charges for: ``read`` by the bot, and ``written`` by it."""
        self._tokens.labels(self._bot(bot), "input").inc(max(0, read))
        self._tokens.labels(self._bot(bot), "output").inc(max(0, written))

    def upstream_error(self, error: UpstreamError) -> None:
        """By Coze's number, or our own code where Coze said none."""
        code = error.code if error.coze_code is None else str(error.coze_code)
        self._upstream_errors.labels(self._code(code)).inc()

    def refused(self, limit: str, layer: str) -> None:
        """Counts a call that the limit of this name has refused. ``layer``: whom it holds for."""
        self._refusals.labels(limit, layer).inc()

    def expect_refusals(self, limits: Iterable[tuple[str, str]]) -> None:
        """Shows these pairs of limit and layer from the start: Prometheus sees no increase in a counter that
        appears with its first event."""
        for limit, layer in limits:
            self._refusals.labels(limit, layer)

    def watch_credentials(self, times: Callable[[], Mapping[str, CredentialTimes]]) -> None:
        """``times`` is asked at each scrape, and answers by a label for each credential."""
        self._credential_times = times

    # -- what takes time ---------------------------------------------------------------------------------

    def redis(self, command: str) -> _Timer:
        """Times a block that waits for Redis; ``command`` is a name from our own code."""
        latency = self._redis_latency.get(command)
        if latency is None:
            latency = self._redis_latency[command] = self._redis.labels(command)
        return _Timer("store", latency)

    @staticmethod
    def upstream() -> _Timer:
        """Times a block that waits for Coze."""
        return _Timer("upstream")

    # -- scraping ----------------------------------------------------------------------------------------

    @staticmethod
    def content_type(accept: str) -> str:
        """Of the page that a scraper with this ``Accept`` header gets."""
        return str(_encoder(accept)[1])

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text for a scraper with this ``Accept`` header, and its content type. Reads files
        where there are several workers."""
        from prometheus_client.multiprocess import MultiProcessCollector

        for credential, (expires_at, cool_down) in self._credential_times().items():
            if expires_at is not None:
                self._expiry.labels(credential).set(expires_at - time.time())
            self._cool_down.labels(credential).set(cool_down)
        encode, content_type = _encoder(accept)
        registry = self._registry
        if self._directory:
            self._forget_the_dead()
            registry = self._prometheus.CollectorRegistry()
            MultiProcessCollector(registry, path=self._directory)  # type: ignore[no-untyped-call]
        return encode(registry), content_type

    def close(self) -> None:
        """This process ends: what it has open is no longer counted, what it has done is."""
        if self._directory:
            self._forget(os.getpid())

    def _forget_the_dead(self) -> None:
        """A worker that was killed could not remove its gauges."""
        for worker in self._workers.iterdir():
            if not _lives(int(worker.name)):
                self._forget(int(worker.name))

    def _forget(self, pid: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            mark_process_dead(pid, self._directory)  # type: ignore[no-untyped-call]
            (self._workers / str(pid)).unlink()


def _encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """prometheus_client's choice of a format. It goes over each parameter, and breaks on a version that is no
    number."""
    from prometheus_client.exposition import choose_encoder

    if len(accept) > _LONGEST_ACCEPT:
        accept = ""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
