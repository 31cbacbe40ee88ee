"""What goes over Coze's wire: addresses, requests, and tolerant readings of its answers.

Source: the API pages of Coze v3 (chat, retrieve, message list, conversation). Observed beside them and
accepted here: absent or null lists, usage and last_error; times and codes as strings; unknown fields,
types and statuses; the shapes of coze-studio, the self-hosted server.
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

import msgspec
import orjson

from app.coze.codes import coze_error
from app.coze.loose_json import mended_object
from app.exceptions import UpstreamError

MAX_ID_CHARS: Final = 128
_MOST: Final = 2**53
_MOST_SECONDS: Final = 100_000_000_000

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on JSON that is broken, not UTF-8, or nested too deep."""

Status = Literal["created", "in_progress", "completed", "failed", "requires_action", "canceled", "unknown"]

TERMINAL: Final[frozenset[Status]] = frozenset({"completed", "failed", "canceled"})
ENDED: Final[frozenset[Status]] = TERMINAL | {"requires_action"}
"""Statuses in which Coze does nothing more by itself."""

_STATUS_SPELLINGS: Final[dict[str, Status]] = {
    "created": "created",
    "in_progress": "in_progress",
    "completed": "completed",
    "compleated": "completed",  # a sample of Coze's documentation
    "failed": "failed",
    "expired": "failed",  # coze-studio; neither can still become completed
    "deleted": "failed",
    "requires_action": "requires_action",
    "required_action": "requires_action",
    "canceled": "canceled",
    "cancelled": "canceled",
}


class Endpoints(msgspec.Struct, frozen=True):
    """Coze's addresses: where chats are POSTed to, and the base of all others, without ``/v3``."""

    chat: str
    base: str

    @classmethod
    def derive(cls, chat_url: str, base_url: str | None = None) -> Self:
        """From the chat address (``https://api.coze.cn/v3/chat``) and the base (with or without ``/v3``).

        Without ``base_url`` it is what precedes ``/v3/chat``. Raises ``ValueError`` where that is not how
        the chat address ends.
        """
        chat = chat_url.strip().rstrip("/")
        if base_url and base_url.strip():
            base = base_url.strip().rstrip("/")
            return cls(chat, base.removesuffix("/v3").rstrip("/"))
        if not chat.endswith("/v3/chat"):
            raise ValueError("the chat address does not end in /v3/chat, so the base address must be given")
        return cls(chat, chat.removesuffix("/v3/chat").rstrip("/"))

    def url(self, path: str) -> str:
        """Plain concatenation: a prefix such as ``/coze`` in front of the API survives, which it would not
        with ``urljoin``."""
        return self.base + path


class EnterMessage(msgspec.Struct, frozen=True):
    """A message that goes in. ``type`` None: ``question`` for the user, ``answer`` for the assistant;
    Coze's own default, ``question``, is refused for an assistant."""

    role: str
    content: str
    content_type: str = "text"
    type: str | None = None
    meta_data: dict[str, str] | None = None

    def to_wire(self) -> dict[str, object]:
        wire: dict[str, object] = {
            "role": self.role,
            "type": self.type or ("question" if self.role == "user" else "answer"),
            "content": self.content,
            "content_type": self.content_type,
        }
        if self.meta_data:
            wire["meta_data"] = self.meta_data
        return wire


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """POST /v3/chat. ``auto_save_history`` must be true when the answer is not streamed (4007). ``passed``: a
    body that is sent as it is, in place of all other fields but the conversation; what is long in it is JSON
    already (``msgspec.Raw``)."""

    bot_id: str
    user_id: str
    messages: list[EnterMessage]
    conversation_id: str | None = None
    auto_save_history: bool = True
    custom_variables: dict[str, str] | None = None
    meta_data: dict[str, str] | None = None
    parameters: dict[str, object] | None = None
    passed: dict[str, object] | None = None

    @property
    def query(self) -> dict[str, str]:
        """``conversation_id`` belongs in the query: in the body Coze ignores it silently."""
        return {"conversation_id": self.conversation_id} if self.conversation_id else {}

    def body(self, *, stream: bool) -> bytes:
        """JSON. ``stream`` is always written out: the defaults of Coze and coze-studio differ."""
        if self.passed is not None:
            return msgspec.json.encode({**self.passed, "stream": stream})
        wire: dict[str, object] = {
            "bot_id": self.bot_id,
            "user_id": self.user_id,
            "stream": stream,
            "auto_save_history": self.auto_save_history,
            "additional_messages": [message.to_wire() for message in self.messages],
        }
        optional = {
            "custom_variables": self.custom_variables,
            "meta_data": self.meta_data,
            "parameters": self.parameters,
        }
        wire.update({name: value for name, value in optional.items() if value is not None})
        return msgspec.json.encode(wire)


class TokenUsage(msgspec.Struct, frozen=True):
    """Tokens."""

    token_count: int = 0
    input_count: int = 0
    output_count: int = 0

    @classmethod
    def parse(cls, value: object) -> Self | None:
        """None for absent, null and all zero, which is what Coze sends before the end."""
        if not isinstance(value, dict):
            return None
        given = count(value.get("input_count")) or count(value.get("input_tokens"))
        made = count(value.get("output_count")) or count(value.get("output_tokens"))
        total = count(value.get("token_count")) or given + made
        return cls(total, given, made) if total or given or made else None


