"""For administrators: the service's numbers, and cleaning up."""

from fastapi import APIRouter, Response

from app import __version__
from app.exceptions import AuthForbidden
from app.http.dependencies import ContextDep
from app.http.openapi import errors
from app.models import CleanedUp, Stats, SuccessEnvelope
from app.routes.answers import success

router = APIRouter(prefix="/coze/admin", tags=["admin"])


@router.get(
    "/stats",
    summary="Sessions, users, chats, leases, memory",
    response_model=SuccessEnvelope[Stats],
    responses=errors(AuthForbidden),
)
async def get_stats(context: ContextDep) -> Response:
    """Counts of the whole service, and the states of the process that answers. No ids, no values of
    credentials."""
    numbers = await context.resources.users.stats(context.identity)
    numbers |= {"version": __version__, "uptime_seconds": context.resources.uptime}
    return success(numbers, message="stats")


@router.post(
    "/cleanup",
    summary="Remove expired and orphaned index entries and inactive sessions",
    response_model=SuccessEnvelope[CleanedUp],
    responses=errors(AuthForbidden),
)
async def clean_up(context: ContextDep) -> Response:
    """Removes a bounded number of each; call it again while the answer says `more`."""
    return success(await context.resources.users.clean_up(context.identity), message="cleaned up")
