"""A question of OpenAI's clients as a message of ours, and how a chat's answer ends for who waits for it."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from app.doors.openai.chunks import refusal_of, unfinished
from app.doors.openai.dialog import Enclosed, Question, Turn, checked, invalid, too_long
from app.doors.openai.forms import Form, reading
from app.doors.openai.schema_work import Work
from app.exceptions import CozeTimeout, ServiceError, ShuttingDown, UnsupportedMediaType
from app.http.dependencies import RequestContext
from app.http.sse import Dialect, EventStream
from app.models import Identity
from app.models.bodies import Attachment, CreateSession, EnterMessage, FileType, SendMessage
from app.models.named_files import MAX_FILES
from app.tasks.chats import Started
from app.tasks.files import FileInMemory
from app.tasks.places import Place
from app.utils.stopping import end_tasks

PATIENCE: Final = 15.0
"""Seconds for which a stream's status waits for the answer's first word, so that a refusal has its own."""
_REPAIR_SECONDS: Final = 60.0
"""What a chat may take beyond COZE_CHAT_TIMEOUT until its end is written."""
Uploads = dict[bytes, tuple[str, FileType]]
"""By its bytes: id and type of a file."""


def asker_of(context: RequestContext, user: str | None, bot_id: str) -> CreateSession:
    """Who asks which bot; where the request names nobody: the person, the API key's name, or the root."""
    values = {"user_id": _user_of(context.identity, user), "bot_id": bot_id}
    return checked(CreateSession, values, "user")


def _user_of(identity: Identity, user: str | None) -> str:
    return user or identity.hty_id or identity.root.rpartition(":")[2]


def work_of(context: RequestContext) -> Work:
    """What a request has left for its callers' schemas, and the checks that there are."""
    return Work(context.resources.checks, context.resources.big_bodies, context.identity.owner)


async def make_checks(context: RequestContext, form: Form | None, user: str | None, *, begins: bool) -> None:
    """Of a request that comes, in whose ``form`` the answer is asked for.

    A chat is paid for when it is known to be taken, which these checks belong to. So where they are work, who
    has no token left is refused before; who is refused for his schemas has paid nothing.

    Args:
        user: whom the request names.
        begins: it begins a conversation, for which this user pays.

    Raises:
        ValidationFailed: a schema cannot be checked.
        RateLimited: no chat could begin.
    """
    if form is None:
        return
    if not form.is_soon_made:
        payer = _user_of(context.identity, user) if begins else None
        await context.resources.chats.refuse_if_spent(context.identity, payer)
    await reading(form, form.make)


async def uploaded(
    context: RequestContext, question: Question, *, user_id: str, session_id: str | None
) -> Uploads:
    """What came inside the request goes to Coze as files. ``session_id``: of the session whose identity at
    Coze they have to belong to. Raises ``ValidationFailed``, and what uploading raises."""
    longest = context.resources.settings.openai_max_message_length
    if len(question.asked.text) > longest:
        most = f"{longest} characters (COZE_OPENAI_MAX_MESSAGE_LENGTH)"
        raise too_long("messages", f"the last one has at most {most}, {len(question.asked.text)} given")
    enclosed = [each for turn in (question.asked, *question.history) for each in turn.enclosed]
    if len(enclosed) > MAX_FILES:
        raise invalid(
            "messages", f"at most {MAX_FILES} images and files in one request, {len(enclosed)} given"
        )
    data = {each.data: each.name for each in enclosed if each.data}
    if not data:
        return {}
    files = [FileInMemory(name, content) for content, name in data.items()]
    try:
        records = await context.resources.files.enclosed(
            context.identity, files, session_id=session_id, user_id=user_id
        )
    except UnsupportedMediaType as error:  # the request itself is JSON, as it should be
        raise invalid("messages", error.message) from None
    return {file.data: (record.file_id, record.type) for file, record in zip(files, records, strict=True)}