class ChatState(msgspec.Struct, frozen=True, kw_only=True):
    """A chat as Coze has it. Only ``status`` tells whether it is over: Coze may set a time of its end before.
    ``error_code``: of its last error; what Coze says there is not for callers."""

    id: str
    conversation_id: str
    status: Status
    usage: TokenUsage | None = None
    error_code: int | None = None
    required_action: dict[str, object] | None = None
    meta_data: dict[str, str] = {}
    logid: str | None = None

    @classmethod
    def parse(cls, value: object, *, logid: str | None = None) -> Self:
        """Reads any object; what is missing or of a wrong type becomes empty."""
        data = value if isinstance(value, dict) else {}
        status = normal_status(data.get("status"))
        last_error = data.get("last_error")
        code = code_of(last_error) if isinstance(last_error, dict) else None
        if code is not None and status in ("completed", "unknown"):
            status = "failed"
        meta = data.get("meta_data")
        return cls(
            id=identifier(data.get("id")),
            conversation_id=identifier(data.get("conversation_id")),
            status=status,
            usage=TokenUsage.parse(data.get("usage")),
            error_code=code,
            required_action=required_action_of(data.get("required_action")),
            meta_data={key: text(item) for key, item in meta.items()} if isinstance(meta, dict) else {},
            logid=logid,
        )

    def failure(self) -> UpstreamError | None:
        """The error of a failed chat; None for any other."""
        if self.status != "failed":
            return None
        return coze_error(self.error_code, logid=self.logid, maybe_started=True)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message, or a completed one of the stream. ``created_at``: unix seconds."""

    id: str
    role: str = ""
    type: str = ""
    content: str = ""
    content_type: str = ""
    reasoning_content: str = ""
    chat_id: str = ""
    meta_data: dict[str, object] = {}
    created_at: int | None = None

    @classmethod
    def parse(cls, value: object) -> Self | None:
        """None where it is not an object."""
        if not isinstance(value, dict):
            return None
        meta = value.get("meta_data")
        return cls(
            id=identifier(value.get("id")),
            role=text(value.get("role")),
            type=text(value.get("type")),
            content=shown_text(value.get("content")),
            content_type=text(value.get("content_type")),
            reasoning_content=shown_text(value.get("reasoning_content")),
            chat_id=identifier(value.get("chat_id")),
            meta_data=meta if isinstance(meta, dict) else {},
            created_at=unix_seconds(value.get("created_at")),
        )

    @property
    def is_question(self) -> bool:
        """In lists a user's message has an empty type: the role is the safe test."""
        return self.role == "user" or self.type == "question"


class MessagePage(msgspec.Struct, frozen=True):
    """One page of a conversation; ``has_more`` false where Coze did not say."""

    messages: list[Message]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
    logid: str | None = None


def normal_status(value: object) -> Status:
    """Any spelling Coze uses, as one of ``Status``."""
    return _STATUS_SPELLINGS.get(value, "unknown") if isinstance(value, str) else "unknown"


def required_action_of(value: object) -> dict[str, object] | None:
    """``required_action`` if it asks for something; Coze puts empty shells of it on ordinary events."""
    if not isinstance(value, dict):
        return None
    outputs = value.get("submit_tool_outputs")
    calls = outputs.get("tool_calls") if isinstance(outputs, dict) else None
    return value if isinstance(calls, list) and calls else None


def strict_object(data: bytes) -> dict[str, object] | None:
    """The JSON object in ``data``; None for anything else, and where a part of it is no JSON."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def json_object(data: bytes) -> dict[str, object] | None:
    """The JSON object in ``data``, of which parts may be no JSON; None for anything else."""
    found = strict_object(data)
    return mended_object(data) if found is None else found


def integer(value: object) -> int | None:
    """A number, or a string of one (samples of Coze's documentation have both), as an integer.

    None for anything else, and past 2**53: no count, code or time of Coze's is there.
    """
    found: int | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = int(value)  # JSON has neither infinity nor NaN
    elif isinstance(value, str) and len(value) <= 20:
        try:
            found = int(value)
        except ValueError:
            return None
    return found if found is not None and abs(found) <= _MOST else None


def code_of(found: Mapping[str, object]) -> int | None:
    """The code of an error; None where it has none, or 0. Some gateways in front of Coze spell it
    ``error_code``."""
    return integer(found.get("code")) or integer(found.get("error_code")) or None


def unix_seconds(value: object) -> int | None:
    """A time; a number past 1e11 has milliseconds. None where there is none, or no calendar has it."""
    found = integer(value)
    if found is not None and found > _MOST_SECONDS:
        found //= 1000
    return found if found is not None and 0 <= found <= _MOST_SECONDS else None


def count(value: object) -> int:
    """A number of tokens; 0 where there is none."""
    return max(0, integer(value) or 0)


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def shown_text(value: object) -> str:
    """What a message says: text, or what else Coze puts in its place, as the JSON that it is."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def log_id(value: object) -> str:
    """A logid as it can stand in a header of ours, or empty."""
    found = identifier(value)
    return found if found.isascii() and found.isprintable() else ""


def identifier(value: object) -> str:
    """An id as Coze sends it (int64 as a string; an int is accepted), or empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and len(value) <= MAX_ID_CHARS else ""
