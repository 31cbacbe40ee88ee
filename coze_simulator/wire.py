"""Coze's bytes: JSON as Go writes it, SSE frames, the shapes of chats and messages, in each dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coze_simulator.errors import HTTP_STATUS_OF_CODE, ApiError
from coze_simulator.options import DialectName
from coze_simulator.state import Chat, Conversation, Message, StoredFile

Json = dict[str, Any]

_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_NO_ACTION: Json = {"type": "", "submit_tool_outputs": {"tool_calls": []}}


def dumps(value: object) -> bytes:
    """Compact JSON as Go's encoding/json writes it: UTF-8, but ``< > &`` and U+2028/9 escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # These characters occur only inside JSON strings, so replacing them in the whole text is safe.
    return text.translate(_GO_ESCAPES).encode("utf-8", "replace")


class Dialect:
    """The cloud (api.coze.cn, api.coze.com). Subclasses say what differs elsewhere."""

    name: DialectName = "cloud"
    stream_by_default = False
    one_chat_per_conversation = True
    logid_header = "x-tt-logid"
    stream_headers: Mapping[str, str] = {"content-type": "text/event-stream"}
    mid_stream_error_code = 5000
    completes_after_error = False
    has_tool_outputs = True
    post_retrieve = True
    upload_status = 200

    def __init__(self, *, http_errors: bool = False) -> None:
        self.http_errors = http_errors

    # -- streams

    def frame(self, event: str, data: object) -> bytes:
        """One event."""
        return b"event:" + event.encode() + b"\ndata:" + dumps(data) + b"\n\n"

    def done(self) -> bytes:
        """The last event."""
        return b'event:done\ndata:"[DONE]"\n\n'

    # -- JSON answers

    def envelope(self, data: object, logid: str, **beside: object) -> Json:
        """A success; ``data`` None leaves the key out. ``beside`` are keys next to ``data``."""
        body: Json = {"code": 0, "msg": ""}
        if data is not None:
            body["data"] = data
        return body | beside | {"detail": {"logid": logid}}

    def error(self, error: ApiError, logid: str) -> tuple[int, Json]:
        """HTTP status and body of a refusal."""
        status = error.status or (HTTP_STATUS_OF_CODE.get(error.code, 200) if self.http_errors else 200)
        return status, {"code": error.code, "msg": error.msg, "detail": {"logid": logid}}

    def unknown_path(self, logid: str) -> tuple[int, Json]:
        """The answer on a path that does not exist."""
        return 404, {"code": 404, "msg": "404 page not found", "detail": {"logid": logid}}

    def canceled(self, chat: Chat, logid: str) -> Json:
        """The answer to a cancel."""
        return self.envelope(self.chat(chat), logid)

    def chat_messages(self, chat: Chat, question: Message | None, logid: str) -> Json:
        """The messages of one chat, grouped rather than in time's order; nothing at all of a failed one."""
        if chat.status == "failed":
            return self.envelope(None, logid)
        order = {"function_call": 0, "tool_response": 1, "verbose": 2, "answer": 3, "follow_up": 4}
        listed = sorted(chat.messages, key=lambda item: order.get(item.type, 5))
        return self.envelope([self.message(item, listed=True) for item in listed], logid)

    def conversation_messages(self, page: list[Message], has_more: bool, logid: str) -> Json:
        """One page of a conversation: the paging keys stand beside ``data``."""
        first, last = (page[0].id, page[-1].id) if page else ("0", "0")
        data = [self.message(item, listed=True) for item in page]
        return self.envelope(data, logid, first_id=first, last_id=last, has_more=has_more)

    def conversation_envelope(self, conversation: Conversation, logid: str) -> Json:
        """The answer to a conversation's retrieve."""
        return self.envelope(self.conversation(conversation), logid)

    # -- objects

    def chat(self, chat: Chat, *, status: str | None = None, event: bool = False) -> Json:
        """Chat, as in envelopes or (``event``) in a stream; ``status`` overrides the stored one."""
        shown = status or chat.shown_status
        body: Json = {
            "id": chat.id,
            "conversation_id": chat.conversation_id,
            "bot_id": chat.bot_id,
            "created_at": chat.created_at,
        }
        if chat.completed_at is not None and shown == "completed":
            body["completed_at"] = chat.completed_at
        if chat.failed_at is not None and shown == "failed":
            body["failed_at"] = chat.failed_at
        body["last_error"] = {"code": chat.last_error[0], "msg": chat.last_error[1]}
        if chat.meta_data:
            body["meta_data"] = dict(chat.meta_data)
        body["status"] = shown
        if chat.required_action is not None and shown == "requires_action":
            body["required_action"] = chat.required_action
        elif chat.knobs.shell_action:
            body["required_action"] = _NO_ACTION
        if not chat.knobs.no_usage:
            ended = shown in ("completed", "failed", "canceled")
            body["usage"] = (chat.usage if ended else type(chat.usage)()).view()
        body["section_id"] = chat.section_id
        if chat.inserted and not event:
            body["inserted_additional_messages"] = [{"id": item} for item in chat.inserted]
        return body

    def delta(self, message: Message, content: str, reasoning: str | None = None) -> Json:
        """A piece of an answer; a piece of reasoning has an empty content."""
        body = self._head(message)
        if reasoning is not None:
            body["reasoning_content"] = reasoning
        body["content"] = content
        return body | self._tail(message)

    def message(self, message: Message, *, listed: bool = False) -> Json:
        """A whole message: on a completed event without its reasoning, in a list with it and with times."""
        body = self._head(message)
        if listed and message.role == "user":
            body["type"] = ""  # as the documented samples of both lists have it
        if listed and message.reasoning_content:
            body["reasoning_content"] = message.reasoning_content
        body["content"] = message.content
        body |= self._tail(message)
        if message.meta_data or listed:
            body["meta_data"] = dict(message.meta_data)
        body["created_at"] = message.created_at
        if listed or message.type in ("verbose", "follow_up"):
            body["updated_at"] = message.created_at
        return body

    def _head(self, message: Message) -> Json:
        return {
            "id": message.id,
            "conversation_id": message.conversation_id,
            "bot_id": message.bot_id,
            "role": message.role,
            "type": message.type,
        }

    def _tail(self, message: Message) -> Json:
        return {
            "content_type": message.content_type,
            "chat_id": message.chat_id,
            "section_id": message.section_id,
        }

    def conversation(self, conversation: Conversation) -> Json:
        """Conversation, of create and retrieve."""
        body: Json = {
            "id": conversation.id,
            "created_at": conversation.created_at,
            "meta_data": dict(conversation.meta_data),
            "last_section_id": conversation.section_id,
            "creator_id": conversation.creator_id,
            "connector_id": conversation.connector_id,
            "updated_at": conversation.updated_at,
        }
        if conversation.name is not None:
            body["name"] = conversation.name
        return body

    def file(self, file: StoredFile) -> Json:
        """File, of upload and retrieve."""
        return {"id": file.id, "bytes": file.size, "created_at": file.created_at, "file_name": file.file_name}


