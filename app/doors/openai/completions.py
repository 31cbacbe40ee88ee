"""One completion: a chat that begins or goes on, and its answer, whole or as a stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Response

from app.doors.openai.asking import (
    PATIENCE,
    asker_of,
    closing,
    end_of,
    event_stream,
    headers_of,
    make_checks,
    message_of,
    raise_unless_whole,
    uploaded,
    work_of,
)
from app.doors.openai.bodies import SESSION_KEY, ChatCompletionRequest
from app.doors.openai.chunks import (
    ID_PREFIX,
    ChunkStream,
    answer_id,
    answer_of,
    created_of,
    reason_of,
    usage_of,
)
from app.doors.openai.dialog import MAX_HISTORY, Question, Turn, question_of, tool_outputs_of
from app.doors.openai.folding import TextByKind, content_type_of, said_since
from app.doors.openai.forms import Form, form_of, reading
from app.doors.openai.schema_work import Work
from app.doors.openai.texts import notice_of
from app.exceptions import ModelNotFound
from app.http.dependencies import RequestContext
from app.models.bodies import SubmitToolOutputs
from app.tasks.chats import Sending, Started
from app.tasks.outputs import Outputs
from app.tasks.places import Place
from app.tasks.sessions import idempotency_of


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """One request, and what it needs."""

    context: RequestContext
    body: ChatCompletionRequest
    idempotency_key: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class StartedCompletion:
    """A chat whose answer is to be told. It holds nothing of what was asked, which may be large: an answer
    may take minutes.

    Args:
        before: what the chat had said when it asked for tools.
        form: in which the answer is asked for.
        connection_bound: nobody but the one who has this connection can come back for the answer.
        repeatable: the same call leads to this chat again: by its key, or because it brings tool outputs.
    """

    context: RequestContext
    chat: Started
    before: TextByKind | None
    form: Form | None
    model: str
    include_usage: bool
    connection_bound: bool
    repeatable: bool

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
    body, resources = call.body, call.context.resources
    bot_id = bot_of(resources.settings.bots, body.model)
    outputs, form = await resources.big_bodies.work_on(body, _read, body, work_of(call.context))
    begins = outputs is None and body.session_id is None
    await make_checks(call.context, form, body.user or call.user_id, begins=begins)
    if outputs is not None:
        return await _go_on(call, form, *outputs)
    return await _ask(call, form, bot_id)


def _read(
    body: ChatCompletionRequest, work: Work
) -> tuple[tuple[str, SubmitToolOutputs] | None, Form | None]:
    return tool_outputs_of(body.messages), form_of(body, work)


async def _go_on(
    call: CompletionCall, form: Form | None, chat_id: str, outputs: SubmitToolOutputs
) -> StartedCompletion:
    chats = call.context.resources.chats
    chat = orjson.loads((await chats.result(call.context.identity, chat_id, 0)).record)
    written = await call.context.resources.big_bodies.work_on(
        call.body, Outputs.of, outputs, call.idempotency_key, repeatable=True
    )
    started = await chats.submit_tool_outputs(
        call.context.identity, chat_id, written, call.context.request_id
    )
    content, reasoning = started.said or (0, 0)
    before = {
        "content": chat["content"][:content],
        "reasoning_content": chat["reasoning_content"][:reasoning],
    }
    return _begun(call, started, before, form, connection_bound=False)


async def _ask(call: CompletionCall, form: Form | None, bot_id: str) -> StartedCompletion:
    body, chats, identity = call.body, call.context.resources.chats, call.context.identity
    bodies = call.context.resources.big_bodies
    who = asker_of(call.context, body.user or call.user_id, bot_id)
    question, sending = await bodies.work_on(body, _question, call, form, who.user_id)
    uploads = await uploaded(call.context, question, user_id=who.user_id, session_id=body.session_id)
    message = await bodies.work_on(body, message_of, question, uploads, _meta_data(body))
    if body.session_id is not None:
        started = await chats.send(identity, body.session_id, message, sending)
        return _begun(call, started, None, form, connection_bound=False)
    started = await chats.send_single(identity, who, message, sending)
    return _begun(call, started, None, form, connection_bound=sending.idempotency_key is None)


def _question(call: CompletionCall, form: Form | None, user_id: str) -> tuple[Question, Sending]:
    """How it is sent: by the key of the request as it came, since images that are uploaded get new ids each
    time."""
    body, settings = call.body, call.context.resources.settings
    question = question_of(body, settings.max_file_bytes, MAX_HISTORY - (form is not None))
    if form is not None:
        question.history.append(Turn("user", form.instruction))
    plain = body.model_copy(update={"stream": None, "stream_options": None})
    return question, Sending(
        request_id=call.context.request_id,
        idempotency_key=idempotency_of(call.idempotency_key, plain, user_id),
        max_length=settings.openai_max_message_length,
    )


def _begun(
    call: CompletionCall,
    started: Started,
    before: TextByKind | None,
    form: Form | None,
    *,
    connection_bound: bool,
) -> StartedCompletion:
    return StartedCompletion(
        call.context,
        started,
        before,
        form,
        call.body.model,
        call.body.include_usage,
        connection_bound,
        repeatable=call.idempotency_key is not None or before is not None,
    )


def _meta_data(body: ChatCompletionRequest) -> dict[str, str] | None:
    rest = {name: text for name, text in (body.metadata or {}).items() if name != SESSION_KEY and text}
    return rest or None


# -- answers ---------------------------------------------------------------------------------------------


def stream_of(started: StartedCompletion, place: Place) -> Response:
    context, chat_id = started.context, started.chat.chat_id
    dialect = ChunkStream(
        chat_id,
        started.model,
        include_usage=started.include_usage,
        before=started.before,
        epoch=started.epoch,
        form=started.form,
        repeatable=started.repeatable,
    )
    on_close = closing(context, chat_id, place, dialect, connection_bound=started.connection_bound)
    return event_stream(context, started.chat, dialect, on_close, patience=PATIENCE)


async def whole_answer(started: StartedCompletion, place: Place) -> Response:
    """Waits until the chat is over: OpenAI knows no answer that is still to come."""
    context, chat_id = started.context, started.chat.chat_id
    context.began(chat_id)
    chat = await end_of(context, chat_id, place, connection_bound=started.connection_bound)
    raise_unless_whole(context, chat, repeatable=started.repeatable)
    form, epoch = started.form, started.epoch
    answer = await reading(form, completion_of, chat, started.model, started.before, epoch=epoch, form=form)
    return Response(orjson.dumps(answer), headers=headers_of(chat), media_type="application/json")


def completion_of(
    chat: dict[str, Any],
    model: str,
    before: TextByKind | None,
    *,
    epoch: int = 0,
    form: Form | None = None,
) -> dict[str, Any]:
    """The ``chat.completion`` object of a chat that is over or asks for tools."""
    said = {kind: said_since(chat, kind, before) for kind in ("content", "reasoning_content")}
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
