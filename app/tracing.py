"""OpenTelemetry spans, sent by OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set; otherwise nothing at all.

FastAPI's own telemetry (``FastAPI(telemetry=...)``) is switched off: it wants its provider before the
settings are read or a global one, and knows neither chats nor Coze's logid.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from loguru import logger

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool | None

_NAME: Final = "coze-fastapi"
_FLUSH_SECONDS: Final = 3.0


class Span:
    """One that nobody records."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        return None

    def set(self, attributes: Mapping[str, Value]) -> None:
        """What is None or empty is left out."""

    def rename(self, name: str) -> None:
        """Once the route is known."""

    def fail(self, reason: str) -> None:
        """Marks it as failed; ``reason`` becomes ``error.type``."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty where nothing is recorded."""
        return ""


_NOTHING: Final = Span()


class Tracing:
    """Makes spans. This one is off: every span is the same that does nothing."""

    on = False
    """Whether it is worth finding out what a span should say."""

    def span(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        carrier: Mapping[str, str] | None = None,
        only_inside: bool = False,
    ) -> Span:
        """A span to be entered: child of the one that is open here, or of the ``traceparent`` in ``carrier``.

        ``only_inside``: none where no span is open, as in the loops that no request has started.
        """
        return _NOTHING


class _Recorded(Span):
    """Entered and left in one task; what is begun inside becomes its child."""

    __slots__ = ("_scope", "_span")

    def __init__(self, span: "trace.Span", scope: "AbstractContextManager[trace.Span]") -> None:
        self._span = span
        self._scope = scope

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, Exception):  # being cancelled is no failure
            # Its kind alone: a text may hold what a user wrote.
            self.fail(kind.__name__)
        self._scope.__exit__(None, None, None)

    def set(self, attributes: Mapping[str, Value]) -> None:
        for name, value in attributes.items():
            if value is not None and value != "":
                self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", reason)
        self._span.set_status(StatusCode.ERROR)

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"


class RecordedTracing(Tracing):
    """Spans of a provider of its own; nothing global is set, so two apps do not meet."""

    on = True

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = provider.get_tracer(_NAME)
        self._propagator = TraceContextTextMapPropagator()
        self._kinds = {
            "internal": trace.SpanKind.INTERNAL,
            "server": trace.SpanKind.SERVER,
            "client": trace.SpanKind.CLIENT,
        }

    def span(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        carrier: Mapping[str, str] | None = None,
        only_inside: bool = False,
    ) -> Span:
        trace = self._trace
        if only_inside and not trace.get_current_span().get_span_context().is_valid:
            return _NOTHING
        context: Context | None = None
        if carrier is not None:
            context = self._propagator.extract(carrier)
        span = self._tracer.start_span(name, context=context, kind=self._kinds[kind])
        return _Recorded(
            span,
            trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False),
        )


@asynccontextmanager
async def open_tracing(endpoint: str, *, service: str) -> AsyncIterator[Tracing]:
    """``endpoint``: an OTLP/HTTP collector's address, without ``/v1/traces``; empty: off."""
    provider = _open_provider(endpoint, service) if endpoint else None
    if provider is None:
        yield Tracing()
        return
    try:
        yield RecordedTracing(provider)
    finally:
        # A collector that does not answer must not hold the end up; the export runs in its own thread.
        await asyncio.to_thread(provider.force_flush, int(_FLUSH_SECONDS * 1000))
        await asyncio.to_thread(provider.shutdown)


def _open_provider(endpoint: str, service: str) -> "TracerProvider | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        logger.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but nothing is traced: {} is missing; install the "
            "dependency group otel (uv pip install --group otel)",
            exc.name,
        )
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_FLUSH_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
