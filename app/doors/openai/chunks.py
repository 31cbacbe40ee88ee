"""A chat's frames as ``chat.completion.chunk`` objects, for one reader."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from app.doors.openai.errors import openai_error
from app.doors.openai.texts import SentText
from app.exceptions import ChatState, ServiceError, ShuttingDown
from app.models import Cursor
from app.tasks.frames import data_of, error_of
from app.tasks.reader import Batch, Ending

ID_PREFIX: Final = "chatcmpl-"
_DELTA: Final = b"event: conversation.message.delta\n"
_SNAPSHOT: Final = b"event: snapshot\n"
NO_TEXT: Final = "[This answer is a card or an object; its JSON follows]\n"
"""Said before what is not the bot's words."""
_DONE: Final = b"data: [DONE]\n\n"
_KINDS: Final = ("reasoning_content", "content")
"""In this order: who thinks first answers after it."""

TextByKind = dict[str, str]
"""The text of each of ``_KINDS``."""


def created_of(chat_id: str) -> int:
    """Unix seconds; the id holds the time."""
    return int(chat_id.split("_")[2]) // 1000


def usage_of(chat: dict[str, Any]) -> dict[str, int] | None:
    """As Coze counted; None where it has told nothing."""
    usage = chat.get("usage")
    if not usage:
        return None
    return {
        "prompt_tokens": usage["input_count"],
        "completion_tokens": usage["output_count"],
        "total_tokens": usage["token_count"],
    }


def call_id(chat_id: str, coze_id: str) -> str:
    """What a client gives back with the output: it leads to the chat that asks for it."""
    return f"{chat_id}:{coze_id}"


def tool_calls_of(chat: dict[str, Any]) -> list[dict[str, Any]]:
    submit = (chat.get("required_action") or {}).get("submit_tool_outputs") or {}
    calls = [call for call in submit.get("tool_calls") or [] if isinstance(call, dict)]
    return [
        {
            "id": call_id(chat["chat_id"], str(call.get("id"))),
            "type": "function",
            "function": {
                "name": str((call.get("function") or {}).get("name") or ""),
                "arguments": str((call.get("function") or {}).get("arguments") or ""),
            },
        }
        for call in calls
    ]


def is_text(message: dict[str, Any]) -> bool:
    """Whether its content is what the bot says, not the JSON of a card or an object."""
    return (message.get("content_type") or "text") == "text"


def refusal_of(chat: dict[str, Any]) -> ServiceError | None:
    """Why there is no whole answer; None where there is one, or tools are asked for."""
    if chat["status"] == "failed":
        return error_of(chat)
    if chat["status"] == "cancelled":
        error = ChatState("The chat was cancelled", details={"chat_id": chat["chat_id"]})
        error.details["openai_code"] = "chat_cancelled"
        return error
    return None


class ChunkStream:
    """A ``Dialect``. ``before``: what an earlier answer of this chat, which asked for tools, has said.

    ``finished``: the stream has been ended by us, so nobody hung up.
    """

    def __init__(
        self, chat_id: str, model: str, *, include_usage: bool, before: TextByKind | None = None
    ) -> None:
        head = {
            "id": ID_PREFIX + chat_id,
            "object": "chat.completion.chunk",
            "created": created_of(chat_id),
            "model": model,
            "system_fingerprint": None,
        }
        self._head = b"data: " + orjson.dumps(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._include_usage = include_usage
        self._texts = {kind: SentText((before or {}).get(kind, "")) for kind in _KINDS}
        self._told_kind = False
        """The notice of an answer that is no text was sent."""
        self.finished = False

    @property
    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def batch(self, batch: Batch) -> bytes:
        """What arrived together is sent in as few chunks as its kinds allow. Raises ``ServiceError``."""
        return b"".join(
            self._chunk({kind: text}) for kind, text in _merged(self._texts_of(batch.frames)) if text
        )

    def ending(self, ending: Ending, last: Cursor) -> bytes:
        """Raises ``ServiceError`` where the answer is not whole."""
        chat = orjson.loads(ending.record)
        if (refusal := refusal_of(chat)) is not None:
            raise refusal
        rest = [(kind, self._texts[kind].end(chat[kind])) for kind in _KINDS]
        answer = chat.get("assistant_message") or {}
        chunks = [self._chunk({kind: self._announced(answer, kind, text)}) for kind, text in rest if text]
        reason = "stop"
        if chat["status"] == "requires_action":
            calls = [{"index": n, **call} for n, call in enumerate(tool_calls_of(chat))]
            chunks.append(self._chunk({"tool_calls": calls}))
            reason = "tool_calls"
        chunks.append(self._chunk({}, reason))
        if self._include_usage:
            chunks.append(self._head + b'[],"usage":' + orjson.dumps(usage_of(chat)) + b"}\n\n")
        self.finished = True
        return b"".join([*chunks, _DONE])

    def error(self, error: ServiceError, request_id: str) -> bytes:
        """OpenAI's SDKs raise at it. No ``[DONE]`` follows: some clients take that for a success."""
        self.finished = True
        return b"data: %s\n\n" % orjson.dumps(openai_error(error))

    def reconnect(self) -> bytes:
        text = (
            "This process is shutting down; the same call with the same Idempotency-Key gets the whole answer"
        )
        return self.error(ShuttingDown(text), "")

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b"%b[%b]%b" % (self._head, orjson.dumps(choice), self._tail)

    def _texts_of(self, frames: Iterable[bytes]) -> Iterator[tuple[str, str]]:
        for frame in frames:
            if frame.startswith(_DELTA):
                yield from self._delta(data_of(frame))
            elif frame.startswith(_SNAPSHOT):
                yield from self._snapshot(data_of(frame))

    def _delta(self, message: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if (message.get("type") or "answer") != "answer":
            return
        message_id = str(message.get("id") or "")
        for kind in _KINDS:
            text = self._texts[kind].add(message_id, _text_of(message, kind))
            yield kind, self._announced(message, kind, text)

    def _snapshot(self, snapshot: dict[str, Any]) -> Iterator[tuple[str, str]]:
        messages = [(str(item.get("id") or ""), item) for item in snapshot.get("messages") or []]
        for kind in _KINDS:
            texts = [(message_id, _text_of(item, kind)) for message_id, item in messages]
            text = self._texts[kind].replace(texts)
            yield kind, self._announced(messages[-1][1] if messages else {}, kind, text)

    def _announced(self, message: dict[str, Any], kind: str, text: str) -> str:
        """With a notice in front where it is the first of an answer that is no text."""
        if self._told_kind or not text or kind != "content" or is_text(message):
            return text
        self._told_kind = True
        return NO_TEXT + text


def _text_of(message: dict[str, Any], kind: str) -> str:
    text = message.get(kind)
    return text if isinstance(text, str) else ""


def _merged(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Neighbours of one kind as one."""
    now, parts = "", list[str]()
    for kind, text in texts:
        if not text:
            continue
        if kind != now and parts:
            yield now, "".join(parts)
            parts = []
        now = kind
        parts.append(text)
    if parts:
        yield now, "".join(parts)
