"""One completion: a chat that begins or goes on, and its answer, whole or as a stream."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from app.doors.openai.bodies import SESSION_KEY, ChatCompletionRequest
from app.doors.openai.chunks import (
    ID_PREFIX,
    ChunkStream,
    TextByKind,
    answer_id,
    answer_of,
    content_type_of,
    created_of,
    reason_of,
    refusal_of,
    unfinished,
    usage_of,
)
from app.doors.openai.dialog import (
    MAX_HISTORY,
    Image,
    Question,
    Turn,
    checked,
    invalid,
    question_of,
    too_long,
    tool_outputs_of,
)
from app.doors.openai.forms import Form, form_of
from app.doors.openai.texts import notice_of, rest_of
from app.exceptions import CozeTimeout, ModelNotFound, ServiceError, ShuttingDown, UnsupportedMediaType
from app.http.dependencies import RequestContext
from app.http.sse import EventStream
from app.models import Attachment, CreateSession, EnterMessage, SendMessage, SubmitToolOutputs
from app.tasks.chats import Started
from app.tasks.places import Place
from app.tasks.sessions import idempotency_of, key_of_itself
from app.utils.stopping import end_tasks

_PATIENCE: Final = 15.0
"""Seconds for which a stream's status waits for the answer's first word, so that a refusal has its own."""
_REPAIR_SECONDS: Final = 60.0
"""What a chat may take beyond COZE_CHAT_TIMEOUT until its end is written."""


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One request, and what it needs."""

    context: RequestContext
    body: ChatCompletionRequest
    idempotency_key: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class StartedCompletion:
    """A chat whose answer is to be told.

    Args:
        before: what the chat had said when it asked for tools.
        form: in which the answer is asked for.
        connection_bound: nobody but the one who has this connection can come back for the answer.
    """

    chat: Started
    before: TextByKind | None
    form: Form | None
    connection_bound: bool

    @property
    def epoch(self) -> int:
        return self.chat.after.epoch


def bot_of(bots: Mapping[str, str], model: str) -> str:
    """The bot's id. Raises ``ModelNotFound``."""
    bot_id = bots.get(model)
    if bot_id is None:
        text = f"The model {model!r} does not exist; GET /coze/openai/v1/models lists those that do"
        raise ModelNotFound(text, details={"param": "model"})
    return bot_id


async def begin(call: CompletionCall) -> StartedCompletion:
    """Raises whatever can be refused before the first byte."""
    bot_id = bot_of(call.context.resources.settings.bots, call.body.model)
    form = form_of(call.body)
    outputs = tool_outputs_of(call.body.messages)
    if outputs is not None:
        return await _go_on(call, form, *outputs)
    return await _ask(call, form, bot_id)


async def _go_on(
    call: CompletionCall, form: Form | None, chat_id: str, outputs: SubmitToolOutputs
) -> StartedCompletion:
    chats = call.context.resources.chats
    chat = orjson.loads((await chats.result(call.context.identity, chat_id, 0)).record)
    started = await chats.submit_tool_outputs(
        call.context.identity,
        chat_id,
        outputs,
        call.context.request_id,
        call.idempotency_key or key_of_itself(outputs),
    )
    content, reasoning = started.said or (0, 0)
    before = {
        "content": chat["content"][:content],
        "reasoning_content": chat["reasoning_content"][:reasoning],
    }
    return StartedCompletion(started, before, form, connection_bound=False)


async def _ask(call: CompletionCall, form: Form | None, bot_id: str) -> StartedCompletion:
    body, chats, identity = call.body, call.context.resources.chats, call.context.identity
    settings = call.context.resources.settings
    question = question_of(body, settings.max_file_bytes, MAX_HISTORY - (form is not None))
    if form is not None:
        question.history.append(Turn("user", form.instruction))
    longest = settings.openai_max_message_length
    if len(question.asked.text) > longest:
        most = f"{longest} characters (COZE_OPENAI_MAX_MESSAGE_LENGTH)"
        raise too_long("messages", f"the last one has at most {most}, {len(question.asked.text)} given")
    # Where the request names nobody: the person, the API key's name, or the root.
    user_id = body.user or call.user_id or identity.hty_id or identity.root.rpartition(":")[2]
    who = checked(CreateSession, {"user_id": user_id, "bot_id": bot_id}, "user")
    plain = body.model_copy(update={"stream": None, "stream_options": None})
    # Of the request as it came: images that are uploaded get new ids each time.
    key = idempotency_of(call.idempotency_key, plain, user_id)
    file_ids = await _file_ids(call, question, who.user_id)
    message = checked(
        SendMessage,
        {
            "message": question.asked.text,
            "attachments": [_attachment(image, file_ids) for image in question.asked.images] or None,
            "additional_messages": [_entered(turn, file_ids) for turn in question.history],
            "meta_data": _meta_data(body),
        },
        "messages",
    )
    if body.session_id is not None:
        started = await chats.send(
            identity,
            body.session_id,
            message,
            request_id=call.context.request_id,
            idempotency_key=key,
            max_length=longest,
        )
        return StartedCompletion(started, None, form, connection_bound=False)
    started = await chats.send_single(
        identity,
        who,
        message,
        request_id=call.context.request_id,
        idempotency_key=key,
        max_length=longest,
    )
    return StartedCompletion(started, None, form, connection_bound=key is None)


def _meta_data(body: ChatCompletionRequest) -> dict[str, str] | None:
    rest = {name: text for name, text in (body.metadata or {}).items() if name != SESSION_KEY and text}
    return rest or None


