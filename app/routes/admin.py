"""For administrators: the service's numbers, and cleaning up."""

from fastapi import APIRouter, Response

from app import __version__
from app.dependencies import IdentityDep, ResourcesDep, UsersDep
from app.exceptions import AuthForbidden
from app.models import CleanedUp, Stats, SuccessEnvelope
from app.openapi import errors
from app.routes.answers import success

router = APIRouter(prefix="/coze/admin", tags=["admin"])


@router.get(
    "/stats",
    summary="Sessions, users, chats, leases, memory",
    response_model=SuccessEnvelope[Stats],
    responses=errors(AuthForbidden),
)
async def stats(identity: IdentityDep, users: UsersDep, resources: ResourcesDep) -> Response:
    numbers = await users.stats(identity)
    numbers |= {"version": __version__, "uptime_seconds": resources.uptime}
    return success(numbers, message="stats")


@router.post(
    "/cleanup",
    summary="Remove expired and orphaned index entries and inactive sessions; repeat while `more`",
    response_model=SuccessEnvelope[CleanedUp],
    responses=errors(AuthForbidden),
)
async def clean_up(identity: IdentityDep, users: UsersDep) -> Response:
    return success(await users.clean_up(identity), message="cleaned up")
