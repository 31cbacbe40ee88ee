"""The application: ``create_app``, and ``app`` for uvicorn. Importing it reads no environment."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, Final

from fastapi import FastAPI
from loguru import logger

from app import __version__
from app.config import Settings, SettingsError, load_settings
from app.error_handlers import add_error_handlers
from app.exceptions import RedisUnavailable
from app.factory import api_keys, auth_options, open_resources
from app.logging_config import configure_logging
from app.middleware import Cors, RequestContext
from app.openai_door import routes as openai_door
from app.openapi import add_openapi
from app.routes import (
    admin,
    chats,
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

_LAST_SECONDS: Final = 5
"""After a second signal: what is not over by then is cut off by the system."""


def _say_how_it_runs(settings: Settings) -> None:
    logger.info("coze-fastapi {} starts: {} -> {}", __version__, settings.app_mode, settings.chat_url)
    if not settings.enable_auth:
        logger.warning("ENABLE_AUTH=false: everyone who reaches this port is an administrator")
    if settings.embedded_redis:
        logger.warning("REDIS_URL=memory://: sessions and chats live in this process alone and die with it")


def _chain_signals(drain: Callable[[], Any]) -> None:
    """Lets us drain before uvicorn stops listening.

    uvicorn stops listening at once and runs the lifespan's shutdown only after the last open stream has
    ended. So its handler is kept, ours runs first, and its turn comes when we have drained. A second signal
    reaches it at once, waits for no chat, and sets an alarm that ends the process whatever hangs; a third
    one is not handled at all.
    """
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def chain(number: int) -> None:
        original = signal.getsignal(number)
        if not callable(original):
            return

        def handle(received: int, frame: FrameType | None) -> None:
            told.append(received)

            def hand_on(_: object) -> None:
                original(received, frame)

            def start() -> None:
                draining = asyncio.ensure_future(drain())
                if len(told) == 1:
                    draining.add_done_callback(hand_on)

            loop.call_soon_threadsafe(start)
            if len(told) > 1:
                signal.alarm(_LAST_SECONDS)
                signal.signal(number, signal.SIG_DFL)
                original(received, frame)

        signal.signal(number, handle)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            chain(number)
        except ValueError:  # not in the main thread, as in tests: whoever runs us there drains us
            return


def create_app(settings: Settings | None = None) -> FastAPI:
    """An app of its own: two may live in one process. Without ``settings`` the lifespan reads them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            chosen = settings or load_settings()
            api_keys(chosen)
            auth_options(chosen)  # what only the verifier can tell is told at once, too
        except (SettingsError, ValueError) as exc:
            logger.error("{}", exc)
            raise SystemExit(78) from None
        configure_logging(**chosen.logging)
        _say_how_it_runs(chosen)
        async with open_resources(chosen) as resources:
            app.state.resources = resources
            if not await resources.redis.ping():
                logger.warning("{}", RedisUnavailable.default_message)
            _chain_signals(resources.shutdown.drain)
            # What lives as long as the process need not be looked at by every collection, and a collection
            # for each few hundred objects would stop hundreds of streams for tens of milliseconds.
            gc.freeze()
            gc.set_threshold(10_000, 10, 10)
            yield
            await resources.shutdown.drain()

    app = FastAPI(
        title="coze-fastapi",
        version=__version__,
        description="Sessions and chats with Coze (扣子) bots: streamed, resumable, never lost.",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours: app.tracing, app.metrics
    )
    # The busiest first: routes are tried in this order. Put in directly, since including a router makes each
    # request look for its route twice.
    for module in (messages, chats, sessions, health, metrics, files, users, usage, admin, docs, playground):
        app.router.routes.extend(module.router.routes)
    app.router.routes.extend(openai_door.router.routes)
    app.add_middleware(Cors)
    app.add_middleware(RequestContext)
    add_error_handlers(app)
    add_openapi(app)
    return app


app = create_app()
