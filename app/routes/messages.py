"""Messages: what a session's user says, answered whole or as a stream."""

from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import APIRouter, Response

from app.exceptions import BEGINS_ONCE, COZE, SESSION, ChatExpired, FileNotFound, QuotaExceeded, SessionBusy
from app.http.dependencies import ContextDep, IdempotencyKeyHeader, Patience, PatienceDep, RequestContext
from app.http.openapi import JsonBody, chat_answers, errors
from app.http.raw_path import RawPathRoute
from app.models.bodies import SendMessage
from app.models.chats import Chat
from app.models.envelope import SuccessEnvelope
from app.routes.answers import chat_answer, stream
from app.tasks.chats import Sending, Started

router = APIRouter(prefix="/coze/sessions", tags=["messages"], route_class=RawPathRoute)


@router.post(
    "/{session_id}/messages",
    summary="Send a message",
    response_model=SuccessEnvelope[Chat],
    responses=chat_answers()
    | errors(*(*BEGINS_ONCE, *SESSION, *COZE), ChatExpired, SessionBusy, FileNotFound, QuotaExceeded),
    openapi_extra=JsonBody(SendMessage),
)
async def send_message(
    session_id: str,
    context: ContextDep,
    patience: PatienceDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Waits for the whole answer, for COZE_TIMEOUT or as long as `Prefer` says; when that is over it is a
    202, and the chat goes on. With `stream` the answer comes as events, which can be resumed. With an
    `Idempotency-Key` the same call leads to the same chat."""
    body = await context.json(SendMessage)
    sending = Sending(request_id=context.request_id, idempotency_key=idempotency_key)
    answering = begun(
        context,
        patience,
        partial(context.resources.chats.send, context.identity, session_id, body, sending),
        streamed=body.stream,
    )
    del body  # else it stays until the answer is over
    return await answering


async def begun(
    context: RequestContext, patience: Patience, begin: Callable[[], Awaitable[Started]], *, streamed: bool
) -> Response:
    """Begins a chat, or goes on with one, and answers with its events, or as it stands when the wait is
    over. Its place is taken before: a refusal behind the beginning comes too late. ``begin``, and with it
    what was asked, is let go of as soon as the chat is there."""
    chats, identity = context.resources.chats, context.identity
    lasts = streamed or patience.seconds > 0
    with context.resources.streams.taken_if(lasts, identity.owner) as place:
        started = await begin()
        del begin
        context.began(started.chat_id)
        if streamed and place is not None:
            return stream(context, chats.read(identity, started), started.chat_id, place)
        found = await chats.answer(identity, started.chat_id, patience.seconds, place)
    return chat_answer(found, patience.headers)
