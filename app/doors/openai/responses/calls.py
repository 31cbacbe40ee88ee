"""A response that is begun: what it goes on from, and its question."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import orjson

from app.doors.openai.asking import Uploads, asker_of, make_checks, message_of, uploaded, work_of
from app.doors.openai.bodies import DialogMessage
from app.doors.openai.chunks import tool_calls_of
from app.doors.openai.completions import bot_of
from app.doors.openai.dialog import (
    MAX_HISTORY,
    Question,
    Turn,
    invalid,
    question_of,
    too_long,
    tool_outputs_of,
)
from app.doors.openai.forms import Form, form_of
from app.doors.openai.responses.bodies import Item, ResponseRequest
from app.doors.openai.responses.found import Found, find, with_references
from app.doors.openai.responses.items import MOST_KEPT, as_chat_request, dialog_messages, kept_items
from app.doors.openai.responses.names import Name, response_named, session_of
from app.doors.openai.responses.notes import Note, epochs_in, newest_notes, note_as_metadata, note_in
from app.doors.openai.responses.objects import PackedResponse, Response, request_in
from app.doors.openai.schema_work import Work
from app.exceptions import (
    ChatNotFound,
    ConversationNotFound,
    NotTheNewest,
    SessionBusy,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
    ValidationFailed,
)
from app.http.dependencies import RequestContext
from app.models.bodies import SendMessage, SubmitToolOutputs
from app.models.chats import Chat
from app.tasks.chats import ANY_CHAT, Sending, Started
from app.tasks.outputs import Outputs
from app.tasks.sessions import idempotency_of

_P = ParamSpec("_P")
_T = TypeVar("_T")
_GONE: Final = (NotTheNewest, SessionNotFound, SessionExpired, SessionTerminated)
"""The conversation cannot go on from there: another one begins, with its history."""


@dataclass(frozen=True, slots=True)
class ResponseCall:
    """One request, and what it needs."""

    context: RequestContext
    body: ResponseRequest
    idempotency_key: str | None

    @property
    def background(self) -> bool:
        return bool(self.body.background)

    async def work(self, function: Callable[_P, _T], *args: _P.args, **more: _P.kwargs) -> _T:
        """What ``function`` makes of the body or its parts."""
        return await self.context.resources.big_bodies.work_on(self.body, function, *args, **more)


@dataclass(frozen=True, slots=True)
class StartedResponse:
    """A chat that answers, and nothing of what was asked, which may be large. ``chat``: as it was read once
    it had begun. ``connection_bound``: nobody but the one who has this connection waits for the answer."""

    context: RequestContext
    started: Started
    packed: PackedResponse
    chat: dict[str, Any]
    background: bool
    connection_bound: bool
    repeatable: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks. ``messages``: one for each item; ``form``: in which the answer is asked for;
    ``note``: what is kept of the request with the chat."""

    items: list[Item]
    messages: list[DialogMessage]
    bot_id: str
    form: Form | None
    note: Note


async def begin(call: ResponseCall) -> StartedResponse:
    """Raises whatever can be refused before the first byte."""
    body = call.body
    _refuse(body)
    bot_id = bot_of(call.context.resources.settings.bots, body.model)
    previous = await _previous(call) if body.previous_response_id is not None else None
    items = await with_references(call.context, body.input)
    asked, outputs = await call.work(_read, body, items, bot_id, work_of(call.context))
    begins = outputs is None and previous is None and body.conversation is None
    with _in_their_words(0):
        await make_checks(call.context, asked.form, body.user, begins=begins)
    if outputs is not None:
        return await _go_on(call, asked, previous, *outputs)
    return await _ask(call, asked, previous)


def _refuse(body: ResponseRequest) -> None:
    if body.background and body.store is False:
        raise invalid("store", "must be true in background: the answer is fetched later")
    if body.previous_response_id is not None and body.conversation is not None:
        raise invalid("conversation", "goes without previous_response_id")
    if body.prompt is not None:
        raise invalid("prompt", "there are no stored prompts: the bot has its own")


def _read(
    body: ResponseRequest, items: list[Item], bot_id: str, work: Work
) -> tuple[_Asked, tuple[str, SubmitToolOutputs] | None]:
    """And the outputs of tools at the end of ``items``."""
    note = _note(body)
    with _in_their_words(0):
        messages = dialog_messages(items)
        outputs = tool_outputs_of(messages)
        return _Asked(items, messages, bot_id, form_of(request_in(note), work), note), outputs


