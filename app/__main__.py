"""``python -m app``: uvicorn with HOST, PORT and WORKERS from the settings."""

import uvicorn

from app.config import settings_or_exit

_STREAMS_CLOSE_SECONDS = 3


def main() -> None:
    settings = settings_or_exit()
    uvicorn.run(
        "app.main:app",
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
