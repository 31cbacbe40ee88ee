"""What the door's routes have in common: their documentation, and how a chat is streamed."""

from typing import Annotated, Any, Final

from fastapi import Query, Response

from app.doors.coze.bodies import PassedOn
from app.doors.coze.errors import COZE_ERRORS, CozeDetail
from app.doors.coze.events import CozeDialect
from app.exceptions import ServiceError
from app.http.dependencies import RequestContext
from app.http.openapi import JsonBody, Responses, errors, event_stream
from app.http.sse import EventStream
from app.models.documented import Documented
from app.tasks.owned import Begun
from app.tasks.places import Place

ConversationId = Annotated[
    str, Query(min_length=1, max_length=128, description="Coze's id of the conversation")
]
_STREAM: Final = event_stream(
    "Server-sent events in Coze's own bytes: a name and JSON, and `done` at last",
    'event:conversation.chat.created\ndata:{"id":"7380000000000000006"}\n\nevent:done\ndata:"[DONE]"\n\n',
)


class CozeAnswer(Documented):
    """Every success of Coze's routes; lists have their paging keys beside ``data``."""

    code: int = 0
    """0, or the code of a refusal with HTTP 200."""
    msg: str = ""
    """Empty, or why it was refused."""
    data: Any = None
    """What Coze has in its place."""
    detail: CozeDetail
    """Where it is found in logs."""


def described(
    summary: str,
    *failures: type[ServiceError],
    body: type[PassedOn] | None = None,
    streams: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """What a route's decorator takes beside the path. ``failures``: those that are not every route's;
    ``streams``: the answer may be Coze's events."""
    extra = {} if body is None else {"openapi_extra": JsonBody(body)}
    responses = _responses(*failures, streams=streams)
    return {"summary": summary, "response_model": CozeAnswer, "responses": responses, **extra, **more}


def _responses(*failures: type[ServiceError], streams: bool) -> Responses:
    """Refusals with HTTP 200 stand beside the success."""
    listed = errors(*failures, shape=COZE_ERRORS)
    refused = listed.pop(200, None)
    if refused is not None or streams:
        examples = refused["content"]["application/json"]["examples"] if refused else {}
        content: dict[str, Any] = dict(_STREAM[200]["content"]) if streams else {}
        content["application/json"] = {"examples": examples}
        listed[200] = {"content": content}
    return listed


def stream_of(context: RequestContext, begun: Begun, place: Place, *, goes_on: bool = False) -> Response:
    """A client that leaves changes nothing: the chat goes on, and is retrieved."""
    resources, started = context.resources, begun.started
    return EventStream(
        resources.chats.read(context.identity, started),
        chat_id=started.chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=place.keep(),
        dialect=CozeDialect(begun, goes_on=goes_on),
        headers={"X-Tt-Logid": begun.at_coze.logid or context.request_id},
    )
