"""The conversation and file endpoints: /v1/..."""

from __future__ import annotations

import hashlib
import time

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from coze_simulator.chats import stored_message
from coze_simulator.core import Call
from coze_simulator.errors import ApiError
from coze_simulator.state import StoredFile, page_of
from coze_simulator.validate import bad, check_bot_id, messages_of, meta_data_of, text_of

_MAX_FIRST_MESSAGES = 16
_MAX_NAME = 100
_MAX_FILE = 512 * 1024 * 1024
_MAX_FILES_KEPT = 10_000


async def create_conversation(call: Call) -> Response:
    """POST /v1/conversation/create. A wrong bot id is answered with a bare 5000, as the cloud does."""
    body = call.body
    bot_id, name = text_of(body, "bot_id"), text_of(body, "name")
    if len(name) > _MAX_NAME:
        raise bad(f"name has at most {_MAX_NAME} characters")
    if bot_id:
        try:
            check_bot_id(bot_id)
        except ApiError as error:
            raise ApiError(5000, "internal server error") from error
    messages = messages_of(body, "messages", save=True)
    if len(messages) > _MAX_FIRST_MESSAGES:
        raise bad(f"messages has at most {_MAX_FIRST_MESSAGES} items")
    conversation = call.store.create_conversation(
        call.identity, meta_data=meta_data_of(body), name=name or None, bot_id=bot_id
    )
    for message in messages:
        stored_message(call, conversation, message)
    call.record.conversation_id = conversation.id
    return call.reply(call.dialect.conversation(conversation))


async def list_conversations(call: Call) -> Response:
    """GET /v1/conversations: those of the identity with one bot, newest first."""
    bot_id = check_bot_id(call.query("bot_id"))
    number, size = int(call.query("page_num") or 1), int(call.query("page_size") or 50)
    mine = [
        item
        for item in call.store.conversations.values()
        if item.identity == call.identity and item.bot_id == bot_id
    ]
    mine.sort(key=lambda item: int(item.id), reverse=call.query("sort_order").upper() != "ASC")
    page = mine[(number - 1) * size : number * size]
    shown = [call.dialect.conversation(item) for item in page]
    return call.reply({"conversations": shown, "has_more": number * size < len(mine)})


async def rename_conversation(call: Call) -> Response:
    """PUT /v1/conversations/{id}."""
    conversation = call.store.conversation(call.request.path_params["conversation_id"], call.identity)
    name = text_of(call.body, "name")
    if len(name) > _MAX_NAME:
        raise bad(f"name has at most {_MAX_NAME} characters")
    conversation.name = name
    conversation.updated_at = int(time.time())
    return call.reply(call.dialect.conversation(conversation))


async def retrieve_conversation(call: Call) -> Response:
    """GET /v1/conversation/retrieve."""
    conversation = call.store.conversation(call.query("conversation_id"), call.identity)
    return call.json(200, call.dialect.conversation_envelope(conversation, call.logid))


async def list_conversation_messages(call: Call) -> Response:
    """POST (or GET, with all in the query) /v1/conversation/message/list: queries and answers, paged."""
    body = call.body if call.request.method == "POST" else dict(call.request.query_params)
    conversation = call.store.conversation(call.query("conversation_id"), call.identity)
    order = text_of(body, "order") or "desc"
    if order not in ("asc", "desc"):
        raise bad("order must be asc or desc")
    chat_id = text_of(body, "chat_id")
    messages = conversation.messages
    if chat_id:
        # With chat_id the cloud leaves out the question.
        messages = [item for item in messages if item.chat_id == chat_id and item.role == "assistant"]
    page, has_more = page_of(
        messages,
        newest_first=order == "desc",
        limit=_limit(body.get("limit")),
        before_id=text_of(body, "before_id"),
        after_id=text_of(body, "after_id"),
    )
    return call.json(200, call.dialect.conversation_messages(page, has_more, call.logid))


def _limit(value: object) -> int:
    if value is None:
        return 50
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 50:
        raise bad("limit must be between 1 and 50")
    return value


async def clear_conversation(call: Call) -> Response:
    """POST /v1/conversations/{id}/clear: a new section; what was said stays listed but is no context."""
    conversation = call.store.conversation(call.request.path_params["conversation_id"], call.identity)
    call.record.conversation_id = conversation.id
    conversation.section_id = call.store.ids.next()
    return call.reply({"id": conversation.section_id, "conversation_id": conversation.id})


async def delete_conversation(call: Call) -> Response:
    """DELETE /v1/conversations/{id}: it is gone, with all that was said in it."""
    conversation = call.store.conversation(call.request.path_params["conversation_id"], call.identity)
    call.record.conversation_id = conversation.id
    call.store.forget(conversation)
    return call.reply({})


async def message_feedback(call: Call) -> Response:
    """POST and DELETE /v1/conversations/{id}/messages/{id}/feedback: of an answer; the last one counts."""
    if not call.core.options.has_feedback:
        return call.unknown_path()
    path = call.request.path_params
    conversation = call.store.conversation(path["conversation_id"], call.identity)
    call.record.conversation_id = conversation.id
    answers = [item for item in conversation.messages if item.role == "assistant"]
    message = next((item for item in answers if item.id == path["message_id"]), None)
    if message is None:
        raise ApiError(4005)
    if call.request.method == "DELETE":
        message.feedback = None
        return call.reply({})
    kind, reasons = text_of(call.body, "feedback_type", required=True), call.body.get("reason_types", [])
    if kind not in ("like", "unlike"):
        raise bad("feedback_type must be like or unlike")
    if not isinstance(reasons, list) or not all(isinstance(item, str) for item in reasons):
        raise bad("reason_types must be a list of strings")
    feedback = {"feedback_type": kind, "reason_types": reasons, "comment": text_of(call.body, "comment")}
    message.feedback = feedback
    return call.reply({})


async def upload_file(call: Call) -> Response:
    """POST /v1/files/upload: one part named `file`; of its content only the size and a hash are kept."""
    if not call.request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(4304, "The file is invalid: multipart/form-data is needed")
    try:
        async with call.request.form() as form:
            files = [item for item in form.getlist("file") if isinstance(item, UploadFile)]
            if len(files) > 1:
                raise ApiError(4301)
            name, size = (files[0].filename or "file", files[0].size or 0) if files else ("", 0)
            mime = (files[0].content_type or "") if files else ""
            digest = hashlib.sha256()
            while files and (chunk := await files[0].read(1 << 20)):
                digest.update(chunk)
    except (MultiPartException, HTTPException) as error:
        raise ApiError(4304) from error
    if size == 0:
        raise ApiError(4300)
    if size > _MAX_FILE:
        raise ApiError(4302)
    store = call.store
    now = int(time.time())
    file = StoredFile(store.ids.next(), call.identity, name, size, now, digest.hexdigest(), mime)
    store.files[file.id] = file
    if len(store.files) > _MAX_FILES_KEPT:
        store.files.popitem(last=False)
    return call.reply(call.dialect.file(file))


async def retrieve_file(call: Call) -> Response:
    """GET /v1/files/retrieve."""
    return call.reply(call.dialect.file(call.store.file(call.query("file_id"), call.identity)))