def message_of(question: Question, uploads: Uploads, meta_data: dict[str, str] | None) -> SendMessage:
    """Raises ``ValidationFailed``."""
    return checked(
        SendMessage,
        {
            "message": question.asked.text,
            "attachments": [_attachment(each, uploads) for each in question.asked.enclosed] or None,
            "additional_messages": [_entered(turn, uploads) for turn in question.history],
            "meta_data": meta_data,
        },
        "messages",
    )


def _reference(enclosed: Enclosed, uploads: Uploads) -> dict[str, str]:
    if enclosed.url:
        return {"type": enclosed.type, "file_url": enclosed.url}
    file_id, kind = uploads.get(enclosed.data, (enclosed.file_id, enclosed.type))
    return {"type": kind, "file_id": file_id}


def _attachment(enclosed: Enclosed, uploads: Uploads) -> Attachment:
    return checked(Attachment, _reference(enclosed, uploads), "messages")


def _entered(turn: Turn, uploads: Uploads) -> EnterMessage:
    values: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.enclosed:
        items: list[dict[str, str]] = [{"type": "text", "text": turn.text}] if turn.text.strip() else []
        items += [_reference(each, uploads) for each in turn.enclosed]
        values |= {"content": orjson.dumps(items).decode(), "content_type": "object_string"}
    return checked(EnterMessage, values, "messages")


async def end_of(
    context: RequestContext, chat_id: str, place: Place | None, *, connection_bound: bool
) -> dict[str, Any]:
    """The chat once it is over, or as it is when there is no more time or this process leaves. Raises
    ``ClientDisconnect``; where nobody else can come back for the answer (``connection_bound``) the chat is
    cancelled then."""
    chats = context.resources.chats
    patience = context.resources.settings.chat_timeout + _REPAIR_SECONDS
    answer = asyncio.ensure_future(chats.answer(context.identity, chat_id, patience, place))
    gone = asyncio.ensure_future(_client_gone(context.request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            if connection_bound:
                chats.cancel_in_background(context.identity, chat_id)
            raise ClientDisconnect
        chat: dict[str, Any] = orjson.loads(answer.result().record)
        return chat
    finally:
        await end_tasks((answer, gone))


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def headers_of(chat: dict[str, Any]) -> dict[str, str]:
    """Of a whole answer."""
    logid = chat["metadata"].get("logid")
    return {"X-Coze-Chat-Id": chat["chat_id"]} | ({"X-Coze-Logid": logid} if logid else {})


def raise_unless_whole(context: RequestContext, chat: dict[str, Any], *, repeatable: bool) -> None:
    """Raises why the chat has no whole answer: it failed, was cancelled, or is not over and goes on without
    this call. ``repeatable``: the same call leads to this chat again."""
    error = refusal_of(chat)
    if error is None and chat["status"] in ("pending", "processing"):
        leaving = context.resources.shutdown.streams_end
        why: ServiceError = ShuttingDown() if leaving else CozeTimeout("The chat is not over yet")
        error = unfinished(why, repeatable=repeatable)
    if error is not None:
        error.headers["X-Coze-Chat-Id"] = chat["chat_id"]
        raise error


class _Finishing(Protocol):
    finished: bool


def closing(
    context: RequestContext, chat_id: str, place: Place, dialect: _Finishing, *, connection_bound: bool
) -> Callable[[], None]:
    """What is to be done when a stream's connection is gone. A client that leaves before we have ended the
    stream has pressed its stop button: what nobody can come back for (``connection_bound``) is cancelled."""
    give_back = place.keep()

    def close() -> None:
        give_back()
        if connection_bound and not dialect.finished:
            context.resources.chats.cancel_in_background(context.identity, chat_id)

    return close


def event_stream(
    context: RequestContext,
    started: Started,
    dialect: Dialect,
    on_close: Callable[[], None],
    *,
    patience: float,
) -> Response:
    """In background (without ``patience``) only what Redis has is told: nothing else outlives a process."""
    resources = context.resources
    return EventStream(
        resources.chats.read(context.identity, started, committed=not patience),
        chat_id=started.chat_id,
        heartbeat=resources.settings.heartbeat_seconds,
        shutdown=resources.shutdown,
        on_close=on_close,
        dialect=dialect,
        patience=patience,
    )
