"""How routes answer: the envelope around what the task layer returned."""

from typing import Any

import orjson
from fastapi import Response

from app.models import success_json, task_status_of
from app.sse import result_json
from app.tasks.frames import error_of


def success(data: Any, *, message: str, logid: str | None = None) -> Response:
    """``logid``: Coze's, where the call went to Coze."""
    headers = {"X-Coze-Logid": logid} if logid else None
    return Response(success_json(data, message=message), headers=headers, media_type="application/json")


def chat_as_it_stands(record: bytes, *, asked_coze: bool = False) -> Response:
    """200 with the chat, failed ones too; with Coze's logid where the call went to Coze."""
    logid = orjson.loads(record)["metadata"].get("logid") if asked_coze else None
    headers = {"X-Coze-Logid": logid} if logid else None
    return Response(result_json(record), headers=headers, media_type="application/json")


def chat_answer(record: bytes, headers: dict[str, str]) -> Response:
    """The answer to a message: 200 with the whole chat, 202 while it is at work, or its error."""
    chat = orjson.loads(record)
    status = chat["status"]
    if status == "failed":
        error = error_of(chat)
        error.headers |= {**headers, "X-Coze-Chat-Id": chat["chat_id"]}
        raise error
    if logid := chat["metadata"].get("logid"):
        headers["X-Coze-Logid"] = logid
    headers["X-Coze-Chat-Id"] = chat["chat_id"]
    under_way = task_status_of(status) == "processing"
    if under_way:
        headers["Location"] = f"/coze/chats/{chat['chat_id']}/result"
    return Response(
        result_json(record),
        status_code=202 if under_way else 200,
        headers=headers,
        media_type="application/json",
    )
