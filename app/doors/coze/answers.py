"""What the door's routes have in common: their documentation, and how a chat is streamed."""

from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel

from app.doors.coze.errors import COZE_ERRORS, CozeDetail
from app.doors.coze.events import CozeStream
from app.exceptions import ServiceError
from app.http.dependencies import RequestContext
from app.http.openapi import Responses, errors
from app.http.sse import EventStream
from app.tasks.owned import Begun
from app.tasks.places import Place

_STREAM: Final[Responses] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "description": "One server-sent event, as Coze writes it",
                    "properties": {
                        "event": {"type": "string"},
                        "data": {"type": "string", "description": 'JSON, or "[DONE]"'},
                    },
                    "required": ["event", "data"],
                }
            }
        }
    }
}


class CozeAnswer(BaseModel):
    """Every success of Coze's routes; lists have their paging keys beside ``data``."""

    code: int = 0
    msg: str = ""
    data: Any = None
    detail: CozeDetail


def errors_of(*classes: type[ServiceError], stream: bool = False) -> Responses:
    """``responses=`` of a route; refusals with HTTP 200 stand beside the success."""
    listed = errors(*classes, shape=COZE_ERRORS)
    refused = listed.pop(200, None)
    if refused is not None or stream:
        examples = refused["content"]["application/json"]["examples"] if refused else {}
        content: dict[str, Any] = dict(_STREAM[200]["content"]) if stream else {}
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
        dialect=CozeStream(begun, goes_on=goes_on),
        headers={"X-Tt-Logid": begun.at_coze.logid or context.request_id},
    )
