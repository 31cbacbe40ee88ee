"""One completion: a chat begun (or gone on with), and its answer whole or as a stream."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from app.dependencies import Resources
from app.exceptions import CozeTimeout, ModelNotFound, ServiceError, ShuttingDown, UnsupportedMediaType
from app.models import Attachment, CreateSession, EnterMessage, Identity, SendMessage
from app.openai_bodies import SESSION_KEY, ChatCompletionRequest
from app.openai_door.callers import default_user
from app.openai_door.chunks import (
    ID_PREFIX,
    ChunkStream,
    Said,
    created_of,
    refusal_of,
    tool_calls_of,
    usage_of,
)
from app.openai_door.dialog import Image, Question, checked, question_of, tool_outputs_of, wrong
from app.openai_door.dialog import Said as SaidMessage
from app.openai_door.texts import rest_of
from app.sse import EventStream
from app.stopping import end_tasks
from app.tasks.chats import Started
from app.tasks.sessions import idempotency_of

_REPAIR_SECONDS: Final = 60.0
"""What a chat may take beyond COZE_CHAT_TIMEOUT until its end is written."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and what it needs."""

    resources: Resources
    identity: Identity
    body: ChatCompletionRequest
    request_id: str
    idempotency_key: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Begun:
    """``before``: what the chat had said when it asked for tools. ``bound``: nobody but the one who has this
    connection can come back for the answer."""

    started: Started
    before: Said | None
    bound: bool


async def begin(call: Call) -> Begun:
    """Raises whatever can be refused before the first byte."""
    bot_id = call.resources.bots.get(call.body.model)
    if bot_id is None:
        text = f"The model {call.body.model!r} does not exist; GET /coze/openai/v1/models lists those that do"
        raise ModelNotFound(text, details={"param": "model"})
    if call.body.stream:
        call.resources.streams.check(call.identity.owner)
    outputs = tool_outputs_of(call.body.messages)
    if outputs is not None:
        return await _go_on(call, *outputs)
    return await _ask(call, bot_id)


async def _go_on(call: Call, chat_id: str, outputs: Any) -> Begun:
    chats = call.resources.chats
    chat = orjson.loads(await chats.result(call.identity, chat_id, 0))
    started = await chats.submit_tool_outputs(
        call.identity, chat_id, outputs, call.request_id, call.idempotency_key
    )
    content, reasoning = started.said or (0, 0)
    before = {
        "content": chat["content"][:content],
        "reasoning_content": chat["reasoning_content"][:reasoning],
    }
    return Begun(started, before, bound=False)


async def _ask(call: Call, bot_id: str) -> Begun:
    body, chats, identity = call.body, call.resources.chats, call.identity
    question = question_of(body)
    user_id = body.user or call.user_id or default_user(identity)
    who = checked(CreateSession, {"user_id": user_id, "bot_id": bot_id}, "user")
    plain = body.model_copy(update={"stream": None, "stream_options": None})
    # Of the request as it came: images that are uploaded get new ids each time.
    key = idempotency_of(call.idempotency_key, plain, user_id)
    places = await _places(call, question, who.user_id)
    message = checked(
        SendMessage,
        {
            "message": question.asked.text,
            "attachments": [_attachment(image, places) for image in question.asked.images] or None,
            "additional_messages": [_entered(said, places) for said in question.history],
            "meta_data": _meta_data(body),
        },
        "messages",
    )
    if body.session_id is not None:
        started = await chats.send(
            identity, body.session_id, message, request_id=call.request_id, idempotency_key=key
        )
        return Begun(started, None, bound=False)
    started = await chats.send_single(identity, who, message, request_id=call.request_id, idempotency_key=key)
    return Begun(started, None, bound=key is None)


def _meta_data(body: ChatCompletionRequest) -> dict[str, str] | None:
    rest = {name: text for name, text in (body.metadata or {}).items() if name != SESSION_KEY and text}
    return rest or None


async def _places(call: Call, question: Question, user_id: str) -> dict[bytes, str]:
    """Images that came inside the request go to Coze as files: their ids."""
    data = {image.data: "" for said in (question.asked, *question.history) for image in said.images}
    data.pop(b"", None)
    if not data:
        return {}
    try:
        records = await call.resources.files.images(
            call.identity, list(data), session_id=call.body.session_id, user_id=user_id
        )
    except UnsupportedMediaType as error:  # the request itself is JSON, as it should be
        raise wrong("messages", error.message) from None
    return {image: record.file_id for image, record in zip(data, records, strict=True)}