async def _file_ids(call: CompletionCall, question: Question, user_id: str) -> dict[bytes, str]:
    """Images that came inside the request go to Coze as files: their ids."""
    data = {image.data: "" for turn in (question.asked, *question.history) for image in turn.images}
    data.pop(b"", None)
    if not data:
        return {}
    try:
        records = await call.context.resources.files.images(
            call.context.identity, list(data), session_id=call.body.session_id, user_id=user_id
        )
    except UnsupportedMediaType as error:  # the request itself is JSON, as it should be
        raise invalid("messages", error.message) from None
    return {image: record.file_id for image, record in zip(data, records, strict=True)}


def _reference(image: Image, file_ids: dict[bytes, str]) -> dict[str, str]:
    return {"file_url": image.url} if image.url else {"file_id": file_ids[image.data]}


def _attachment(image: Image, file_ids: dict[bytes, str]) -> Attachment:
    return checked(Attachment, {"type": "image", **_reference(image, file_ids)}, "messages")


def _entered(turn: Turn, file_ids: dict[bytes, str]) -> EnterMessage:
    values: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.images:
        items: list[dict[str, str]] = [{"type": "text", "text": turn.text}] if turn.text.strip() else []
        items += [{"type": "image", **_reference(image, file_ids)} for image in turn.images]
        values |= {"content": orjson.dumps(items).decode(), "content_type": "object_string"}
    return checked(EnterMessage, values, "messages")


# -- answers ---------------------------------------------------------------------------------------------


def stream_of(call: CompletionCall, started: StartedCompletion, place: Place) -> Response:
    """A client that leaves is the stop button: what nobody can come back for is cancelled."""
    resources, identity, chat_id = call.context.resources, call.context.identity, started.chat.chat_id
    dialect = ChunkStream(
        chat_id,
        call.body.model,
        include_usage=call.body.include_usage,
        before=started.before,
        epoch=started.epoch,
        form=started.form,
        repeatable=_is_repeatable(call, started),
    )
    give_back = place.keep()

    def close() -> None:
        give_back()
        if started.connection_bound and not dialect.finished:
            resources.chats.cancel_in_background(identity, chat_id)

    return EventStream(
        resources.chats.read(identity, started.chat),
        chat_id=chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=close,
        dialect=dialect,
        patience=_PATIENCE,
    )


async def whole_answer(call: CompletionCall, started: StartedCompletion, place: Place) -> Response:
    """Waits until the chat is over: OpenAI knows no answer that is still to come."""
    resources, chat_id = call.context.resources, started.chat.chat_id
    call.context.began(chat_id)
    patience = resources.settings.chat_timeout + _REPAIR_SECONDS
    answer = asyncio.ensure_future(resources.chats.answer(call.context.identity, chat_id, patience, place))
    gone = asyncio.ensure_future(_client_gone(call.context.request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            if started.connection_bound:
                resources.chats.cancel_in_background(call.context.identity, chat_id)
            raise ClientDisconnect
        chat = orjson.loads(answer.result().record)
    finally:
        await end_tasks((answer, gone))
    headers = {"X-Coze-Chat-Id": chat_id}
    if (error := refusal_of(chat) or _unfinished(call, started, chat)) is not None:
        error.headers |= headers
        raise error
    if logid := chat["metadata"].get("logid"):
        headers["X-Coze-Logid"] = logid
    completion = completion_of(chat, call.body.model, started.before, epoch=started.epoch, form=started.form)
    return Response(orjson.dumps(completion), headers=headers, media_type="application/json")


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unfinished(
    call: CompletionCall, started: StartedCompletion, chat: dict[str, Any]
) -> ServiceError | None:
    """The chat goes on without us."""
    if chat["status"] not in ("pending", "processing"):
        return None
    leaving = call.context.resources.shutdown.streams_end
    error: ServiceError = ShuttingDown() if leaving else CozeTimeout("The chat is not over yet")
    return unfinished(error, repeatable=_is_repeatable(call, started))


def _is_repeatable(call: CompletionCall, started: StartedCompletion) -> bool:
    """Whether the same call leads to this chat again: by its key, or because it brings tool outputs."""
    return call.idempotency_key is not None or started.before is not None


def completion_of(
    chat: dict[str, Any],
    model: str,
    before: TextByKind | None,
    *,
    epoch: int = 0,
    form: Form | None = None,
) -> dict[str, Any]:
    """The ``chat.completion`` object of a chat that is over or asks for tools."""
    said = {kind: _since(chat, kind, before) for kind in ("content", "reasoning_content")}
    if said["content"] and form is None:
        said["content"] = notice_of(content_type_of(chat)) + said["content"]
    name = answer_id(chat["chat_id"], epoch)
    answer = answer_of(chat, said["content"], form, name)
    message = {"role": "assistant", "refusal": None} | answer
    if reason_of(answer) != "stop":
        message["content"] = message["content"] or None
    if said["reasoning_content"]:
        message["reasoning_content"] = said["reasoning_content"]
    return {
        "id": ID_PREFIX + name,
        "object": "chat.completion",
        "created": created_of(chat["chat_id"]),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason_of(answer)}],
        "usage": usage_of(chat),
        "system_fingerprint": None,
    }


def _since(chat: dict[str, Any], kind: str, before: TextByKind | None) -> str:
    """What was said after the tools had answered; all of it where Coze has replaced what it said before."""
    text: str = chat[kind]
    if before is None or not text.startswith(before[kind]):
        return text
    return rest_of(text, before[kind])
