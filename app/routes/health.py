"""Is the process up, and would it take traffic. No authentication, and Coze is never called."""

from fastapi import APIRouter, Response

from app import __version__
from app.exceptions import RedisUnavailable, ShuttingDown
from app.http.dependencies import ResourcesDep
from app.http.direct import DirectRoute
from app.http.openapi import only_errors
from app.models.answers import Health, Liveness, Readiness, ServiceInfo
from app.models.envelope import PlainEnvelope, plain_json

router = APIRouter(tags=["health"], route_class=DirectRoute)


def _answer(data: dict[str, object]) -> Response:
    return Response(plain_json(data), media_type="application/json")


@router.get("/", summary="Service, version, status", response_model=ServiceInfo)
async def get_service() -> dict[str, str]:
    """What is listening here, and its version."""
    return {"service": "coze-fastapi", "version": __version__, "status": "running"}


@router.get(
    "/coze/health",
    summary="Whether the service is healthy",
    response_model=PlainEnvelope[Health],
    responses=only_errors(RedisUnavailable),
)
async def get_health(resources: ResourcesDep) -> Response:
    """503 when Redis would refuse a message."""
    if not await resources.redis_works():
        raise RedisUnavailable(
            details={"status": "unhealthy", "service": "coze-api", "redis": "disconnected"}
        )
    return _answer(
        {
            "status": "healthy",
            "service": "coze-api",
            "version": __version__,
            "redis": "connected",
            "redis_mode": "memory" if resources.settings.embedded_redis else "server",
            "running_chats": resources.chats.running,
            "uptime_seconds": resources.uptime,
        }
    )


@router.get("/coze/health/live", summary="Whether the process is up", response_model=PlainEnvelope[Liveness])
async def get_liveness() -> Response:
    """For an orchestrator: a process that does not answer is to be restarted."""
    return _answer({"status": "alive", "service": "coze-api"})


@router.get(
    "/coze/health/ready",
    summary="Whether the process would take traffic",
    response_model=PlainEnvelope[Readiness],
    responses=only_errors(RedisUnavailable, ShuttingDown),
)
async def get_readiness(resources: ResourcesDep) -> Response:
    """For a load balancer: 503 when Redis would refuse a message, and while the process ends."""
    if resources.shutdown.begun:
        raise ShuttingDown
    if not await resources.redis_works():
        raise RedisUnavailable
    return _answer({"status": "ready", "service": "coze-api"})
