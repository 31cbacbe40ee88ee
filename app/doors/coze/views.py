"""Coze's objects, made of our records, and Coze's answers as a client gets them."""

from datetime import datetime
from typing import Any, Final

import orjson
from fastapi import Response

from app.doors.coze.errors import told_of
from app.tasks.frames import error_of
from app.tasks.owned import Begun
from app.tasks.passed import Passed
from app.utils import created_ms

_STATUSES: Final = {
    "pending": "in_progress",
    "processing": "in_progress",
    "cancelled": "canceled",
}
Json = dict[str, Any]


def answer(data: object, logid: str, *, chat_id: str = "", **beside: object) -> Response:
    """A success in Coze's envelope. ``data`` None: without that key. ``chat_id``: ours, for a header.
    ``beside``: keys next to ``data``."""
    body: Json = {"code": 0, "msg": ""}
    if data is not None:
        body["data"] = data
    body |= beside
    body["detail"] = {"logid": logid}
    headers = {"X-Tt-Logid": logid} | ({"X-Coze-Chat-Id": chat_id} if chat_id else {})
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def passed(reply: Passed, request_id: str, *beside: str) -> Response:
    """Coze's own answer. ``beside``: names of keys next to ``data``."""
    more: dict[str, Any] = {name: reply.body[name] for name in beside if name in reply.body}
    return answer(reply.data, reply.logid or request_id, **more)


def _seconds(moment: str | None) -> int | None:
    return None if moment is None else int(datetime.fromisoformat(moment).timestamp())


def chat_of_record(record: Json, conversation_id: str, coze_chat_id: str) -> Json:
    """A chat as Coze shows it, from our record."""
    status = _STATUSES.get(record["status"], record["status"])
    view: Json = {
        "id": coze_chat_id,
        "conversation_id": conversation_id,
        "bot_id": record["metadata"].get("bot_id", ""),
        "created_at": _seconds(record["created_at"]),
    }
    if status == "completed":
        view["completed_at"] = _seconds(record["completed_at"])
    if status == "failed":
        view["failed_at"] = _seconds(record["completed_at"])
    view["last_error"] = {"code": 0, "msg": ""}
    if status == "failed":
        error = error_of(record)
        view["last_error"] = {"code": told_of(error).code, "msg": error.message}
    if meta := record["user_message"]["metadata"]:
        view["meta_data"] = meta
    view["status"] = status
    if status == "requires_action":
        view["required_action"] = record["required_action"]
    view["usage"] = record["usage"] or {"token_count": 0, "output_count": 0, "input_count": 0}
    return view


def chat_just_begun(begun: Begun, status: str) -> Json:
    """A chat of which only Coze's ids are known."""
    return {
        "id": begun.at_coze.chat_id,
        "conversation_id": begun.at_coze.conversation_id,
        "bot_id": begun.bot_id,
        "created_at": created_ms(begun.started.chat_id) // 1000,
        "last_error": {"code": 0, "msg": ""},
        "status": status,
        "usage": {"token_count": 0, "output_count": 0, "input_count": 0},
    }


def has_answer(record: Json) -> bool:
    """Whether our record has one of a chat that is completed."""
    return record["status"] == "completed" and record["assistant_message"] is not None


def messages_of_record(record: Json, conversation_id: str, coze_chat_id: str) -> list[Json]:
    """What a chat has said, where Coze does not tell it; several answers as one."""
    answer = record["assistant_message"]
    common = {
        "conversation_id": conversation_id,
        "bot_id": record["metadata"].get("bot_id", ""),
        "role": "assistant",
        "chat_id": coze_chat_id,
        "created_at": _seconds(record["completed_at"] or record["updated_at"]),
    }
    said = []
    if answer is not None:
        said.append(
            {
                **common,
                "id": answer["message_id"],
                "type": "answer",
                "content": record["content"],
                "content_type": answer["content_type"],
                "reasoning_content": record["reasoning_content"],
            }
        )
    said += [
        {**common, "id": "", "type": "follow_up", "content": question, "content_type": "text"}
        for question in record["follow_up_questions"]
    ]
    return said
