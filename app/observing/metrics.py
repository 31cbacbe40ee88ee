"""Prometheus instruments of one app, and what a request has waited for (``Server-Timing``).

With PROMETHEUS_MULTIPROC_DIR in the environment (``python -m app`` sets it for WORKERS > 1) every worker
keeps its numbers in files of that directory, and whichever is scraped answers for all.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

MAX_LABELS: Final = 100
"""Different bots, and different Coze codes, that get a label of their own; the rest are ``other``."""

_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CHAT_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300, 600)
_REDIS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


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
        self._expiry_times: Callable[[], Mapping[str, int | None]] = dict
        self._redis_latency: dict[str, Histogram] = {}
        self._request_series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        if self._directory:
            self._workers = Path(self._directory) / "workers"
            self._workers.mkdir(exist_ok=True)
            (self._workers / str(os.getpid())).touch()
        else:
            prometheus_client.ProcessCollector(registry=self._registry)
        self._add_requests()
        self._add_chats()
        self._add_auth_and_redis()
        self._gauge("coze_build_info", "1, by version", "max", ["version"]).labels(version).set(1)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> "Counter":
        return self._prometheus.Counter(name, text, labels or [], registry=self._registry)

    def _gauge(
        self,
        name: str,
        text: str,
        mode: Literal["livesum", "mostrecent", "max"],
        labels: list[str] | None = None,
    ) -> "Gauge":
        return self._prometheus.Gauge(
            name, text, labels or [], registry=self._registry, multiprocess_mode=mode
        )

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: list[str] | None = None
    ) -> "Histogram":
        return self._prometheus.Histogram(name, text, labels or [], registry=self._registry, buckets=buckets)

    def _add_requests(self) -> None:
        self._requests = self._counter(
            "coze_http_requests", "Requests answered", ["method", "route", "status"]
        )
        self._request_seconds = self._histogram(
            "coze_http_request_duration_seconds",
            "From a request to the headers of its answer",
            _REQUEST_BUCKETS,
            ["route"],
        )
        self.open_streams = self._gauge("coze_open_streams", "Event streams being read", "livesum")

    def _add_chats(self) -> None:
        self._chats = self._counter("coze_chats", "Chats that ended here", ["outcome", "bot"])
        self._first_delta = self._histogram(
            "coze_chat_first_delta_seconds", "From a chat's start to its first delta", _CHAT_BUCKETS
        )
        self._chat_seconds = self._histogram(
            "coze_chat_duration_seconds", "From a chat's start to its end", _CHAT_BUCKETS, ["outcome"]
        )
        self._tokens = self._counter("coze_tokens", "Tokens that Coze has counted", ["bot", "direction"])
        self._recoveries = self._counter("coze_recoveries", "Chats whose cut answer was fetched from Coze")
        self._takeovers = self._counter("coze_takeovers", "Chats taken over from a process that is gone")
        self.running_chats = self._gauge("coze_running_chats", "Chats that run here", "livesum")
        self._queued = self._gauge(
            "coze_queued_chats", "Messages waiting in queues, of all replicas; NaN: unknown", "mostrecent"
        )

    def _add_auth_and_redis(self) -> None:
        self._upstream_errors = self._counter(
            "coze_upstream_errors", "Failures of Coze by its code, without one by ours", ["code"]
        )
        self._retries = self._counter("coze_upstream_retries", "Requests to Coze that were sent again")
        self._unreadable = self._counter(
            "coze_upstream_unreadable", "What Coze sent and could not be read, or only in part", ["kind"]
        )
        self._auth = self._counter("coze_auth", "Identifications by error code; OK: let in", ["outcome"])
        self._auth_cache = self._counter(
            "coze_auth_cache", "Tokens looked up: hit, joined (another's call) or miss", ["result"]
        )
        self._redis = self._histogram(
            "coze_redis_duration_seconds",
            "Redis round trips by script or command",
            _REDIS_BUCKETS,
            ["command"],
        )
        self._outages = self._counter("coze_redis_outages", "Times that Redis was found away")
        self._expiry = self._gauge(
            "coze_credential_expiry_seconds",
            "Until the Coze credential expires, if known",
            "mostrecent",
            ["credential"],
        )

    # -- what happens ------------------------------------------------------------------------------------

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answer.

        Args:
            method: of the request.
            route: the route's template, not the path.
            status: of HTTP.
            seconds: from the request to the answer's headers.
        """
        shown = method if method in _METHODS else "other"
        series = self._request_series.get((shown, route, status))
        if series is None:
            series = self._requests.labels(shown, route, str(status)), self._request_seconds.labels(route)
            self._request_series[shown, route, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def first_delta(self, seconds: float) -> None:
        self._first_delta.observe(seconds)

    def chat_ended(self, outcome: str, bot: str, seconds: float, *, recovered: bool) -> None:
        self._chats.labels(outcome, self._bot(bot)).inc()
        self._chat_seconds.labels(outcome).observe(seconds)
        if recovered:
            self._recoveries.inc()

    def tokens(self, bot: str, *, read: int, written: int) -> None:
        """What Coze charges for: ``read`` by the bot, and ``written`` by it."""
        self._tokens.labels(self._bot(bot), "input").inc(max(0, read))
        self._tokens.labels(self._bot(bot), "output").inc(max(0, written))

    def takeover(self) -> None:
        self._takeovers.inc()

    def upstream_error(self, code: str) -> None:
        """``code``: Coze's number, or our own code where Coze said none."""
        self._upstream_errors.labels(self._code(code)).inc()

    def unreadable(self, kind: str, amount: int = 1) -> None:
        """``kind``: ``reply``, ``message``, ``event`` (read in part) or ``lost_event``."""
        self._unreadable.labels(kind).inc(amount)

    def upstream_retry(self) -> None:
        self._retries.inc()

    def auth(self, outcome: str) -> None:
        self._auth.labels(outcome).inc()

    def auth_cache(self, result: str) -> None:
        self._auth_cache.labels(result).inc()

    def redis_outage(self) -> None:
        self._outages.inc()

    def queued(self, length: float) -> None:
        """Read when it is asked for; NaN where Redis cannot say."""
        self._queued.set(length)

    def watch_credentials(self, expiry_times: Callable[[], Mapping[str, int | None]]) -> None:
        """Asked at each scrape: by a label for the credential unix seconds, None where they are unknown."""
        self._expiry_times = expiry_times

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
        from prometheus_client.exposition import choose_encoder

        return str(choose_encoder(accept)[1])

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text. Reads files where there are several workers.

        Args:
            accept: the scraper's ``Accept`` header.

        Returns:
            The text, and its content type.
        """
        from prometheus_client.exposition import choose_encoder
        from prometheus_client.multiprocess import MultiProcessCollector

        for credential, moment in self._expiry_times().items():
            if moment is not None:
                self._expiry.labels(credential).set(moment - time.time())
        encode, content_type = choose_encoder(accept)
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


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