def _place(image: Image, places: dict[bytes, str]) -> dict[str, str]:
    return {"file_url": image.url} if image.url else {"file_id": places[image.data]}


def _attachment(image: Image, places: dict[bytes, str]) -> Attachment:
    return checked(Attachment, {"type": "image", **_place(image, places)}, "messages")


def _entered(said: SaidMessage, places: dict[bytes, str]) -> EnterMessage:
    values: dict[str, Any] = {"role": said.role, "content": said.text}
    if said.images:
        items: list[dict[str, str]] = [{"type": "text", "text": said.text}] if said.text.strip() else []
        items += [{"type": "image", **_place(image, places)} for image in said.images]
        values |= {"content": orjson.dumps(items).decode(), "content_type": "object_string"}
    return checked(EnterMessage, values, "messages")


# -- answers ---------------------------------------------------------------------------------------------


def stream_of(call: Call, begun: Begun) -> Response:
    """A client that leaves is the stop button: what nobody can come back for is cancelled."""
    resources, identity, chat_id = call.resources, call.identity, begun.started.chat_id
    dialect = ChunkStream(
        chat_id, call.body.model, include_usage=call.body.include_usage, before=begun.before
    )
    give_back: Callable[[], None] = resources.streams.take(identity.owner)

    def close() -> None:
        give_back()
        if begun.bound and not dialect.finished:
            resources.chats.cancel_in_background(identity, chat_id)

    return EventStream(
        resources.chats.read(identity, begun.started),
        chat_id=chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=close,
        dialect=dialect,
    )


async def whole_answer(call: Call, begun: Begun, request: Request) -> Response:
    """Waits until the chat is over: OpenAI knows no answer that is still to come."""
    resources, chat_id = call.resources, begun.started.chat_id
    patience = resources.settings.chat_timeout + _REPAIR_SECONDS
    answer = asyncio.ensure_future(resources.chats.answer(call.identity, chat_id, patience))
    gone = asyncio.ensure_future(_client_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            if begun.bound:
                resources.chats.cancel_in_background(call.identity, chat_id)
            raise ClientDisconnect
        chat = orjson.loads(answer.result())
    finally:
        await end_tasks((answer, gone))
    headers = {"X-Coze-Chat-Id": chat_id}
    if (error := refusal_of(chat) or _unfinished(call, chat)) is not None:
        error.headers |= headers
        raise error
    if logid := chat["metadata"].get("logid"):
        headers["X-Coze-Logid"] = logid
    completion = completion_of(chat, call.body.model, begun.before)
    return Response(orjson.dumps(completion), headers=headers, media_type="application/json")


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unfinished(call: Call, chat: dict[str, Any]) -> ServiceError | None:
    """The chat goes on without us: a client that repeats the call by itself has to have an Idempotency-Key,
    or it would be a second one."""
    if chat["status"] not in ("pending", "processing"):
        return None
    leaving = call.resources.shutdown.streams_end
    error: ServiceError = ShuttingDown() if leaving else CozeTimeout("The chat is not over yet")
    if call.idempotency_key is None:
        error.details["chat_id"] = chat["chat_id"]
    return error


def completion_of(chat: dict[str, Any], model: str, before: Said | None) -> dict[str, Any]:
    """The ``chat.completion`` object of a chat that is over or asks for tools."""
    said = {kind: _since(chat, kind, before) for kind in ("content", "reasoning_content")}
    calls = tool_calls_of(chat) if chat["status"] == "requires_action" else []
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said["content"] if said["content"] or not calls else None,
        "refusal": None,
    }
    if said["reasoning_content"]:
        message["reasoning_content"] = said["reasoning_content"]
    if calls:
        message["tool_calls"] = calls
    reason = "tool_calls" if calls else "stop"
    return {
        "id": ID_PREFIX + chat["chat_id"],
        "object": "chat.completion",
        "created": created_of(chat["chat_id"]),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": usage_of(chat),
        "system_fingerprint": None,
    }


def _since(chat: dict[str, Any], kind: str, before: Said | None) -> str:
    """What was said after the tools had answered; all of it where Coze has replaced what it said before."""
    text: str = chat[kind]
    if before is None or not text.startswith(before[kind]):
        return text
    return rest_of(text, before[kind])