def _note(body: ResponseRequest) -> Note:
    """Tools that the client merely offers are the bot's affair, and not kept."""
    demanded = as_chat_request(body.model, body.text, body.tool_choice, body.tools).demanded_functions
    tools = list(body.tools or ()) if demanded is not None else []
    for name, value in (("text", body.text), ("tool_choice", body.tool_choice), ("tools", tools)):
        if len(str(value)) > MOST_KEPT:  # all of it is written down, and told with each answer
            raise too_long(name, f"at most {MOST_KEPT} characters")
    return Note(
        model=body.model,
        instructions=body.instructions,
        previous=body.previous_response_id,
        metadata=body.metadata or {},
        background=bool(body.background),
        stream=bool(body.stream),
        store=body.store is not False,
        user=body.user,
        text=body.text,
        tool_choice=body.tool_choice,
        tools=tools,
    )


async def _previous(call: ResponseCall) -> Found:
    given = call.body.previous_response_id or ""
    name = response_named(given)
    try:
        if name is not None:
            return await find(call.context, name)
    except ChatNotFound:
        pass
    where = f" with id {given!r}" if name is not None else ""
    raise ValidationFailed(
        f"Previous response{where} not found.",
        details={"param": "previous_response_id", "openai_code": "previous_response_not_found"},
    )


@contextmanager
def _in_their_words(before: int) -> Iterator[None]:
    """What is wrong is told by the names of this API. ``before``: messages of ours before the input's."""
    try:
        yield
    except ValidationFailed as error:
        for fault in error.details.get("fields") or ():
            where, *rest = str(fault["field"]).split(".")
            if where == "messages":
                place = [str(int(rest[0]) - before), *rest[1:]] if rest and rest[0].isdigit() else rest
                fault["field"] = ".".join(["input", *place])
            elif where == "response_format":
                fault["field"] = "text.format"
        raise


# -- tool outputs ------------------------------------------------------------------------------------------


async def _go_on(
    call: ResponseCall, asked: _Asked, previous: Found | None, chat_id: str, outputs: SubmitToolOutputs
) -> StartedResponse:
    """The chat goes on with the outputs at the end of the input."""
    if previous is not None and previous.name.chat_id != chat_id:
        raise invalid("previous_response_id", "is not the response that asked for these outputs")
    context, note = call.context, asked.note
    note.input = await call.work(kept_items, asked.items, {}) if note.store else []

    def notes(chat: Chat, epoch: int) -> Mapping[str, str | None]:
        """With what the response before has told: its chat says more from now on."""
        note.said = len(chat.content), len(chat.reasoning_content)
        return newest_notes(chat.metadata, _finished(chat) | note_as_metadata(note, epoch))

    started = await context.resources.chats.submit_tool_outputs(
        context.identity,
        chat_id,
        await call.work(Outputs.of, outputs, call.idempotency_key, repeatable=True),
        context.request_id,
        notes,
    )
    note.said = started.said or (0, 0)
    name = Name(chat_id, started.after.epoch)
    return await _started(call, started, name, note, connection_bound=False, repeatable=True)


def _finished(chat: Chat) -> dict[str, str]:
    epochs = epochs_in(chat.metadata)
    if not epochs:
        return {}
    values = chat.model_dump()
    response = Response.in_chat(Name(chat.chat_id, epochs[-1]), values)
    if response is None:
        return {}
    response.note.done = response.done(values)
    return note_as_metadata(response.note, epochs[-1])


# -- a question --------------------------------------------------------------------------------------------


async def _ask(call: ResponseCall, asked: _Asked, previous: Found | None) -> StartedResponse:
    if call.body.conversation is not None:
        return await _in_conversation(call, asked, call.body.conversation)
    if previous is None:
        return await _anew(call, asked, [])
    if _is_newest(previous) and _has_bot(call, previous, asked.bot_id):
        session_id = previous.session_id
        told = previous.response.note.instructions == asked.note.instructions
        try:
            return await _in_session(
                call, asked, session_id, after=previous.name.chat_id, told=told, called=previous
            )
        except _GONE:
            pass
        except SessionBusy:
            _refuse_if_it_waits(previous)
            raise
    return await _anew(call, asked, await previous.history(call.context, MAX_HISTORY))


def _is_newest(previous: Found) -> bool:
    return epochs_in(previous.chat["metadata"])[-1:] == [previous.name.epoch]


def _has_bot(call: ResponseCall, previous: Found, bot_id: str) -> bool:
    return call.context.resources.settings.bots.get(previous.response.note.model) == bot_id


def _refuse_if_it_waits(previous: Found) -> None:
    calls = tool_calls_of(previous.chat) if previous.chat["status"] == "requires_action" else []
    if calls:
        ids = ", ".join(call["id"] for call in calls)
        raise invalid("input", f"No tool output found for function call {ids}.")


