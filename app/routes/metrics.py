"""For Prometheus. No authentication: it says how much there is, and of whom only the bots."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.http.dependencies import ResourcesDep
from app.http.direct import DirectRoute

router = APIRouter(tags=["health"], route_class=DirectRoute)


@router.get(
    "/coze/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    response_description="Metrics, in the text format of Prometheus or OpenMetrics",
)
async def get_metrics(request: Request, resources: ResourcesDep) -> Response:
    """How much there is, and of whom only the bots. Needs no authentication; made once in two seconds."""
    text, content_type = await resources.metrics_pages.get(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type})
