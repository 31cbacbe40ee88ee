"""OpenAI's Responses API under /coze/openai/v1/responses."""

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Path, Query
from fastapi import Response as HttpResponse

from app.doors.openai.asking import event_stream, work_of
from app.doors.openai.dialog import invalid
from app.doors.openai.errors import OPENAI_ERRORS
from app.doors.openai.responses.answers import answer_to, stream_of
from app.doors.openai.responses.bodies import DeletedResponse, ResponseItems, ResponseObject, ResponseRequest
from app.doors.openai.responses.calls import ResponseCall, begin
from app.doors.openai.responses.events import ResponseEvents
from app.doors.openai.responses.found import Found, cancel, delete, found
from app.doors.openai.responses.items import with_ids
from app.exceptions import (
    BEGINS_ONCE,
    COZE,
    SESSION,
    ChatExpired,
    ChatNotFound,
    ChatState,
    ConversationNotFound,
    ModelNotFound,
    QuotaExceeded,
    RateLimited,
    SessionBusy,
)
from app.http.dependencies import IdempotencyKeyHeader, OpenAIContextDep
from app.http.openapi import JsonBody, errors
from app.http.openapi import event_stream as described_stream
from app.http.raw_path import RawPathRoute
from app.http.sse import STREAM_HEADERS
from app.models import Cursor
from app.tasks.chats import Started

_STREAM: Final = described_stream(
    "Server-sent events of OpenAI's types, each JSON with `type` and `sequence_number`",
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","output_index":0,'
    '"content_index":0,"delta":"你好","logprobs":[]}\n\n',
)
_ResponseId = Annotated[str, Path(description="Id of a response")]

router = APIRouter(prefix="/coze/openai/v1/responses", tags=["openai"], route_class=RawPathRoute)


@router.post(
    "",
    summary="OpenAI's responses: a bot answers, whole, as a stream or in background",
    response_model=ResponseObject,
    responses=_STREAM
    | errors(
        *(*BEGINS_ONCE, *SESSION, *COZE, SessionBusy, QuotaExceeded),
        *(ModelNotFound, ConversationNotFound, ChatNotFound, ChatExpired, ChatState),
        shape=OPENAI_ERRORS,
    ),
    openapi_extra=JsonBody(ResponseRequest),
)
async def create_response(
    context: OpenAIContextDep, idempotency_key: IdempotencyKeyHeader = None
) -> HttpResponse:
    body = await context.json(ResponseRequest, context.resources.settings.openai_max_body_bytes)
    call = ResponseCall(context, body, idempotency_key)
    stays = bool(body.stream) or not call.background
    with context.resources.streams.taken_if(stays, context.identity.owner) as place:
        begun, is_stream = await begin(call), bool(body.stream)
        del body, call  # megabytes of pictures, for as long as the answer takes
        context.began(begun.started.chat_id)
        if is_stream and place is not None:
            return stream_of(begun, place)
        return await answer_to(begun, place)


@router.get(
    "/{response_id}",
    summary="A response as it stands, or its events from a place on",
    response_model=ResponseObject,
    responses=_STREAM | errors(ChatNotFound, RateLimited, shape=OPENAI_ERRORS),
)
async def get_response(
    response_id: _ResponseId,
    context: OpenAIContextDep,
    stream: Annotated[bool, Query(description="Its events; only of what began as a stream in background")] = (
        False
    ),
    starting_after: Annotated[
        int | None, Query(ge=0, description="`sequence_number` of the last event that arrived")
    ] = None,
) -> HttpResponse:
    here = await found(context, response_id)
    if not stream:
        return _json(await here.seen(context))
    if not (here.response.note.background and here.response.note.stream):
        raise invalid("stream", "only what began as a stream in background can be streamed again")
    after = -1 if starting_after is None else starting_after
    with context.resources.streams.taken_if(not context.is_head, context.identity.owner) as place:
        if place is None:
            return HttpResponse(headers=STREAM_HEADERS)
        work, done = work_of(context), here.response.note.done
        dialect = ResponseEvents(here.response, here.chat, work, live=False, after=after, repeatable=True)
        if done is not None:  # its chat says more, which is not this response's
            return HttpResponse(dialect.replay(done.output, await here.seen(context)), headers=STREAM_HEADERS)
        started = Started(here.name.chat_id, Cursor(here.name.epoch, 0))
        return event_stream(context, started, dialect, place.keep(), patience=0.0)


@router.post(
    "/{response_id}/cancel",
    summary="Cancel a response in background, here and at Coze",
    response_model=ResponseObject,
    responses=errors(ChatNotFound, shape=OPENAI_ERRORS),
)
async def cancel_response(response_id: _ResponseId, context: OpenAIContextDep) -> HttpResponse:
    here = await cancel(context, response_id)
    return _json(await here.seen(context))


@router.delete(
    "/{response_id}",
    summary="Delete a response; one that is not over is cancelled",
    response_model=DeletedResponse,
    responses=errors(ChatNotFound, ChatState, shape=OPENAI_ERRORS),
)
async def delete_response(response_id: _ResponseId, context: OpenAIContextDep) -> DeletedResponse:
    await delete(context, response_id)
    return DeletedResponse(id=response_id)


@router.get(
    "/{response_id}/input_items",
    summary="What a response was asked with",
    response_model=ResponseItems,
    responses=errors(ChatNotFound, shape=OPENAI_ERRORS),
)
async def list_input_items(
    response_id: _ResponseId,
    context: OpenAIContextDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many items")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="desc: the last one first")] = "desc",
    after: Annotated[str | None, Query(description="Id of the last item of the page before")] = None,
) -> HttpResponse:
    return _json(_page(await found(context, response_id), limit, order, after))


def _page(here: Found, limit: int, order: str, after: str | None) -> dict[str, Any]:
    items = with_ids(here.response.note.input, here.name)
    if order == "desc":
        items.reverse()
    first = next((place for place, item in enumerate(items, 1) if item["id"] == after), 0)
    if after and not first:
        raise invalid("after", "is no item of this response")
    page = items[first : first + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": first + limit < len(items),
    }


def _json(body: dict[str, Any]) -> HttpResponse:
    return HttpResponse(orjson.dumps(body), media_type="application/json")
