"""Is the process up, and would it take traffic. No authentication, and Coze is never called."""

from fastapi import APIRouter, Response

from app import __version__
from app.exceptions import RedisUnavailable, ShuttingDown
from app.http.dependencies import ResourcesDep
from app.http.openapi import only_errors
from app.models import plain_json

router = APIRouter(tags=["health"])


def _answer(data: dict[str, object]) -> Response:
    return Response(plain_json(data), media_type="application/json")


@router.get("/", summary="Service, version, status")
async def root() -> dict[str, str]:
    return {"service": "coze-fastapi", "version": __version__, "status": "running"}


@router.get("/coze/health", summary="Healthy?", responses=only_errors(RedisUnavailable))
async def health(resources: ResourcesDep) -> Response:
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


@router.get("/coze/health/live", summary="The process is up")
async def live() -> Response:
    return _answer({"status": "alive", "service": "coze-api"})


@router.get(
    "/coze/health/ready", summary="Would take traffic", responses=only_errors(RedisUnavailable, ShuttingDown)
)
async def ready(resources: ResourcesDep) -> Response:
    if resources.shutdown.begun:
        raise ShuttingDown
    if not await resources.redis_works():
        raise RedisUnavailable
    return _answer({"status": "ready", "service": "coze-api"})
