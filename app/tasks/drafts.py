"""What the body of a request becomes: a chat and its record, an Idempotency-Key, tool call ids."""

import hashlib
from typing import Any

import orjson
from pydantic import BaseModel

from app.exceptions import SessionNotFound
from app.models import Chat, SendMessage, UserMessage
from app.stores.chats import NewChat
from app.stores.sessions import IdempotencyKey
from app.tasks.attachments import PLAIN, Resolved
from app.tasks.frames import chat_frame
from app.utils import is_session_id, iso, new_chat_id


def new_chat(session_id: str, body: SendMessage, files: Resolved = PLAIN) -> tuple[Chat, NewChat]:
    """``files``: what goes along, with Coze's ids, kept with the request: the queue and a takeover need no
    more."""
    if not is_session_id(session_id):
        raise SessionNotFound
    moment, chat_id = iso(), new_chat_id(session_id)
    chat = Chat(
        chat_id=chat_id,
        session_id=session_id,
        status="processing",
        user_message=UserMessage(
            content=body.message,
            timestamp=moment,
            message_id=f"msg_{chat_id[-20:]}",
            metadata=body.meta_data or {},
            attachments=files.shown or None,
        ),
        created_at=moment,
        updated_at=moment,
    )
    request = body.model_dump_json(exclude={"stream", "on_busy", "attachments"}, exclude_none=True).encode()
    if files is not PLAIN:
        resolved = {
            "content": files.content,
            "additional_messages": files.rewritten,
            "credential": files.credential,
        }
        request = orjson.dumps(orjson.loads(request) | {k: v for k, v in resolved.items() if v})
    queued = chat.model_copy(update={"status": "pending"})
    record, frames = chat.model_dump_json().encode(), (chat_frame(chat), chat_frame(queued))
    return chat, NewChat(chat_id, session_id, record, *frames, request)


def idempotency_of(key: str | IdempotencyKey | None, body: BaseModel, *more: str) -> IdempotencyKey | None:
    """The fingerprint leaves ``stream`` out: a streamed repeat of a call that was not is the same call.
    ``more``: what the call means besides its body. A key that has its fingerprint keeps it."""
    if key is None or isinstance(key, IdempotencyKey):
        return key
    canonical = orjson.dumps(body.model_dump(mode="json", exclude={"stream"}), option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey(key, hashlib.sha256(b"\0".join([canonical, *map(str.encode, more)])).hexdigest())


def tool_call_ids(required_action: dict[str, Any] | None) -> list[str]:
    """Of the tool calls that have to be answered."""
    submit = (required_action or {}).get("submit_tool_outputs") or {}
    return [str(call.get("id")) for call in submit.get("tool_calls") or [] if isinstance(call, dict)]
