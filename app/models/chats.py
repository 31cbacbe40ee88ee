"""A chat as callers see it, and as it is stored: one message and its answer."""

from typing import Any, Final, Literal

from pydantic import Field

from app.models.bodies import FileType
from app.models.documented import Answer, example

TaskStatus = Literal["completed", "processing", "failed", "cancelled", "requires_action"]
ChatStatus = Literal["pending", "processing", "completed", "failed", "cancelled", "requires_action"]

TERMINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})
SETTLED_STATUSES: Final = TERMINAL_STATUSES | {"requires_action"}
"""What ends a reading: over, or waiting for tool outputs."""
OUR_META_KEY: Final = "coze_fastapi_chat_id"
"""Key in Coze's ``meta_data`` under which our chat id goes along, so that a chat can be found again."""

MOMENT: Final = "2026-11-22T18:40:33.115908+00:00"
SESSION_ID: Final = "coze_session_1795372833115_7l4mgyuf3lw2iispuvavf"
CHAT_ID: Final = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"


def _message(role: str, content: str, message_id: str, **more: Any) -> dict[str, Any]:
    message = {"role": role, "content": content, "timestamp": MOMENT, "message_id": message_id}
    return {**message, **more, "metadata": {}}


_CHAT_EXAMPLE: Final[dict[str, Any]] = {
    "chat_id": CHAT_ID,
    "session_id": SESSION_ID,
    "status": "completed",
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "completed_at": MOMENT,
    "recovered": False,
    "user_message": _message("user", "你好", "msg_gwpw6mvfvekbqjatrh3n"),
    "assistant_message": _message(
        "assistant", "你好！有什么可以帮你？", "7380000000000000007", content_type="text"
    ),
    "content": "你好！有什么可以帮你？",
    "reasoning_content": "",
    "follow_up_questions": ["你能做什么？"],
    "usage": {"token_count": 30, "input_count": 20, "output_count": 10},
    "required_action": None,
    "waits_until": None,
    "error_message": None,
    "error": None,
    "metadata": {
        "coze_chat_id": "7380000000000000006",
        "conversation_id": "7380000000000000005",
        "logid": "20261122184033ABCDEF",
        "last_event_id": "1-9",
    },
}


class Usage(Answer):
    """Tokens that a chat took, as Coze counted them."""

    token_count: int = 0
    """Tokens of input and output together."""
    input_count: int = 0
    """Tokens that the bot read."""
    output_count: int = 0
    """Tokens that the bot wrote."""


class ErrorInfo(Answer):
    """Why a chat failed."""

    code: str
    """Error code, as the error envelope has it."""
    message: str
    """What went wrong, in words; never Coze's own text."""
    retryable: bool = False
    """Whether sending the message again may help."""
    coze_code: int | None = None
    """Coze's own error number, where it told one."""
    logid: str | None = None
    """Coze's logid: tell it to Coze's support."""
    hint: str | None = None
    """What the operator of the service can do about it."""
    retry_after: int | None = None
    """Seconds to wait before trying again."""


class SentAttachment(Answer):
    """What went along with a message."""

    type: FileType
    """What it is sent to Coze as."""
    file_id: str | None = None
    """Id of a file that was uploaded here."""
    file_url: str | None = None
    """Address from which Coze fetched it."""
    file_name: str | None = None
    """Name of the uploaded file; null for an address."""
    mime: str | None = None
    """Media type of the uploaded file, by its content; null for an address."""


class UserMessage(Answer):
    """What the user said."""

    role: Literal["user"] = "user"
    """Always `user`."""
    content: str
    """The text that was sent."""
    timestamp: str
    """When it was taken: UTC, ISO 8601."""
    message_id: str
    """Our id of the message."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """The `meta_data` that was sent along."""
    attachments: list[SentAttachment] | None = Field(default=None, exclude_if=lambda value: value is None)
    """What went along; only there where there was any."""


class AssistantMessage(Answer):
    """What the bot said."""

    role: Literal["assistant"] = "assistant"
    """Always `assistant`."""
    content: str
    """The answer's text; several answers of the bot are joined by line ends."""
    timestamp: str
    """When it was complete: UTC, ISO 8601."""
    message_id: str
    """Coze's id of the message."""
    content_type: str = "text"
    """As Coze says: `card` and `object_string` are JSON; `mixed` where its answers differ in this."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """More about the message; empty."""


class Chat(Answer):
    """One message and its answer."""

    # ``status`` stands before everything that a caller wrote: scripts of the version before replace the first
    # ``"status":"..."`` of the stored JSON.
    model_config = example(_CHAT_EXAMPLE)

    chat_id: str
    """Our id of the chat."""
    session_id: str
    """The session that it belongs to."""
    status: ChatStatus
    """`pending` waits for its turn, `processing` is at work, `requires_action` waits for tool outputs; the
    others are over."""
    created_at: str
    """When the message was taken: UTC, ISO 8601."""
    updated_at: str
    """When the chat changed last: UTC, ISO 8601."""
    completed_at: str | None = None
    """When it was over: UTC, ISO 8601; null while it is not."""
    recovered: bool = False
    """Whether the answer is the one that Coze has stored, since its stream did not bring it: the connection
    to Coze or a process was lost, the stream held no answer, or a cancel came when Coze had finished."""
    user_message: UserMessage
    """What the user said."""
    assistant_message: AssistantMessage | None = None
    """What the bot said; null while there is no answer."""
    content: str = ""
    """The answer's text; empty while the chat runs."""
    reasoning_content: str = ""
    """The bot's thoughts, where it tells them."""
    follow_up_questions: list[str] = Field(default_factory=list)
    """What the user may ask next, as the bot suggests."""
    usage: Usage | None = None
    """Tokens that it took; null where Coze told none."""
    required_action: dict[str, Any] | None = None
    """With `requires_action`, what the bot asks for, as Coze says: `submit_tool_outputs.tool_calls`."""
    waits_until: str | None = None
    """With `requires_action`, until when the outputs are waited for: UTC, ISO 8601. Reading the session moves
    it."""
    error_message: str | None = None
    """Why it failed, in words."""
    error: ErrorInfo | None = None
    """Why it failed."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Where it is known: `coze_chat_id`, `conversation_id`, `logid`, and `last_event_id`, the id of the last
    event in its log."""
