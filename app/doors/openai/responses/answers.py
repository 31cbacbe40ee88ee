"""How a response is answered: whole, as a stream, or at once in background."""

import orjson
from fastapi import Response as HttpResponse

from app.doors.openai.asking import (
    PATIENCE,
    closing,
    end_of,
    event_stream,
    headers_of,
    raise_unless_whole,
    work_of,
)
from app.doors.openai.responses.calls import StartedResponse
from app.doors.openai.responses.events import ResponseEvents
from app.doors.openai.responses.objects import Response
from app.tasks.places import Place


def stream_of(begun: StartedResponse, place: Place) -> HttpResponse:
    context, chat_id = begun.context, begun.started.chat_id
    dialect = ResponseEvents(
        begun.packed.unpacked(),
        begun.chat,
        work_of(context),
        live=not begun.background,
        repeatable=begun.repeatable,
    )
    on_close = closing(context, chat_id, place, dialect, connection_bound=begun.connection_bound)
    patience = 0.0 if begun.background else PATIENCE
    return event_stream(context, begun.started, dialect, on_close, patience=patience)


async def answer_to(begun: StartedResponse, place: Place | None) -> HttpResponse:
    """In background at once, else when the chat is over."""
    chat, chat_id = begun.chat, begun.started.chat_id
    if not begun.background and begun.packed.unpacked().note.done is None:
        chat = await end_of(begun.context, chat_id, place, connection_bound=begun.connection_bound)
    response = begun.packed.unpacked()
    if not begun.background:
        response = Response.in_chat(response.name, chat) or response
        if response.note.done is None:
            raise_unless_whole(begun.context, chat, repeatable=begun.repeatable)
    body = orjson.dumps(await response.seen(chat, work_of(begun.context)))
    return HttpResponse(body, headers=headers_of(chat), media_type="application/json")
