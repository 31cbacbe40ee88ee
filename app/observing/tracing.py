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
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool | None

_NAME: Final = "coze-fastapi"
_FLUSH_SECONDS: Final = 3.0
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Span:
    """Entered and left in one task; what is begun inside becomes its child."""

    __slots__ = ("_scope", "_span")

    def __init__(self, span: trace.Span = trace.INVALID_SPAN) -> None:
        """Without an argument one that does nothing, and that all may share."""
        self._span = span
        self._scope: AbstractContextManager[trace.Span] | None = None

    def __enter__(self) -> Self:
        if self._span is not trace.INVALID_SPAN:
            self._scope = trace.use_span(
                self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False
            )
            self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, Exception):  # being cancelled is no failure
            # Its kind alone: a text may hold what a user wrote.
            self.fail(kind.__name__)
        if self._scope is not None:
            self._scope.__exit__(None, None, None)

    def set(self, attributes: Mapping[str, Value]) -> None:
        """What is None or empty is left out."""
        if self._span is trace.INVALID_SPAN:
            return
        for name, value in attributes.items():
            if value is not None and value != "":
                self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Once the route is known."""
        self._span.update_name(name)

    def fail(self, reason: str) -> None:
        """Marks it as failed; ``reason`` becomes ``error.type``."""
        self._span.set_attribute("error.type", reason)
        self._span.set_status(trace.StatusCode.ERROR)

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty where nothing is recorded."""
        context = self._span.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else ""


_OFF: Final = Span()


class Tracing:
    """Makes spans of a provider of its own; nothing global is set, so two apps do not meet."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Without ``provider`` every span is the same that does nothing."""
        self._tracer = provider.get_tracer(_NAME) if provider is not None else None

    def span(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        carrier: Mapping[str, str] | None = None,
        only_inside: bool = False,
    ) -> Span:
        """A span to be entered.

        Args:
            name: what it is about.
            kind: as OpenTelemetry has it.
            carrier: headers of a request; with a ``traceparent`` the span is that one's child, else that of
                the span which is open here.
            only_inside: none where no span is open, as in the loops that no request has started.
        """
        if self._tracer is None or (only_inside and not trace.get_current_span().get_span_context().is_valid):
            return _OFF
        context = _PROPAGATOR.extract(carrier) if carrier is not None else None
        return Span(self._tracer.start_span(name, context=context, kind=trace.SpanKind[kind.upper()]))


@asynccontextmanager
async def open_tracing(endpoint: str, *, service: str) -> AsyncIterator[Tracing]:
    """``endpoint``: an OTLP/HTTP collector's address, without ``/v1/traces``; empty: off."""
    provider = _open_provider(endpoint, service) if endpoint else None
    if provider is None:
        yield Tracing()
        return
    try:
        yield Tracing(provider)
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
