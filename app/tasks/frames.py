"""Frames that we write ourselves, and the final chat: what a reader gets besides Coze's own events."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from app.coze.fold import Fold
from app.coze.stream import SSEDecoder, frame
from app.coze.wire import json_object
from app.exceptions import ERROR_CLASSES, ServiceError, UpstreamError
from app.models.chats import AssistantMessage, Chat, ErrorInfo, Usage
from app.utils import iso, now_ms

_END_EVENTS: Final = {
    "completed": "conversation.chat.completed",
    "failed": "conversation.chat.failed",
    "cancelled": "conversation.chat.canceled",
    "requires_action": "conversation.chat.requires_action",
}
_DATA: Final = len(b"\ndata: ")
_END_MARKS: Final = tuple(f"event: {name}\n".encode() for name in _END_EVENTS.values())


def ends_reading(last_frame: bytes) -> bool:
    """Whether a chat whose log ends with this frame is over, or waits for tool outputs."""
    return last_frame.startswith(_END_MARKS)


def is_snapshot(frame_bytes: bytes) -> bool:
    return frame_bytes.startswith(b"event: snapshot\n")


def data_of(frame_bytes: bytes) -> dict[str, Any]:
    """The JSON of a frame of the log (an event line, data lines, a blank line); empty where it is none.

    What Coze said is passed on nearly as it came, so it is read as Coze is: in part, if need be.
    """
    begin = frame_bytes.find(b"\n") + _DATA
    data = frame_bytes[begin:-2]
    return json_object(data.replace(b"\ndata: ", b"\n") if b"\n" in data else data) or {}


def stored_frames(chat: Chat) -> list[bytes]:
    """A snapshot and the end, from the record of a chat whose log has expired."""
    fold = Fold()
    fold.coze_chat_id = chat.metadata.get("coze_chat_id")
    fold.conversation_id = chat.metadata.get("conversation_id")
    message_id = chat.assistant_message.message_id if chat.assistant_message else ""
    message = {
        "id": message_id,
        "content": chat.content,
        "content_type": chat.assistant_message.content_type if chat.assistant_message else "text",
        "reasoning_content": chat.reasoning_content,
    }
    # A record has the answers joined: one message then stands for all that a reader may have.
    messages = [message] if message_id else []
    fold.restore({"messages": messages, "follow_up_questions": chat.follow_up_questions})
    return [fold.snapshot_frame(), *end_frames(chat, fold, "")]


def chat_frame(chat: Chat) -> bytes:
    """Frame 1 of every log, so that a client can resume from the very first moment."""
    data = {"chat_id": chat.chat_id, "session_id": chat.session_id, "status": chat.status}
    return frame("chat", orjson.dumps(data))


def fold_frames(frames: Iterable[bytes], fold: Fold) -> Fold:
    """Takes a log, or a part of it, into ``fold``, which then is the answer as far as that tells it: Coze's
    events, and snapshots in place of what was trimmed. What the fold returns is in the log already."""
    decoder = SSEDecoder()
    for each in frames:
        for event in decoder.feed(each):
            if event.name == "snapshot":
                fold.restore(orjson.loads(event.data))
            elif event.name.startswith("conversation."):
                if fold.status == "requires_action":
                    fold.reopen()
                fold.feed(event)
    if fold.status == "requires_action":
        fold.reopen()
    return fold


def tool_call_ids(required_action: dict[str, object] | None) -> list[str]:
    """Of the tool calls that have to be answered."""
    submit = (required_action or {}).get("submit_tool_outputs")
    calls = submit.get("tool_calls") if isinstance(submit, dict) else None
    return [str(call.get("id")) for call in calls or [] if isinstance(call, dict)]


def error_info(error: ServiceError) -> ErrorInfo:
    info = ErrorInfo(
        code=error.code, message=error.message, retryable=error.retryable, retry_after=error.retry_after
    )
    if isinstance(error, UpstreamError):
        info.coze_code, info.logid, info.hint = error.coze_code, error.logid, error.hint
    return info


def error_of(chat: Mapping[str, object]) -> ServiceError:
    """The exception that a failed chat (as stored) stands for; ``details.chat_id`` names the chat."""
    info = ErrorInfo.model_validate(chat.get("error") or {"code": "", "message": ""})
    error = ERROR_CLASSES.get(info.code, ServiceError)(info.message or None, retry_after=info.retry_after)
    error.retryable = info.retryable
    error.details = {"chat_id": chat["chat_id"], **_of_coze(info)}
    if info.logid:
        error.headers["X-Coze-Logid"] = info.logid
    return error


def _of_coze(info: ErrorInfo) -> dict[str, object]:
    return info.model_dump(include={"coze_code", "logid", "hint"}, exclude_none=True)


def end_frames(chat: Chat, fold: Fold, request_id: str) -> list[bytes]:
    """The terminal frame; before that of a failed chat an ``error`` event with the envelope's error."""
    frames = []
    if chat.status == "failed" and chat.error is not None:
        error = {
            **chat.error.model_dump(include={"code", "message", "retryable"}),
            "timestamp": chat.updated_at,
            "request_id": request_id,
            "details": {"chat_id": chat.chat_id, **_of_coze(chat.error)},
        }
        frames.append(frame("error", orjson.dumps(error)))
    if fold.final_data is not None and not chat.recovered and chat.status != "failed":
        data = fold.final_data
    else:
        data = orjson.dumps(_our_end(chat, fold))
    return [*frames, frame(_END_EVENTS[chat.status], data)]


def _our_end(chat: Chat, fold: Fold) -> dict[str, object]:
    """A chat object in Coze's shape where Coze sent none that can be passed on."""
    end: dict[str, object] = {
        "id": fold.coze_chat_id,
        "conversation_id": fold.conversation_id,
        "status": "canceled" if chat.status == "cancelled" else chat.status,
        "recovered": chat.recovered,
    }
    if chat.usage is not None:
        end["usage"] = chat.usage.model_dump()
    if chat.error is not None:
        end["last_error"] = {"code": chat.error.coze_code, "msg": chat.error.message}
    if chat.required_action is not None:
        end["required_action"] = chat.required_action
    return end


def close_chat(chat: Chat, fold: Fold, last_event_id: str) -> None:
    """Writes what was folded, and how it ended, into the chat."""
    moment = iso()
    chat.updated_at = moment
    chat.status = "cancelled" if fold.status == "canceled" else fold.status  # type: ignore[assignment]  # ended
    chat.content, chat.reasoning_content = fold.content(), fold.reasoning()
    chat.follow_up_questions = fold.follow_ups()
    chat.required_action = fold.required_action
    if fold.usage is not None:
        chat.usage = Usage(**msgspec.structs.asdict(fold.usage))
    if chat.status != "requires_action":
        chat.completed_at = moment
    if fold.error is not None:
        chat.error = error_info(fold.error)
        if fold.begun:  # and may have been paid for: nobody is told to repeat it
            chat.error.retryable = False
        chat.error_message = fold.error.message
    answers = fold.answers()
    if answers:
        types = {answer["content_type"] for answer in answers}
        chat.assistant_message = AssistantMessage(
            content=chat.content,
            timestamp=moment,
            message_id=answers[-1]["id"] or str(now_ms()),
            content_type=types.pop() if len(types) == 1 else "mixed",
        )
    ids = {"coze_chat_id": fold.coze_chat_id, "conversation_id": fold.conversation_id, "logid": fold.logid}
    chat.metadata |= {name: value for name, value in ids.items() if value}
    chat.metadata["last_event_id"] = last_event_id
