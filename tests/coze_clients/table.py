"""Each route of the door with a call of it, and somebody who owns what they are about."""

from __future__ import annotations

from typing import Any

from tests.support import wait_until

from .support import BOT, CozeCaller, asking

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
UNKNOWN = {
    "conversation_id": "7380000000000000005",
    "chat_id": "7380000000000000006",
    "message_id": "7380000000000000007",
    "file_id": "7380000000000000008",
    "tool_call_id": "no-such-call",
}
Ids = dict[str, str]


def calls(ids: Ids) -> dict[str, dict[str, Any]]:
    """Each route of the door, on these ids: method and path as published -> how it is called."""
    about = {name: ids[name] for name in ("conversation_id", "chat_id")}
    conversation = {"conversation_id": ids["conversation_id"]}
    content = f'[{{"type":"text","text":"x"}},{{"type":"image","file_id":"{ids["file_id"]}"}}]'
    picture = {"role": "user", "content": content, "content_type": "object_string"}
    outputs = {"tool_outputs": [{"tool_call_id": ids["tool_call_id"], "output": "y"}]}
    return {
        "POST /v3/chat": {"params": conversation, "json": asking("hello")},
        "GET /v3/chat/retrieve": {"params": about},
        "POST /v3/chat/retrieve": {"params": about},
        "GET /v3/chat/message/list": {"params": about},
        "POST /v3/chat/cancel": {"json": about},
        "POST /v3/chat/submit_tool_outputs": {"params": about, "json": outputs},
        "POST /v1/conversation/create": {"json": {"messages": [picture]}},
        "GET /v1/conversation/retrieve": {"params": conversation},
        "GET /v1/conversations": {"params": {"bot_id": BOT}},
        "PUT /v1/conversations/{conversation_id}": {"json": {"name": "mine now"}},
        "DELETE /v1/conversations/{conversation_id}": {},
        "POST /v1/conversations/{conversation_id}/clear": {},
        "GET /v1/conversation/message/list": {"params": conversation},
        "POST /v1/conversation/message/list": {"params": conversation, "json": {}},
        "POST /v1/conversation/message/create": {
            "params": conversation,
            "json": {"role": "user", "content": "x", "content_type": "text"},
        },
        "GET /v1/conversation/message/retrieve": {"params": conversation | {"message_id": ids["message_id"]}},
        "POST /v1/conversations/{conversation_id}/messages/{message_id}/feedback": {
            "json": {"feedback_type": "like"}
        },
        "DELETE /v1/conversations/{conversation_id}/messages/{message_id}/feedback": {},
        "POST /v1/files/upload": {"files": {"file": ("a.txt", b"")}},
        "GET /v1/files/retrieve": {"params": {"file_id": ids["file_id"]}},
        "GET /v1/bots/{bot_id}": {},
        "GET /v1/bot/get_online_info": {"params": {"bot_id": "7380000000000000010"}},
    }


OVER, WAITS, RUNS = "hello", "[[sim:requires_action=function]] weather", "[[sim:delay=100]] slow"


async def settle_in(caller: CozeCaller, *texts: str) -> list[Ids]:
    """A chat for each of these texts, with a message and a file."""
    file = await caller.data("POST", "/v1/files/upload", files={"file": ("a.png", PNG)})
    own = []
    for text in texts:
        chat = await caller.data("POST", "/v3/chat", json=asking(text, stream=False))
        ids = {"conversation_id": chat["conversation_id"], "chat_id": chat["id"]}
        if "delay" not in text:
            chat = await wait_until(lambda ids=ids: ended(caller, ids))  # type: ignore[misc]
        calls = ((chat.get("required_action") or {}).get("submit_tool_outputs") or {}).get("tool_calls")
        page = await caller.data(
            "POST",
            "/v1/conversation/message/list",
            params={"conversation_id": ids["conversation_id"]},
            json={},
        )
        more = {"message_id": page[-1]["id"], "file_id": file["id"]}
        own.append(ids | more | {"tool_call_id": calls[0]["id"] if calls else "no-such-call"})
    return own


async def ended(caller: CozeCaller, ids: Ids) -> Any:
    chat = await caller.data("GET", "/v3/chat/retrieve", params=ids)
    return chat if chat["status"] != "in_progress" else None