async def _in_conversation(call: ResponseCall, asked: _Asked, conversation: str) -> StartedResponse:
    session_id = session_of(conversation)
    try:
        if session_id is None:
            _no_conversation()
        sessions, identity = call.context.resources.sessions, call.context.identity
        session: Any = await sessions.get(identity, session_id, 0, touch=False)
        if session["context"]["bot_id"] != asked.bot_id:
            raise invalid("model", "the conversation is held with another one")
        return await _in_session(call, asked, session_id, after=ANY_CHAT, told=False, called=None)
    except (SessionNotFound, SessionExpired, SessionTerminated):
        _no_conversation()


def _no_conversation() -> NoReturn:
    details = {"param": "conversation", "openai_code": "conversation_not_found"}
    raise ConversationNotFound("No conversation has this id; responses tell theirs", details=details)


def _question(call: ResponseCall, asked: _Asked, earlier: list[Item], *, told: bool) -> Question:
    """``earlier``: items of responses before; in a conversation that goes on, the calls that may be answered
    here. ``told``: the bot has the instructions already."""
    body, messages = call.body, list[DialogMessage]()
    if body.instructions and not told:
        messages.append(DialogMessage(role="system", content=body.instructions))
    messages += dialog_messages(earlier)
    before = len(messages)
    request = as_chat_request(body.model, body.text, body.tool_choice, body.tools)
    settings, form = call.context.resources.settings, asked.form
    with _in_their_words(before):
        question = question_of(
            request.model_copy(update={"messages": messages + asked.messages}),
            settings.max_file_bytes,
            MAX_HISTORY - (form is not None),
        )
    if form is not None:
        question.history.append(Turn("user", form.instruction))
    return question


async def _in_session(
    call: ResponseCall, asked: _Asked, session_id: str, *, after: str, told: bool, called: Found | None
) -> StartedResponse:
    who = asker_of(call.context, call.body.user, asked.bot_id)
    output = await called.output(work_of(call.context)) if called is not None else []
    calls = [item for item in output if "call_id" in item]
    question = await call.work(_question, call, asked, calls, told=told)
    message = await _message(call, asked, question, who.user_id, session_id)
    sending = await _sending(call, who.user_id, asked.note, after)
    started = await call.context.resources.chats.send(call.context.identity, session_id, message, sending)
    return await _begun(call, started, asked.note)


async def _anew(call: ResponseCall, asked: _Asked, history: list[Item]) -> StartedResponse:
    """A conversation of its own."""
    who = asker_of(call.context, call.body.user, asked.bot_id)
    question = await call.work(_question, call, asked, history, told=False)
    message = await _message(call, asked, question, who.user_id, None)
    started = await call.context.resources.chats.send_single(
        call.context.identity,
        who,
        message,
        await _sending(call, who.user_id, asked.note),
        lasting=call.background,
    )
    return await _begun(call, started, asked.note)


async def _sending(call: ResponseCall, user_id: str, note: Note, after: str = "") -> Sending:
    return Sending(
        request_id=call.context.request_id,
        idempotency_key=await call.work(idempotency_of, call.idempotency_key, call.body, user_id),
        max_length=call.context.resources.settings.openai_max_message_length,
        after=after,
        notes=note_as_metadata(note),
    )


async def _message(
    call: ResponseCall, asked: _Asked, question: Question, user_id: str, session_id: str | None
) -> SendMessage:
    """Enters what is kept of the input into the note, too."""
    meta_data = {name: text for name, text in (call.body.metadata or {}).items() if text} or None
    with _in_their_words(0):
        uploads: Uploads = await uploaded(call.context, question, user_id=user_id, session_id=session_id)
        return await call.work(_entered, asked, question, uploads, meta_data)


def _entered(
    asked: _Asked, question: Question, uploads: Uploads, meta_data: dict[str, str] | None
) -> SendMessage:
    if asked.note.store:
        asked.note.input = kept_items(asked.items, uploads)
    return message_of(question, uploads, meta_data)


async def _begun(call: ResponseCall, started: Started, note: Note) -> StartedResponse:
    keyed = call.idempotency_key is not None
    bound = not (call.background or keyed)
    return await _started(
        call, started, Name(started.chat_id), note, connection_bound=bound, repeatable=keyed
    )


async def _started(
    call: ResponseCall,
    started: Started,
    name: Name,
    note: Note,
    *,
    connection_bound: bool,
    repeatable: bool,
) -> StartedResponse:
    """A repeated call may lead to what began otherwise: what was noted then counts."""
    found = await call.context.resources.chats.result(call.context.identity, name.chat_id, 0)
    chat = orjson.loads(found.record)
    noted = note_in(chat["metadata"], name.epoch) or note
    response = Response(name, noted, chat["session_id"])
    return StartedResponse(
        call.context,
        started,
        response.packed(),
        chat,
        call.background,
        connection_bound,
        repeatable or call.background,
    )
