"""How a response is answered: whole, as a stream, or at once in background."""

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import Response as HttpResponse

from app.doors.openai.asking import PATIENCE, end_of
from app.doors.openai.chunks import refusal_of, unfinished
from app.doors.openai.responses.calls import ResponseCall, StartedResponse
from app.doors.openai.responses.events import ResponseEvents
from app.doors.openai.responses.objects import Response
from app.exceptions import CozeTimeout, ServiceError, ShuttingDown
from app.http.dependencies import RequestContext
from app.http.sse import EventStream
from app.tasks.chats import Started
from app.tasks.places import Place


def stream_of(call: ResponseCall, begun: StartedResponse, place: Place) -> HttpResponse:
    """Who asks in background may come back; of all others a client that leaves is the stop button."""
    context, chat_id = call.context, begun.started.chat_id
    dialect = ResponseEvents(
        begun.response, begun.chat, live=not call.background, repeatable=begun.repeatable
    )
    give_back = place.keep()

    def close() -> None:
        give_back()
        if begun.connection_bound and not dialect.finished:
            context.resources.chats.cancel_in_background(context.identity, chat_id)

    return event_stream(context, begun.started, dialect, close, patience=0.0 if call.background else PATIENCE)


def event_stream(
    context: RequestContext,
    started: Started,
    dialect: ResponseEvents,
    on_close: Callable[[], None],
    *,
    patience: float,
) -> HttpResponse:
    """In background (without ``patience``) only what Redis has is told: nothing else outlives a process."""
    resources = context.resources
    return EventStream(
        resources.chats.read(context.identity, started, committed=not patience),
        chat_id=started.chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=on_close,
        dialect=dialect,
        patience=patience,
    )


async def answer_to(call: ResponseCall, begun: StartedResponse, place: Place | None) -> HttpResponse:
    """In background at once, else when the chat is over."""
    response, chat, chat_id = begun.response, begun.chat, begun.started.chat_id
    headers = {"X-Coze-Chat-Id": chat_id}
    if not call.background:
        if response.note.done is None:
            chat = await end_of(call.context, chat_id, place, connection_bound=begun.connection_bound)
        response = Response.in_chat(response.name, chat) or response
        error = None if response.note.done else refusal_of(chat) or _unfinished(call, begun, chat)
        if error is not None:
            error.headers |= headers
            raise error
        if logid := chat["metadata"].get("logid"):
            headers["X-Coze-Logid"] = logid
    body = orjson.dumps(response.seen(chat))
    return HttpResponse(body, headers=headers, media_type="application/json")


def _unfinished(call: ResponseCall, begun: StartedResponse, chat: dict[str, Any]) -> ServiceError | None:
    if chat["status"] not in ("pending", "processing"):
        return None
    leaving = call.context.resources.shutdown.streams_end
    error: ServiceError = ShuttingDown() if leaving else CozeTimeout("The chat is not over yet")
    return unfinished(error, repeatable=begun.repeatable)
