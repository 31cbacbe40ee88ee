"""Messages: what a session's user says, answered whole or as a stream."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.dependencies import (
    IdempotencyKeyDep,
    IdentityDep,
    PatienceDep,
    json_body,
    request_id_of,
    resources_of,
)
from app.exceptions import (
    BodyTooLarge,
    ChatExpired,
    CozeApiError,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    FileNotFound,
    IdempotencyKeyReused,
    QuotaExceeded,
    RateLimited,
    SessionBusy,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models import Chat, SendMessage, SuccessEnvelope
from app.openapi import body_of, chat_answers, errors
from app.routes.answers import chat_answer
from app.routes.streams import stream

router = APIRouter(prefix="/coze/sessions", tags=["messages"])


@router.post(
    "/{session_id}/messages",
    summary="Send a message",
    response_model=SuccessEnvelope[Chat],
    responses={
        **chat_answers(),
        **errors(
            *(ValidationFailed, BodyTooLarge, UnsupportedMediaType, IdempotencyKeyReused),
            *(SessionNotFound, SessionTerminated, SessionExpired, ChatExpired, SessionBusy, ShuttingDown),
            FileNotFound,
            *(RateLimited, QuotaExceeded, CozeRateLimited, CozeApiError, CozeQuotaExhausted, CozeTimeout),
        ),
    },
    openapi_extra=body_of(SendMessage),
)
async def send_message(
    session_id: str,
    request: Request,
    identity: IdentityDep,
    patience: PatienceDep,
    idempotency_key: IdempotencyKeyDep,
    body: Annotated[SendMessage, Depends(json_body(SendMessage))],
) -> Response:
    resources = resources_of(request)
    chats = resources.chats
    if body.stream:
        resources.streams.check(identity.owner)
    started = await chats.send(
        identity, session_id, body, request_id=request_id_of(request), idempotency_key=idempotency_key
    )
    if body.stream:
        return stream(chats.read(identity, started), started.chat_id, identity, resources)
    return chat_answer(await chats.answer(identity, started.chat_id, patience.seconds), patience.headers)
