"""Sessions: open, look at, end, and page through their chats."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Response

from app.exceptions import (
    BEGINS_ONCE,
    COZE,
    SESSION,
    BodyTooLarge,
    ConversationNotFound,
    RateLimited,
    SessionBusy,
    SessionExpired,
    SessionLimitReached,
    SessionNotFound,
    SessionTerminated,
    UnsupportedMediaType,
)
from app.http.dependencies import ContextDep, IdempotencyKeyHeader
from app.http.openapi import JsonBody, errors
from app.http.raw_path import RawPathRoute
from app.models.answers import ChatPage, ClearedContext, HistoryPage, Session
from app.models.bodies import CreateSession, UpdateSession
from app.models.envelope import SuccessEnvelope
from app.models.faults import MESSAGE_ID_PATTERN
from app.routes.answers import success

router = APIRouter(prefix="/coze/sessions", tags=["sessions"], route_class=RawPathRoute)
_MessageId = Query(pattern=MESSAGE_ID_PATTERN, description="A message_id of the page before")


@router.post(
    "",
    summary="Open a session",
    response_model=SuccessEnvelope[Session],
    responses=errors(*BEGINS_ONCE, ConversationNotFound, SessionLimitReached, SessionTerminated),
    openapi_extra=JsonBody(CreateSession),
)
async def create_session(context: ContextDep, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Coze's conversation behind it is made in the background. Where the user has too many sessions, the one
    that is idle for longest makes room."""
    body = await context.json(CreateSession)
    session = await context.resources.sessions.create(context.identity, body, idempotency_key)
    return success(session, message="session created")


@router.get(
    "/{session_id}",
    summary="A session with its newest chats",
    response_model=SuccessEnvelope[Session],
    responses=errors(*SESSION),
)
async def get_session(
    session_id: str,
    context: ContextDep,
    history_limit: Annotated[int, Query(ge=0, le=100, description="How many chats")] = 20,
) -> Response:
    """Looking at a session extends its life."""
    session = await context.resources.sessions.get(
        context.identity, session_id, history_limit, touch=not context.is_head
    )
    return success(session, message="session found")


@router.patch(
    "/{session_id}",
    summary="Rename a session, or replace its metadata",
    response_model=SuccessEnvelope[Session],
    responses=errors(BodyTooLarge, UnsupportedMediaType, *SESSION),
    openapi_extra=JsonBody(UpdateSession),
)
async def update_session(session_id: str, context: ContextDep) -> Response:
    body = await context.json(UpdateSession)
    session = await context.resources.sessions.change(context.identity, session_id, body)
    return success(session, message="session changed")


@router.delete(
    "/{session_id}",
    summary="End a session; a running chat is cancelled",
    response_model=SuccessEnvelope[Session],
    responses=errors(SessionNotFound, SessionExpired),
)
async def end_session(session_id: str, context: ContextDep) -> Response:
    """Its chats that run or wait are cancelled. A second call returns the same."""
    session = await context.resources.sessions.end(context.identity, session_id)
    return success(session, message="session terminated")


@router.get(
    "/{session_id}/chats",
    summary="Page through a session's chats, newest first",
    response_model=SuccessEnvelope[ChatPage],
    responses=errors(*SESSION),
)
async def list_chats(
    session_id: str,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many chats")] = 20,
    before: Annotated[str, Query(max_length=100, description="chat_id that ended the last page")] = "",
) -> Response:
    """A session keeps its newest 100 chats."""
    records, has_more = await context.resources.sessions.chats(
        context.identity, session_id, limit=limit, before=before
    )
    last = orjson.loads(records[-1])["chat_id"] if has_more else None
    page = {"chats": [orjson.Fragment(r) for r in records], "has_more": has_more, "next_before": last}
    return success(page, message=f"{len(records)} chats")


@router.get(
    "/{session_id}/history",
    summary="Page through the conversation's messages as Coze keeps them",
    response_model=SuccessEnvelope[HistoryPage],
    responses=errors(*SESSION, *COZE, ConversationNotFound, RateLimited),
)
async def get_history(
    session_id: str,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=50, description="How many messages")] = 20,
    order: Annotated[Literal["desc", "asc"], Query(description="desc: newest first")] = "desc",
    before: Annotated[str, _MessageId] = "",
    after: Annotated[str, _MessageId] = "",
) -> Response:
    """Questions and answers, also of chats that the session does not keep any more. `before` and `after`
    exclude one another."""
    if context.is_head:  # neither Coze nor the session's life is a matter of headers
        await context.resources.sessions.get(context.identity, session_id, 0, touch=False)
        return success({}, message="history")
    page, logid = await context.resources.conversations.history(
        context.identity, session_id, limit=limit, order=order, before=before, after=after
    )
    return success(page, message=f"{len(page['messages'])} messages", logid=logid)


@router.post(
    "/{session_id}/clear",
    summary="Start a new context: the bot forgets what was said, the messages stay",
    response_model=SuccessEnvelope[ClearedContext],
    responses=errors(*SESSION, *COZE, ConversationNotFound, SessionBusy, RateLimited),
)
async def clear_context(session_id: str, context: ContextDep) -> Response:
    """A session with a chat under way is not cleared. Without a conversation yet, nothing is done."""
    cleared, logid = await context.resources.conversations.clear(context.identity, session_id)
    return success(cleared, message="context cleared", logid=logid)
