"""A chat that runs in this process: what its task, its readers and its canceller share."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.coze import ChatRequest, EnterMessage, Fold
from app.models import OUR_META_KEY, Chat
from app.stores.chats import run_field
from app.stores.event_log import OpenLog, Origin
from app.stores.sessions import SessionRecord


@dataclass(slots=True, eq=False)
class Job:
    chat: Chat
    session: SessionRecord
    request: dict[str, Any]
    """The body of the message: message, additional_messages, custom_variables, meta_data, parameters."""
    log: OpenLog
    request_id: str = ""
    fold: Fold = field(default_factory=Fold)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    ids_known: bool = False

    @property
    def conversation_id(self) -> str | None:
        return self.fold.conversation_id or self.session.conversation_id

    def coze_request(self, user_id: str) -> ChatRequest:
        """What is POSTed to Coze. The session's opening messages go along until Coze has them."""
        session, body = self.session, self.request
        messages = [*session.opening_messages, *(body.get("additional_messages") or [])]
        return ChatRequest(
            bot_id=session.bot_id,
            user_id=user_id,
            messages=[*map(_enter, messages), EnterMessage("user", body["message"])],
            conversation_id=session.conversation_id,
            auto_save_history=session.auto_save_history,
            custom_variables=body.get("custom_variables"),
            meta_data={**(body.get("meta_data") or {}), OUR_META_KEY: self.chat.chat_id},
            parameters=body.get("parameters"),
        )


def _enter(message: dict[str, Any]) -> EnterMessage:
    return EnterMessage(
        role=message["role"],
        content=message.get("content") or "",
        content_type=message.get("content_type") or "text",
        type=message.get("type"),
        meta_data=message.get("meta_data"),
    )


def make_job(
    session: SessionRecord, record: bytes, run: Sequence[bytes], first_frame: bytes, request_id: str = ""
) -> Job:
    """A job from what the store has of a chat that is about to start: epoch 1, frame 1 committed."""
    chat = Chat.model_validate_json(record)
    chat.status = "processing"
    log = OpenLog(
        chat_id=chat.chat_id,
        session_id=session.session_id,
        epoch=int(run_field(run, b"epoch") or 1),
        origin=Origin(session, chat.model_dump_json().encode(), list(run)),
        frames=[first_frame],
        visible=1,
        committed=1,
    )
    return Job(chat, session, orjson.loads(run_field(run, b"request")), log, request_id)
