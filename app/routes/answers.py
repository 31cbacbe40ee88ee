"""How routes answer: the envelope around what the task layer returned, or a chat's event stream."""

from typing import Any

import orjson
from fastapi import Response

from app.http.dependencies import RequestContext
from app.http.sse import STREAM_HEADERS, EventStream, result_json
from app.models.envelope import success_json, task_status_of
from app.tasks.frames import error_of
from app.tasks.places import Place
from app.tasks.reader import Ending, Reader


def success(data: Any, *, message: str, logid: str | None = None) -> Response:
    """``logid``: Coze's, where the call went to Coze."""
    return _json(success_json(data, message=message), logid)


def chat_as_it_stands(found: Ending, *, asked_coze: bool = False) -> Response:
    """200 with the chat, failed ones too; with Coze's logid where the call went to Coze."""
    logid = orjson.loads(found.record)["metadata"].get("logid") if asked_coze else None
    return _json(result_json(found), logid)


def _json(body: bytes, logid: str | None) -> Response:
    headers = {"X-Coze-Logid": logid} if logid else None
    return Response(body, headers=headers, media_type="application/json")


def chat_answer(found: Ending, headers: dict[str, str]) -> Response:
    """The answer to a message: 200 with the whole chat, 202 while it is at work, or its error."""
    chat = orjson.loads(found.record)
    status = chat["status"]
    headers["X-Coze-Chat-Id"] = chat["chat_id"]
    if status == "failed":
        error = error_of(chat)
        error.headers |= headers
        raise error
    if logid := chat["metadata"].get("logid"):
        headers["X-Coze-Logid"] = logid
    under_way = task_status_of(status) == "processing"
    if under_way:
        headers["Location"] = f"/coze/chats/{chat['chat_id']}/result"
    return Response(
        result_json(found),
        status_code=202 if under_way else 200,
        headers=headers,
        media_type="application/json",
    )


def stream_head(chat_id: str) -> Response:
    """What a HEAD of the chat's events gets."""
    response = Response(headers={**STREAM_HEADERS, "X-Coze-Chat-Id": chat_id})
    del response.headers["content-length"]
    return response


def stream(context: RequestContext, reader: Reader, chat_id: str, place: Place) -> Response:
    """The chat's events, which keep their place until they end."""
    resources = context.resources
    return EventStream(
        reader,
        chat_id=chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=place.keep(),
    )
