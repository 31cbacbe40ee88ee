"""Addresses and answers of a Coze that respx plays."""

from typing import Any

import httpx

from .support import BASE
from .vectors import BEG, DELTA, END, event, message

CHAT = f"{BASE}/v3/chat"
RETRIEVE = f"{BASE}/v3/chat/retrieve"
LIST = f"{BASE}/v3/chat/message/list"
CANCEL = f"{BASE}/v3/chat/cancel"
CREATE = f"{BASE}/v1/conversation/create"
PAGE = f"{BASE}/v1/conversation/message/list"
SSE = {"content-type": "text/event-stream", "x-tt-logid": "L1"}
STREAM = BEG + event(DELTA, message("answer", "x")) + END


def ok(data: Any = None, **beside: Any) -> httpx.Response:
    body = {"code": 0, "msg": "", "detail": {"logid": "L1"}, **beside}
    return httpx.Response(200, json=body if data is None else {**body, "data": data})


def chat_data(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "6", "conversation_id": "5", "bot_id": "9", "status": status, **more}


def refusal(code: int, status: int = 200, **headers: str) -> httpx.Response:
    body = {"code": code, "msg": "goroutine 1", "detail": {"logid": "L9"}}
    return httpx.Response(status, json=body, headers=headers)
