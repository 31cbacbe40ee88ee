"""The application: ``create_app``, and ``app`` for ASGI servers. Importing it reads no environment."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from loguru import logger

from app import __version__
from app.config import Settings, load_settings
from app.doors.coze.errors import COZE_ERRORS
from app.doors.coze.routes import ROUTES as COZE_ROUTES
from app.doors.openai import routes as openai_door
from app.doors.openai.errors import OPENAI_ERRORS
from app.doors.openai.responses import routes as openai_responses
from app.error_handlers import add_error_handlers
from app.exceptions import RedisUnavailable
from app.factory import Resources, open_resources
from app.http.connections import bounds_of_a_server
from app.http.dependencies import known_caller
from app.http.direct import DirectApp
from app.http.document import add_openapi
from app.http.middleware import Cors, Refusals, RequestMiddleware
from app.http.open_door import OpenDoor
from app.http.turns import TURNS, Turns
from app.routes import (
    admin,
    bots,
    chats,
    console,
    docs,
    files,
    health,
    messages,
    metrics,
    playground,
    sessions,
    usage,
    users,
)


def create_app(
    settings: Settings | None = None, *, on_start: Callable[[Resources], None] = lambda _: None
) -> FastAPI:
    """An app of its own: two may live in one process, and it changes nothing in that.

    Args:
        settings: without them the lifespan reads the environment and ``.env``.
        on_start: called when everything is open, before the first request.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        chosen = settings or load_settings()
        _log_start(chosen)
        async with open_resources(chosen) as resources:
            app.state.resources = resources
            if not await resources.redis.works(thorough=True):
                logger.warning("{}", RedisUnavailable.default_message)
            on_start(resources)
            yield {TURNS: Turns(partial(known_caller, resources)), **bounds_of_a_server()}
            await resources.shutdown.drain()

    app = DirectApp(
        title="coze-fastapi",
        version=__version__,
        description="Sessions and chats with Coze (扣子) bots: streamed, resumable, never lost.",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # app.observing has ours
    )
    # Put in directly, since including a router makes each request look for its route twice.
    for module in (
        *(messages, chats, sessions, health, metrics, files, users, bots, usage, admin),
        *(docs, playground, console),
    ):
        app.router.routes.extend(module.router.routes)
    app.router.routes.extend([*openai_door.router.routes, *openai_responses.router.routes])
    app.router.routes.extend(COZE_ROUTES)
    for route in app.router.routes:
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods = {"GET", "HEAD"}  # RFC 9110, 9.1; the server leaves the body out
    app.add_middleware(Refusals)
    app.add_middleware(OpenDoor)
    app.add_middleware(Cors)
    app.add_middleware(RequestMiddleware)
    add_error_handlers(app, shapes=[OPENAI_ERRORS, COZE_ERRORS])
    add_openapi(app, shapes=[OPENAI_ERRORS, COZE_ERRORS])
    return app


def _log_start(settings: Settings) -> None:
    logger.info("coze-fastapi {} starts: {} -> {}", __version__, settings.app_mode, settings.chat_url)
    if not settings.enable_auth:
        logger.warning("ENABLE_AUTH=false: everyone who reaches this port is an administrator")
    if settings.embedded_redis:
        logger.warning("REDIS_URL=memory://: sessions and chats live in this process alone and die with it")


app = create_app()
