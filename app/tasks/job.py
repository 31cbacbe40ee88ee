"""A chat that runs in this process: what its task, its readers and its canceller share."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from app.coze import ChatRequest, CozeClient, EnterMessage, Fold
from app.exceptions import ServiceError
from app.models import OUR_META_KEY, Chat
from app.signals import Signal
from app.stores.chats import NewChat, run_field
from app.stores.leases import Claim
from app.stores.open_log import OpenLog, Origin
from app.stores.sessions import SessionRecord
from app.tasks.frames import chat_frame


@dataclass(slots=True, eq=False)
class Job:
    chat: Chat
    session: SessionRecord
    request: dict[str, Any]
    """The body of the message: message, additional_messages, custom_variables, meta_data, parameters; with
    attachments also ``content``, the message as an object_string, and ``credential``, whose its files are."""
    log: OpenLog
    request_id: str = ""
    fold: Fold = field(default_factory=Fold)
    cancelled: Signal = field(default_factory=Signal)
    ids_known: bool = False
    asked: bool = False
    """A POST to Coze may have been sent."""
    trim_at: int = 0
    """Bytes of log in memory past which a snapshot takes its place."""
    credential: str = ""
    """Whose the chat and its conversation are at Coze; empty where they are still to be made."""
    coze: CozeClient | None = None
    """The client that acts for that credential."""
    taken_over: bool = False
    """Somebody has, or may have, POSTed it before: it is never POSTed again."""
    let_go: bool = False
    """It ended here while Coze may still be at work on it."""
    tool_outputs: list[dict[str, str]] | None = None
    """What to submit instead of a new message. After a takeover: only where Coze still waits for it."""
    waited: bool = False
    """It waited for tool outputs, which Coze itself does not cancel."""
    give_up: ServiceError | None = None
    """End it as failed with this, at once."""
    begun: float = field(default_factory=time.perf_counter)
    first_delta: float | None = None
    """Seconds from ``begun`` to the first delta of the answer."""

    def log_fields(self) -> dict[str, str | None]:
        """What every log line about this chat carries, as far as it is known."""
        root, _, user = self.session.owner.partition("|")
        return {
            "chat_id": self.chat.chat_id,
            "session_id": self.session.session_id,
            "request_id": self.request_id,
            "root": root,
            "user": user,
            "user_id": self.session.user_id,
            "coze_chat_id": self.fold.coze_chat_id,
            "logid": self.fold.logid or (self.chat.error.logid if self.chat.error else None),
        }

    @property
    def created_at(self) -> int:
        """Unix seconds, by our clock."""
        return int(datetime.fromisoformat(self.chat.created_at).timestamp())

    def resume_from(self, fold: Fold) -> None:
        """Goes on from what the log told; ids that were committed apart from it count, too."""
        fold.coze_chat_id = self.fold.coze_chat_id or fold.coze_chat_id
        fold.conversation_id = self.fold.conversation_id or fold.conversation_id
        self.fold = fold
        self.ids_known = bool(fold.coze_chat_id and fold.conversation_id)

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
            messages=[*map(_enter, messages), _message(body)],
            conversation_id=session.conversation_id,
            auto_save_history=session.auto_save_history,
            custom_variables=body.get("custom_variables"),
            meta_data={**(body.get("meta_data") or {}), OUR_META_KEY: self.chat.chat_id},
            parameters=body.get("parameters"),
        )


def _message(body: dict[str, Any]) -> EnterMessage:
    if content := body.get("content"):
        return EnterMessage("user", content, "object_string")
    return EnterMessage("user", body["message"])


def _enter(message: dict[str, Any]) -> EnterMessage:
    return EnterMessage(
        role=message["role"],
        content=message.get("content") or "",
        content_type=message.get("content_type") or "text",
        type=message.get("type"),
        meta_data=message.get("meta_data"),
    )


def _open_log(
    chat: Chat,
    session: SessionRecord,
    record: bytes,
    run: Sequence[bytes],
    *,
    epoch: int,
    frames: list[bytes],
) -> OpenLog:
    return OpenLog(
        chat_id=chat.chat_id,
        session_id=session.session_id,
        epoch=epoch,
        origin=Origin(session, record, list(run)),
        frames=frames,
        visible=len(frames),
        committed=len(frames),
    )


def new_job(created: SessionRecord, new: NewChat, chat: Chat, request_id: str) -> Job:
    """The chat that was just created here: epoch 1, frame 1 committed."""
    run = [b"epoch", b"1", b"sid", created.session_id.encode(), b"request", new.request]
    log = _open_log(chat, created, new.record, run, epoch=1, frames=[new.first_frame])
    job = Job(chat, created, orjson.loads(new.request), log, request_id)
    job.credential = created.credential or job.request.get("credential", "")
    return job


def claimed_job(claim: Claim) -> Job:
    """A chat that was claimed: from the queue (frame 1 is there), or from an owner that is gone."""
    chat = Chat.model_validate_json(claim.record)
    frames: list[bytes] = []
    if claim.unowned:
        chat.status = "pending"
        frames = [chat_frame(chat)]
    chat.status = "processing"
    record = chat.model_dump_json().encode()
    log = _open_log(chat, claim.session, record, claim.run, epoch=claim.epoch, frames=frames)
    job = Job(chat, claim.session, orjson.loads(run_field(claim.run, b"request")), log)
    job.taken_over = not claim.unowned
    job.waited = claim.before == "waiting"
    job.tool_outputs = orjson.loads(run_field(claim.run, b"tool_outputs") or b"null")
    job.fold.coze_chat_id = run_field(claim.run, b"coze_chat_id").decode() or None
    job.fold.conversation_id = run_field(claim.run, b"conversation_id").decode() or None
    mine = claim.session.credential or job.request.get("credential", "")
    job.credential = run_field(claim.run, b"credential").decode() or mine
    if run_field(claim.run, b"cancel"):
        job.cancelled.set()
    return job
