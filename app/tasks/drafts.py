"""What the body of a request becomes: a chat and its record, an Idempotency-Key, tool call ids."""

import hashlib

import orjson
from pydantic import BaseModel

from app.exceptions import SessionNotFound
from app.models import Chat, SendMessage, UserMessage
from app.stores.chats import NewChat
from app.stores.sessions import IdempotencyKey
from app.tasks.frames import chat_frame
from app.utils import is_session_id, iso, new_chat_id


def new_chat(session_id: str, body: SendMessage) -> tuple[Chat, NewChat]:
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
        ),
        created_at=moment,
        updated_at=moment,
    )
    request = body.model_dump_json(exclude={"stream", "on_busy"}, exclude_none=True).encode()
    return chat, NewChat(chat_id, session_id, chat.model_dump_json().encode(), chat_frame(chat), request)


def idempotency_of(key: str | None, body: BaseModel) -> IdempotencyKey | None:
    """The fingerprint leaves ``stream`` out: a streamed repeat of a call that was not is the same call."""
    if key is None:
        return None
    canonical = orjson.dumps(body.model_dump(mode="json", exclude={"stream"}), option=orjson.OPT_SORT_KEYS)
    return IdempotencyKey(key, hashlib.sha256(canonical).hexdigest())


def tool_call_ids(chat: Chat) -> list[str]:
    submit = (chat.required_action or {}).get("submit_tool_outputs") or {}
    return [str(call.get("id")) for call in submit.get("tool_calls") or [] if isinstance(call, dict)]
