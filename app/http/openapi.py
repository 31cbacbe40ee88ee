"""What routes tell the published OpenAPI: their errors, bodies and streams. ``app.http.document`` makes it.

Errors that many routes have are named groups in ``app.exceptions``. What every route has is added by
``errors``.
"""

from typing import Any, Final

from pydantic import BaseModel

from app.error_handlers import ENVELOPE, ErrorShape
from app.exceptions import EVERYWHERE, ServiceError
from app.models.chats import Chat
from app.models.envelope import SuccessEnvelope

SCHEMAS: Final = "#/components/schemas/"
EXAMPLES: Final = "#/components/examples/"
EVENTS: Final = "text/event-stream"
_CHAT_EVENTS: Final = """\
retry: 1000

id: 1-1
event: chat
data: {"chat_id":"coze_chat_1795372834470_7gdps4qxt4cw5d2pk","session_id":"coze_session_1795372833115_7l4mg","status":"processing"}

id: 1-4
event: conversation.message.delta
data: {"id":"7380000000000000007","role":"assistant","type":"answer","content":"你好","content_type":"text"}

id: 1-9
event: conversation.chat.completed
data: {"id":"7380000000000000006","status":"completed","usage":{"token_count":30,"input_count":20,"output_count":10}}

id: 1-9
event: result
data: {"success":true,"timestamp":"2026-11-22T18:40:33.115908+00:00","error":null,"data":{}}

id: 1-10
event: done
data: "[DONE]"

"""  # noqa: E501  # an event's data is one line

Responses = dict[int | str, dict[str, Any]]


def errors(*classes: type[ServiceError], shape: ErrorShape = ENVELOPE) -> Responses:
    """``responses=`` of a route that needs a caller: its own failures and those that every route has."""
    return only_errors(*classes, *EVERYWHERE, shape=shape)


def only_errors(*classes: type[ServiceError], shape: ErrorShape = ENVELOPE) -> Responses:
    """One response for each status, with an example for each error code."""
    responses: Responses = {}
    for cls in classes:
        response = responses.setdefault(
            shape.status(cls()),
            {"model": shape.model, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        examples = response["content"]["application/json"]["examples"]
        if cls.code in examples:
            continue
        examples[cls.code] = {"$ref": f"{EXAMPLES}{shape.name}.{cls.code}"}
        response["description"] += f"{'; ' * (len(examples) > 1)}`{cls.code}`: {cls.default_message}"
        if shape.retry_after(cls()) is not None:
            description = "Seconds to wait before trying again"
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": description}}
    return responses


def event_stream(description: str, example: str) -> Responses:
    """``responses=`` of a route that answers with server-sent events, or may do so. ``example``: a stream as
    it goes over the wire, with at least one whole event."""
    content = {EVENTS: {"schema": {"type": "string", "description": description}, "example": example}}
    return {200: {"description": "Server-sent events", "content": content}}


def chat_events() -> Responses:
    """``responses=`` of a route that answers with the events of a chat."""
    text = "Server-sent events, each with a name, JSON, and an id of the form <epoch>-<frame> to resume at"
    responses = event_stream(text, _CHAT_EVENTS)
    responses[200]["headers"] = {"X-Coze-Chat-Id": _CHAT_ID}
    return responses


_CHAT_ID: Final = {"schema": {"type": "string"}, "description": "Our id of the chat"}
AT_THE_END: Final[Responses] = {
    204: {"description": "Nothing came behind the id of `done`: there is nothing more to read"}
}


def chat_answers() -> Responses:
    """``responses=`` of a route that starts a chat: whole, still at work, or a stream."""
    found = chat_events()
    found[200]["description"] = "The chat, which is over or needs tool outputs; with `stream`, its events"
    location = {"schema": {"type": "string"}, "description": "Where the result will be"}
    headers = {"X-Coze-Chat-Id": _CHAT_ID, "Location": location}
    description = "The chat, which is still at work: its result will be at `Location`"
    return found | {202: {"model": SuccessEnvelope[Chat], "description": description, "headers": headers}}


class JsonBody(dict[str, Any]):
    """``openapi_extra=`` of a route that reads its body with ``RequestContext.json``."""

    def __init__(self, model: type[BaseModel]) -> None:
        content = {"application/json": {"schema": {"$ref": SCHEMAS + model.__name__}}}
        super().__init__(requestBody={"required": True, "content": content})
        self.model = model