class SpacedDialect(Dialect):
    """The spelling of the documentation's prose: a space after the colon, ``[DONE]`` without quotes."""

    name = "spaced"

    def frame(self, event: str, data: object) -> bytes:
        return b"event: " + event.encode() + b"\ndata: " + dumps(data) + b"\n\n"

    def done(self) -> bytes:
        return b"event: done\ndata: [DONE]\n\n"


class StudioDialect(Dialect):
    """A self-hosted coze-studio, with the oddities of its source (release of March 2026)."""

    name = "studio"
    stream_by_default = True
    one_chat_per_conversation = False
    logid_header = "X-Log-ID"
    stream_headers: Mapping[str, str] = {
        "content-type": "text/event-stream",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    mid_stream_error_code = 103200002
    completes_after_error = True
    has_tool_outputs = False
    post_retrieve = False

    _CODES: Mapping[int, int] = {
        4100: 700012006,
        4101: 103000001,
        4002: 103000002,
        4104: 103200005,
        4006: 103100002,
    }
    _BAD_PARAMETERS = (4000, 4003, 4004, 4007)

    def done(self) -> bytes:
        return b"event:conversation.stream.done\ndata:\n\n"

    def envelope(self, data: object, logid: str, **beside: object) -> Json:
        body = super().envelope(data, logid, **beside)
        del body["detail"]
        return body

    def error(self, error: ApiError, logid: str) -> tuple[int, Json]:
        if error.code in self._BAD_PARAMETERS:
            return error.status or 400, {"code": 400, "msg": error.msg}
        return error.status or 200, {"code": self._CODES.get(error.code, error.code), "msg": error.msg}

    def unknown_path(self, logid: str) -> tuple[int, Json]:
        return 200, {"code": 700012006, "msg": "missing session_key in cookie"}

    def canceled(self, chat: Chat, logid: str) -> Json:
        return {"ChatV3ChatDetail": self.chat(chat, status="cancelled"), "BaseResp": None}

    def chat_messages(self, chat: Chat, question: Message | None, logid: str) -> Json:
        listed = ([question] if question is not None else []) + chat.messages
        return {"Messages": [self.message(item, listed=True) for item in listed], "code": 0, "msg": ""}

    def conversation_messages(self, page: list[Message], has_more: bool, logid: str) -> Json:
        body = super().conversation_messages(page, has_more, logid)
        if not page:
            del body["data"]
        return body

    def conversation_envelope(self, conversation: Conversation, logid: str) -> Json:
        data = self.conversation(conversation)
        data["creator_d"] = data.pop("creator_id")
        return {"ConversationData": data, "code": 0, "msg": ""}

    def chat(self, chat: Chat, *, status: str | None = None, event: bool = False) -> Json:
        body = super().chat(chat, status=status, event=event)
        del body["last_error"]
        if event:
            body.pop("usage", None)
        for name in ("created_at", "completed_at", "failed_at"):
            body.setdefault(name, 0)
        if body["status"] == "canceled":
            body["status"] = "conversation.chat.cancelled"
        return body

    def delta(self, message: Message, content: str, reasoning: str | None = None) -> Json:
        return super().delta(message, content, reasoning or "")

    def message(self, message: Message, *, listed: bool = False) -> Json:
        body = super().message(message, listed=listed)
        body.setdefault("reasoning_content", "")
        return body

    def file(self, file: StoredFile) -> Json:
        uri = f"simulator/{file.id}/{file.file_name}"
        return {
            "id": file.id,
            "uri": uri,
            "url": f"http://localhost/{uri}",
            "bytes": file.size,
            "CreatedAt": file.created_at,
            "file_name": file.file_name,
        }


def make_dialect(name: DialectName, *, http_errors: bool = False) -> Dialect:
    """The dialect of that name."""
    kinds: dict[DialectName, type[Dialect]] = {
        "cloud": Dialect,
        "studio": StudioDialect,
        "spaced": SpacedDialect,
    }
    return kinds[name](http_errors=http_errors)
