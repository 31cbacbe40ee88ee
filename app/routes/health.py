"""Is the process up, and would it take traffic. No authentication, and Coze is never called."""

from fastapi import APIRouter, Response

from app import __version__
from app.dependencies import Resources, ResourcesDep
from app.exceptions import RedisUnavailable, ShuttingDown
from app.models import plain_json
from app.openapi import plain_errors

router = APIRouter(tags=["health"])


def _state(resources: Resources, *, connected: bool) -> dict[str, object]:
    return {
        "status": "healthy",
        "service": "coze-api",
        "version": __version__,
        "redis": "connected" if connected else "disconnected",
        "redis_mode": "memory" if resources.settings.embedded_redis else "server",
        "running_chats": resources.chats.running,
        "uptime_seconds": resources.uptime,
    }


@router.get("/", summary="Service, version, status")
async def root() -> dict[str, str]:
    return {"service": "coze-fastapi", "version": __version__, "status": "running"}


@router.get("/coze/health", summary="Healthy?", responses=plain_errors(RedisUnavailable))
async def health(resources: ResourcesDep) -> Response:
    if not await resources.redis.ping():
        raise RedisUnavailable(
            details={"status": "unhealthy", "service": "coze-api", "redis": "disconnected"}
        )
    return Response(plain_json(_state(resources, connected=True)), media_type="application/json")


@router.get("/coze/health/live", summary="The process is up")
async def live(resources: ResourcesDep) -> Response:
    return Response(plain_json({"status": "alive", "service": "coze-api"}), media_type="application/json")


@router.get(
    "/coze/health/ready", summary="Would take traffic", responses=plain_errors(RedisUnavailable, ShuttingDown)
)
async def ready(resources: ResourcesDep) -> Response:
    if resources.shutdown.begun:
        raise ShuttingDown
    if not await resources.redis.ping():
        raise RedisUnavailable
    return Response(plain_json({"status": "ready", "service": "coze-api"}), media_type="application/json")
