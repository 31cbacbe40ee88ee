"""A process that is all ours: its settings, logging, signals and garbage collection.

``python -m app`` runs this. Whoever imports ``app.main``, or mounts its app elsewhere, gets none of it.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final

from fastapi import FastAPI
from loguru import logger
from uvicorn.config import STARTUP_FAILURE

from app.config import Settings, load_settings, unknown_names
from app.factory import Resources, check_parts
from app.logging_config import configure_logging
from app.main import create_app
from app.setting_faults import SettingsError

_LAST_SECONDS: Final = 5
"""After a second signal: what is not over by then is cut off by the system."""


def build_app() -> FastAPI:
    """For ``uvicorn --factory``, which calls it in each worker: the app, and a process that is made for it.

    Raises:
        SystemExit: a setting is missing or wrong. The status tells uvicorn not to start the worker again.
    """
    try:
        settings = load_settings()
        check_parts(settings)
    except SettingsError as error:
        logger.error("{}", error)
        raise SystemExit(STARTUP_FAILURE) from None
    configure_logging(**settings.logging)
    _warn(settings)
    return create_app(settings, on_start=_prepare_process)


def _warn(settings: Settings) -> None:
    """Of what is set and has no effect."""
    for sentence in unknown_names():
        logger.warning("{}", sentence)
    unused = [
        name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if os.environ.get(name)
    ]
    if unused and settings.proxy is None:
        logger.warning("{} is not used: a proxy for the calls to Coze is set with COZE_PROXY", unused[0])


def _prepare_process(resources: Resources) -> None:
    """Everything that lives as long as the process is there by now."""
    drain_on_signals(resources.shutdown.drain)
    # What lives as long as the process need not be looked at by every collection, and a collection for each
    # few hundred objects would stop hundreds of streams for tens of milliseconds.
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def drain_on_signals(drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Lets us drain before uvicorn stops listening, on SIGTERM and SIGINT.

    uvicorn stops listening at once and runs the lifespan's shutdown only after the last open stream has
    ended. So its handler is kept, ours runs first, and its turn comes when we have drained. A second signal
    reaches it at once, waits for no chat, and sets an alarm that ends the process whatever hangs; a third
    one is not handled at all.

    Args:
        drain: called once for each signal; its second call must not wait for chats.

    Raises:
        ValueError: this is not the main thread.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def chain(number: int) -> None:
        original = signal.getsignal(number)
        if not callable(original):
            return

        def handle(number: int, frame: FrameType | None) -> None:
            received.append(number)
            is_first = len(received) == 1

            def start() -> None:
                draining = asyncio.ensure_future(drain())
                if is_first:
                    draining.add_done_callback(lambda _: original(number, frame))

            loop.call_soon_threadsafe(start)
            if not is_first:
                signal.alarm(_LAST_SECONDS)
                signal.signal(number, signal.SIG_DFL)
                original(number, frame)

        signal.signal(number, handle)

    for number in (signal.SIGTERM, signal.SIGINT):
        chain(number)
