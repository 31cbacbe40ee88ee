"""``python -m app``: uvicorn with HOST, PORT and WORKERS from the settings."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import uvicorn

from app.config import Settings, settings_or_exit
from app.logging_config import configure_logging

_STREAMS_CLOSE_SECONDS = 3


@contextlib.contextmanager
def shared_metrics(workers: int) -> Iterator[None]:
    """For the time of several workers, a directory where each keeps its numbers; see ``app.metrics``.

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
    settings = settings_or_exit()
    if settings.workers > 1:
        configure_logging(**settings.logging)  # for the parent: a worker that died is worth a line
    with shared_metrics(settings.workers):
        serve(settings)


def serve(settings: Settings) -> None:
    uvicorn.run(
        "app.process:build_app",
        factory=True,
        http="app.http.protocol:HttpProtocol",  # each worker imports it
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        # Our own drain has closed every stream before; this is for a client that does not let go.
        timeout_graceful_shutdown=_STREAMS_CLOSE_SECONDS,
    )


if __name__ == "__main__":
    main()
