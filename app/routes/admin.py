"""For administrators: the service's numbers, and what is their own root's: failures, usage, sessions."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app import __version__
from app.exceptions import SESSION, AuthForbidden, ChatNotFound, RateLimited, SessionExpired, SessionNotFound
from app.http.dependencies import AdminContextDep
from app.http.openapi import errors
from app.http.raw_path import RawPathRoute
from app.models.answers import Erased, Session, UsageReport
from app.models.chats import Chat
from app.models.envelope import SuccessEnvelope
from app.models.operating import CleanedUp, FailureList, InspectedSession, Stats
from app.routes.answers import chat_as_it_stands, success
from app.routes.usage import GroupByQuery, SinceQuery, ToQuery
from app.routes.users import UserIdPath

router = APIRouter(prefix="/coze/admin", tags=["admin"], route_class=RawPathRoute)


@router.get(
    "/stats",
    summary="Sessions, users, chats, leases, memory, processes",
    response_model=SuccessEnvelope[Stats],
    responses=errors(AuthForbidden),
)
async def get_stats(context: AdminContextDep) -> Response:
    """Counts of the whole service; credentials as the process that answers knows them. No ids of sessions,
    chats or users, no values of credentials."""
    numbers = await context.resources.operators.stats()
    numbers |= {"version": __version__, "uptime_seconds": context.resources.uptime}
    return success(numbers, message="stats")


@router.post(
    "/cleanup",
    summary="Remove expired and orphaned index entries and inactive sessions",
    response_model=SuccessEnvelope[CleanedUp],
    responses=errors(AuthForbidden),
)
async def clean_up(context: AdminContextDep) -> Response:
    """Removes a bounded number of each; call it again while the answer says `more`."""
    return success(await context.resources.operators.clean_up(), message="cleaned up")


@router.get(
    "/failures",
    summary="The newest chats of the root that failed",
    response_model=SuccessEnvelope[FailureList],
    responses=errors(AuthForbidden),
)
async def list_failures(
    context: AdminContextDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most")] = 100,
) -> Response:
    """The 100 newest, for seven days; erasing a user takes his out. One may be missing where a process ended
    at that moment."""
    found = await context.resources.operators.failures(context.identity, limit)
    return success(found, message="failures")


@router.get(
    "/usage",
    summary="Chats and tokens of the root",
    response_model=SuccessEnvelope[UsageReport],
    responses=errors(AuthForbidden, RateLimited),
)
async def get_usage_of_root(
    context: AdminContextDep, since: SinceQuery = "", to: ToQuery = "", group_by: GroupByQuery = "day"
) -> Response:
    """What `GET /coze/usage` answers an admin."""
    report = await context.resources.usage.report(context.identity, since, to, group_by)
    return success(report, message=f"{len(report['rows'])} rows")


@router.get(
    "/sessions/{session_id}",
    summary="A session of the root, with its newest chats and until when they are kept",
    response_model=SuccessEnvelope[InspectedSession],
    responses=errors(AuthForbidden, *SESSION),
)
async def inspect_session(
    session_id: str,
    context: AdminContextDep,
    history_limit: Annotated[int, Query(ge=0, le=100, description="How many chats")] = 20,
) -> Response:
    """Looking does not extend its life."""
    session = await context.resources.sessions.inspect(context.identity, session_id, history_limit)
    return success(session, message="session found")


@router.delete(
    "/sessions/{session_id}",
    summary="End a session of the root; a running chat is cancelled",
    response_model=SuccessEnvelope[Session],
    responses=errors(AuthForbidden, SessionNotFound, SessionExpired),
)
async def end_session_of_root(session_id: str, context: AdminContextDep) -> Response:
    """As its owner ends it."""
    session = await context.resources.sessions.end(context.identity, session_id)
    return success(session, message="session terminated")


@router.post(
    "/chats/{chat_id}/cancel",
    summary="Cancel a chat of the root, here and at Coze",
    response_model=SuccessEnvelope[Chat],
    responses=errors(AuthForbidden, ChatNotFound),
)
async def cancel_chat_of_root(chat_id: str, context: AdminContextDep) -> Response:
    """As its owner cancels it."""
    chat = await context.resources.chats.cancel(context.identity, chat_id)
    return chat_as_it_stands(chat, asked_coze=True)


@router.delete(
    "/users/{user_id}",
    summary="Erase what is kept of all users of that name in the root",
    response_model=SuccessEnvelope[Erased],
    responses=errors(AuthForbidden, RateLimited),
)
async def erase_user_of_root(user_id: UserIdPath, context: AdminContextDep) -> Response:
    """What `DELETE /coze/users/{user_id}` does for an admin: call it again while `remaining_sessions` is
    above zero."""
    erased = await context.resources.users.erase(context.identity, user_id)
    return success(erased, message=f"{erased['erased_sessions']} sessions erased")
