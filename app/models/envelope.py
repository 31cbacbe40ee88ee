"""The envelope of the contract: what every answer under /coze but those of foreign dialects has around it."""

from typing import Any, Generic, Literal, TypeVar

import orjson
from pydantic import Field

from app.models.chats import TaskStatus
from app.models.documented import Answer, AnswerAround
from app.utils import iso

_D = TypeVar("_D")


class TaskResult(AnswerAround, Generic[_D]):
    """What a route has done."""

    success: bool = True
    """False where `data` is a chat that failed."""
    timestamp: str
    """When the response was made: UTC, ISO 8601."""
    message: str
    """What was done, in words for a log."""
    data: _D
    """What the route returns."""


class TaskData(AnswerAround, Generic[_D]):
    """The state of what the route was asked for, and its result."""

    task_id: str | None
    """The chat's id where it is about a chat, else null."""
    task_status: TaskStatus
    """State of the chat, or `completed` where it is about no chat."""
    task_result: TaskResult[_D]
    """What the route has done."""


class SuccessEnvelope(AnswerAround, Generic[_D]):
    """Every successful answer under /coze but health and those for OpenAI's clients."""

    success: Literal[True] = True
    """Always true: the request was carried out."""
    timestamp: str
    """When the response was made: UTC, ISO 8601."""
    error: None = None
    """Always null."""
    data: TaskData[_D]
    """State and result."""


class PlainEnvelope(AnswerAround, Generic[_D]):
    """The outer envelope alone, as health answers it."""

    success: Literal[True] = True
    """Always true."""
    timestamp: str
    """When the response was made: UTC, ISO 8601."""
    error: None = None
    """Always null."""
    data: _D
    """What the route returns."""


class ErrorBody(Answer):
    """What went wrong."""

    code: str
    """Which failure it is; programs decide by it."""
    message: str
    """What went wrong, in words; with the first wrong fields."""
    timestamp: str
    """When it went wrong: UTC, ISO 8601."""
    request_id: str
    """As in the header X-Request-Id; the service's log has it, too."""
    retryable: bool
    """Whether sending the same request again may help."""
    details: dict[str, Any] = Field(default_factory=dict)
    """More, by code: `fields` (each with `field` and `message`), `chat_id`, `coze_code`, `logid`, `hint`,
    `layer`, `setting`, `limit`, `reset_at`."""


class ErrorEnvelope(Answer):
    """Every failure under /coze but those that OpenAI's clients see."""

    success: Literal[False] = False
    """Always false."""
    timestamp: str
    """When the response was made: UTC, ISO 8601."""
    data: None = None
    """Always null."""
    error: ErrorBody
    """What went wrong."""


def task_status_of(status: str) -> TaskStatus:
    """A chat's status as the envelope says it: ``pending`` is ``processing`` to a caller."""
    return "processing" if status == "pending" else status  # type: ignore[return-value]  # the rest is the same


def success_json(
    data: Any, *, message: str, task_id: str | None = None, status: TaskStatus = "completed"
) -> bytes:
    """The success envelope as JSON; ``data`` may hold ``orjson.Fragment`` for what is JSON already."""
    moment = iso()
    result = {"success": status != "failed", "timestamp": moment, "message": message, "data": data}
    return orjson.dumps(
        {
            "success": True,
            "timestamp": moment,
            "error": None,
            "data": {"task_id": task_id, "task_status": status, "task_result": result},
        }
    )


def plain_json(data: Any) -> bytes:
    """The outer envelope alone, as health answers it."""
    return orjson.dumps({"success": True, "timestamp": iso(), "error": None, "data": data})
