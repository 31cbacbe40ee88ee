"""What was used: chats and tokens."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.exceptions import RateLimited
from app.http.dependencies import ContextDep
from app.http.direct import DirectRoute
from app.http.openapi import errors
from app.models.answers import UsageReport
from app.models.envelope import SuccessEnvelope
from app.models.faults import DATE_PATTERN, GROUPS_PATTERN
from app.routes.answers import success

router = APIRouter(prefix="/coze/usage", tags=["usage"], route_class=DirectRoute)

SinceQuery = Annotated[
    str, Query(alias="from", pattern=DATE_PATTERN, description="UTC; by default 30 days back")
]
ToQuery = Annotated[str, Query(pattern=DATE_PATTERN, description="UTC, inclusive; by default today")]
GroupByQuery = Annotated[str, Query(pattern=GROUPS_PATTERN, description="With commas: day,bot,user,root")]


@router.get(
    "",
    summary="Chats and tokens of the caller, an admin's of the root",
    response_model=SuccessEnvelope[UsageReport],
    responses=errors(RateLimited),
)
async def get_usage(
    context: ContextDep, since: SinceQuery = "", to: ToQuery = "", group_by: GroupByQuery = "day"
) -> Response:
    """Each chat counts on the day (UTC) on which it ended, with the tokens that Coze told."""
    report = await context.resources.usage.report(context.identity, since, to, group_by)
    return success(report, message=f"{len(report['rows'])} rows")
