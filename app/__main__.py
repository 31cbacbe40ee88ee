"""``python -m app``: a process that is all ours, with uvicorn at HOST, PORT and WORKERS of the settings.

Whoever imports ``app.main``, or mounts its app elsewhere, gets none of what is done here to the process:
logging, signals, garbage collection.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from loguru import logger
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.config import Settings, exiting_if_wrong, load_settings, unknown_names
from app.config.faults import SettingsError
from app.http.connections import allow_descriptors
from app.http.listening import BACKLOG, listen, sockets_of_worker, taken_together
from app.logging_config import configure_logging
from app.utils.garbage import collect_when_quiet

if TYPE_CHECKING:  # in a worker prometheus_client is imported when its directory is known: see shared_metrics
    from fastapi import FastAPI

    from app.factory import Resources

_STREAMS_CLOSE_SECONDS: Final = 3
_LAST_SECONDS: Final = 5
"""After a second signal: what is not over by then is cut off by the system."""
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BLOCK: Final = 1024 * 1024


@contextlib.contextmanager
def shared_metrics(workers: int) -> Iterator[None]:
    """For the time of several workers, a directory where each keeps its numbers; see
    ``app.observing.metrics``.

    Must be in the environment before a worker imports prometheus_client.
    """
    if workers == 1:
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="coze-metrics-", ignore_cleanup_errors=True) as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m app")
    arguments.add_argument(
        "--page-port", type=int, help="a second port, for browsers, which refuse some (6000)"
    )
    page_port: int | None = arguments.parse_args().page_port
    with exiting_if_wrong():
        settings = load_settings()
    allow_descriptors()
    if settings.workers > 1:
        configure_logging(settings)  # for the parent: a worker that died is worth a line
    with shared_metrics(settings.workers):
        from app.factory.parts import check_parts  # it imports prometheus_client, see shared_metrics

        with exiting_if_wrong():
            check_parts(settings)
            sockets = listen(settings.host, settings.port, workers=settings.workers)
            if page_port is not None:
                sockets += listen(settings.host, page_port, workers=settings.workers)
        serve(settings, sockets)


class Workers(Multiprocess):
    """uvicorn's parent of several workers. Each has sockets of its own: of one that all share, whichever
    worker is quicker takes more, now and then all of a burst."""

    @property
    def sockets(self) -> list[socket.socket]:
        """Others each time; uvicorn asks when it starts a worker. Starting it lets go of the parent's copies,
        so that with the worker they are gone."""
        return taken_together(sockets_of_worker(self._kept))

    @sockets.setter
    def sockets(self, kept: list[socket.socket]) -> None:
        self._kept = kept


def serve(settings: Settings, sockets: list[socket.socket]) -> None:
    """Until a signal ends it. Exits with 3 where the start fails."""
    config = uvicorn.Config(
        "app.__main__:build_app",
        factory=True,
        http="app.http.protocol:HttpProtocol",  # each worker imports it
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        backlog=BACKLOG,
        # Our own drain has closed every stream before; this is for a client that does not let go.
        timeout_graceful_shutdown=_STREAMS_CLOSE_SECONDS,
    )
    if settings.workers > 1:
        Workers(config, sockets=sockets).run()
        return
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=taken_together(sockets))
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def build_app() -> "FastAPI":
    """For ``uvicorn --factory``, which calls it in each worker: the app, and a process that is made for it.

    Raises:
        SystemExit: a setting is missing or wrong. The status tells uvicorn not to start the worker again.
    """
    from app.factory.parts import check_parts
    from app.main import create_app

    try:
        settings = load_settings()
        check_parts(settings)
    except SettingsError as error:
        logger.error("{}", error)
        raise SystemExit(STARTUP_FAILURE) from None
    configure_logging(settings)
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


def _prepare_process(resources: "Resources") -> None:
    """Everything that lives as long as the process is there by now."""
    from app.coze.transport import ask_nothing_of_writers

    drain_on_signals(resources.shutdown.drain)
    ask_nothing_of_writers(asyncio.get_running_loop())
    collect_when_quiet(lambda: max(resources.streams.all_taken, resources.chats.running))
    _return_large_blocks()


def _return_large_blocks() -> None:
    """Has glibc give what was a body of megabytes back to the system at once.

    By itself it begins to keep blocks of that size once the first was freed, in an area for each thread, and
    the process stays three times as large as it is. Another C library does without.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


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


if __name__ == "__main__":
    main()
