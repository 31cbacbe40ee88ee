"""Sessions: open, look at, end, and page through their chats."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from app.dependencies import (
    ConversationsDep,
    IdempotencyKeyDep,
    IdentityDep,
    SessionsDep,
    json_body,
    resources_of,
)
from app.exceptions import (
    BodyTooLarge,
    ConversationNotFound,
    CozeApiError,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    IdempotencyKeyReused,
    RateLimited,
    SessionBusy,
    SessionExpired,
    SessionLimitReached,
    SessionNotFound,
    SessionTerminated,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models import ChatPage, ClearedContext, CreateSession, HistoryPage, Session, SuccessEnvelope
from app.openapi import body_of, errors
from app.routes.answers import success

router = APIRouter(prefix="/coze/sessions", tags=["sessions"])
_FROM_COZE = (ConversationNotFound, CozeRateLimited, CozeApiError, CozeQuotaExhausted, CozeTimeout)
_MessageId = Query(pattern=r"^([1-9][0-9]{0,31})?$", description="A message_id of the page before")
_GONE = (SessionNotFound, SessionTerminated, SessionExpired)


@router.post(
    "",
    summary="Open a session",
    response_model=SuccessEnvelope[Session],
    responses=errors(
        ValidationFailed,
        ConversationNotFound,
        BodyTooLarge,
        UnsupportedMediaType,
        IdempotencyKeyReused,
        RateLimited,
        SessionLimitReached,
        ShuttingDown,
    ),
    openapi_extra=body_of(CreateSession),
)
async def create_session(
    request: Request,
    identity: IdentityDep,
    idempotency_key: IdempotencyKeyDep,
    body: Annotated[CreateSession, Depends(json_body(CreateSession))],
) -> Response:
    session = await resources_of(request).sessions.create(identity, body, idempotency_key)
    return success(session, message="session created")


@router.get(
    "/{session_id}",
    summary="A session with its newest chats",
    response_model=SuccessEnvelope[Session],
    responses=errors(ValidationFailed, *_GONE),
)
async def get_session(
    session_id: str,
    request: Request,
    identity: IdentityDep,
    history_limit: Annotated[int, Query(ge=0, le=100)] = 20,
) -> Response:
    session = await resources_of(request).sessions.get(identity, session_id, history_limit)
    return success(session, message="session found")


@router.delete(
    "/{session_id}",
    summary="End a session; a running chat is cancelled",
    response_model=SuccessEnvelope[Session],
    responses=errors(SessionNotFound, SessionExpired),
)
async def end_session(session_id: str, identity: IdentityDep, sessions: SessionsDep) -> Response:
    return success(await sessions.end(identity, session_id), message="session terminated")


@router.get(
    "/{session_id}/chats",
    summary="Page through a session's chats, newest first",
    response_model=SuccessEnvelope[ChatPage],
    responses=errors(ValidationFailed, *_GONE),
)
async def list_chats(
    session_id: str,
    identity: IdentityDep,
    sessions: SessionsDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str, Query(max_length=100, description="chat_id that ended the last page")] = "",
) -> Response:
    records, has_more = await sessions.chats(identity, session_id, limit=limit, before=before)
    last = orjson.loads(records[-1])["chat_id"] if has_more else None
    page = {"chats": [orjson.Fragment(r) for r in records], "has_more": has_more, "next_before": last}
    return success(page, message=f"{len(records)} chats")


@router.get(
    "/{session_id}/history",
    summary="Page through the conversation's messages as Coze keeps them",
    response_model=SuccessEnvelope[HistoryPage],
    responses=errors(ValidationFailed, *_GONE, *_FROM_COZE),
)
async def history(
    session_id: str,
    identity: IdentityDep,
    conversations: ConversationsDep,
    limit: Annotated[int, Query(ge=1, le=50)] = 20,
    order: Annotated[Literal["desc", "asc"], Query(description="desc: newest first")] = "desc",
    before: Annotated[str, _MessageId] = "",
    after: Annotated[str, _MessageId] = "",
) -> Response:
    page, logid = await conversations.history(
        identity, session_id, limit=limit, order=order, before=before, after=after
    )
    return success(page, message=f"{len(page['messages'])} messages", logid=logid)


@router.post(
    "/{session_id}/clear",
    summary="Start a new context: the bot forgets what was said, the messages stay",
    response_model=SuccessEnvelope[ClearedContext],
    responses=errors(*_GONE, SessionBusy, *_FROM_COZE),
)
async def clear(session_id: str, identity: IdentityDep, conversations: ConversationsDep) -> Response:
    cleared, logid = await conversations.clear(identity, session_id)
    return success(cleared, message="context cleared", logid=logid)
