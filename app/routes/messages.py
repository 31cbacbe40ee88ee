"""Messages: what a session's user says, answered whole or as a stream."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.dependencies import IdentityDep, PatienceDep, RequestIdDep, ResourcesDep, TasksDep, json_body
from app.exceptions import (
    BodyTooLarge,
    CozeApiError,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    SessionBusy,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models import Chat, Cursor, SendMessage, SuccessEnvelope
from app.openapi import body_of, errors
from app.routes.answers import chat_answer
from app.sse import EventStream

router = APIRouter(prefix="/coze/sessions", tags=["messages"])


@router.post(
    "/{session_id}/messages",
    summary="Send a message",
    response_model=SuccessEnvelope[Chat],
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        202: {"model": SuccessEnvelope[Chat], "description": "Still at work; see Location"},
        **errors(
            *(ValidationFailed, BodyTooLarge, UnsupportedMediaType),
            *(SessionNotFound, SessionTerminated, SessionExpired, SessionBusy, ShuttingDown),
            *(CozeRateLimited, CozeApiError, CozeQuotaExhausted, CozeTimeout),
        ),
    },
    openapi_extra=body_of(SendMessage),
)
async def send_message(
    session_id: str,
    identity: IdentityDep,
    tasks: TasksDep,
    resources: ResourcesDep,
    patience: PatienceDep,
    request_id: RequestIdDep,
    body: Annotated[SendMessage, Depends(json_body(SendMessage))],
) -> Response:
    chat_id = await tasks.send(identity, session_id, body, request_id)
    if body.stream:
        return EventStream(
            tasks.follow(chat_id, Cursor(1, 0)),
            chat_id=chat_id,
            heartbeat=resources.settings.heartbeat_seconds,
            farewell=tasks.draining,
        )
    return chat_answer(await tasks.answer(identity, chat_id, patience.seconds), patience.headers)
