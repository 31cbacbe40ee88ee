"""Spans as a collector receives them, Server-Timing, and nothing at all when it is off."""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.observing.tracing import Tracing, open_tracing
from tests.support import RunningApp, data_of, make_settings, open_client, running_app

from .support import Span, running_collector

CALLERS_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"}
SERVER, CLIENT = 2, 3
TIMING = re.compile(r"total;dur=([0-9.]+), upstream;dur=([0-9.]+), store;dur=([0-9.]+)")

StartApp = Callable[..., RunningApp]


async def test_a_message_is_one_trace_from_the_callers_span_to_coze(simulator: Any) -> None:
    with running_collector() as collector:
        settings = make_settings(
            COZE_API_URL=simulator.chat_url,
            REDIS_URL="memory://",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_SERVICE_NAME="the-service",
        )
        with running_app(settings) as service:
            async with open_client(service.base_url) as client:
                session = await client.open_session()
                headers = TRACEPARENT | {"X-Request-Id": "from-the-test"}
                response = await client.send(session, "traced", headers=headers)
                chat = data_of(response)
                failed = await client.send(session, "[[sim:fail=4015]]", headers=TRACEPARENT)
            await asyncio.to_thread(service.wait_idle)
        # What was not sent yet is sent when the service stops.
    assert collector.services == {"the-service"}
    spans = [span for span in collector.spans if span.attributes.get("coze.request_id") == "from-the-test"]
    [request] = [span for span in spans if span.kind == SERVER]
    assert request.name == "POST /coze/sessions/{session_id}/messages"
    assert (request.trace_id, request.parent_id) == (CALLERS_TRACE, CALLERS_SPAN)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["coze.logid"] == response.headers["X-Coze-Logid"]
    inside = children_of(request, collector.spans)
    assert {"redis rate_take", "redis chat_create", "chat"} <= {span.name for span in inside}
    [chat_span] = [span for span in inside if span.name == "chat"]
    assert chat_span.attributes["coze.chat_id"] == chat["chat_id"]
    assert chat_span.attributes["coze.outcome"] == "completed"
    [call] = [span for span in children_of(chat_span, collector.spans) if span.name[:5] == "coze "]
    assert (call.name, call.kind, call.failed) == ("coze POST", CLIENT, False)
    assert call.attributes["url.path"] == "/coze/v3/chat"
    assert call.attributes["coze.logid"] == chat["metadata"]["logid"] == chat_span.attributes["coze.logid"]

    assert failed.status_code == 502
    broken = [span for span in collector.spans if span.attributes.get("coze.code") == 4015]
    assert [(span.name, span.failed) for span in broken] == [("coze POST", True)]
    assert "traced" not in str(collector.spans)


def children_of(parent: Span, spans: list[Span]) -> list[Span]:
    assert all(span.trace_id == parent.trace_id for span in spans if span.parent_id == parent.span_id)
    return [span for span in spans if span.parent_id == parent.span_id]


async def test_a_collector_that_is_away_changes_nothing(start_app: StartApp) -> None:
    service = start_app(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    async with open_client(service.base_url) as client:
        assert (await client.send(await client.open_session(), "hello")).status_code == 200


async def test_without_the_packages_nothing_is_traced_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.logging_config import configure_logging

    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    configure_logging(make_settings())
    async with open_tracing("http://127.0.0.1:1", service="s") as tracing:
        assert tracing.span("a") is Tracing().span("off")
    assert "uv pip install --group otel" in capsys.readouterr().out


def test_switched_off_there_is_one_span_for_all() -> None:
    tracing = Tracing()
    first, second = tracing.span("a"), tracing.span("b", kind="client", carrier=TRACEPARENT)
    assert first is second
    with first as span:
        span.set({"name": "value"})
        span.fail("no")
        assert span.trace_id == ""


def test_a_failure_is_told_by_its_kind_alone() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    assert tracing.span("loop", only_inside=True) is Tracing().span("off")

    def fails() -> None:
        with tracing.span("outer"):
            with tracing.span("inner", only_inside=True):
                pass
            raise ValueError("what a user wrote")

    with pytest.raises(ValueError, match="what a user wrote"):
        fails()
    inner, outer = exporter.get_finished_spans()
    assert inner.parent is not None
    assert outer.attributes is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.attributes["error.type"] == "ValueError"
    assert not outer.events
    provider.shutdown()


async def test_every_answer_says_where_its_time_went(start_app: StartApp) -> None:
    service = start_app()
    async with open_client(service.base_url) as client:
        session = await client.open_session()
        slow = await client.send(session, "[[sim:delay=0.2;reasoning=0]]")
        total, upstream, store = timing_of(slow.headers)
        assert 150 <= upstream <= total
        assert 0 < store < total
        async with client.stream(session, "[[sim:delay=0.2]]") as reader:
            total, upstream, store = timing_of(reader.response.headers)
            assert upstream == 0, "the headers do not wait for Coze"
            await reader.all()
        for path in ("/", "/coze/health", "/coze/metrics", "/nowhere", "/coze/sessions/none"):
            timing_of((await client.get(path)).headers)


def timing_of(headers: Any) -> tuple[float, float, float]:
    match = TIMING.fullmatch(headers["Server-Timing"])
    assert match is not None, headers
    total, upstream, store = (float(part) for part in match.groups())
    return total, upstream, store
