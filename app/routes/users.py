"""Users: their live sessions, and erasing what is kept of them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.exceptions import RateLimited
from app.http.dependencies import ContextDep, OpenAIContextDep
from app.http.openapi import errors
from app.http.raw_path import RawPathRoute
from app.models import USER_ID_PATTERN, Erased, SessionList, SuccessEnvelope
from app.routes.answers import success

router = APIRouter(prefix="/coze/users", tags=["users"], route_class=RawPathRoute)

UserIdPath = Annotated[str, Path(min_length=1, max_length=128, pattern=USER_ID_PATTERN)]


@router.get(
    "/{user_id}/sessions",
    summary="The user's live sessions, newest activity first",
    response_model=SuccessEnvelope[SessionList],
    responses=errors(),
)
async def list_sessions(
    user_id: UserIdPath,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many sessions")] = 100,
) -> Response:
    """The caller's own user of that name; for an admin, all users of that name in the root domain."""
    sessions = await context.resources.users.sessions(context.identity, user_id, limit)
    return success({"sessions": sessions}, message=f"{len(sessions)} sessions")


@router.delete(
    "/{user_id}",
    summary="Erase what is kept of a user",
    response_model=SuccessEnvelope[Erased],
    responses=errors(RateLimited),
)
async def erase_user(user_id: UserIdPath, context: OpenAIContextDep) -> Response:
    """Cancels what runs, deletes sessions, chats, logs and keys, and asks Coze to clear the conversations. A
    bounded number of sessions at a time: call it again while `remaining_sessions` is above zero."""
    erased = await context.resources.users.erase(context.identity, user_id)
    return success(erased, message=f"{erased['erased_sessions']} sessions erased")
