"""Where one credential's bearer comes from: a value, or a file that is read again when it changes."""

from pathlib import Path
from typing import Literal

from loguru import logger

from app.config.values import checked_token
from app.exceptions import CozeApiError

Kind = Literal["token", "file", "oauth"]


class TokenSource:
    """``expires_at``: unix seconds, where it is known when the token ends."""

    kind: Kind
    expires_at: int | None = None

    async def bearer(self) -> str:
        """The token alone. Raises ``UpstreamError`` where there is none."""
        raise NotImplementedError

    async def renew(self, refused: str) -> bool:
        """Told that Coze did not accept ``refused``; True: there is another one now."""
        return False

    async def aclose(self) -> None:
        """Ends what is under way."""


class StaticToken(TokenSource):
    """A token that never changes. It does not show in ``repr``."""

    kind: Kind = "token"

    def __init__(self, token: str) -> None:
        self._token = token

    async def bearer(self) -> str:
        return self._token


class FileToken(TokenSource):
    """Reads the file whenever it has changed. While it cannot be read, the last token stays in use."""

    kind: Kind = "file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._token = ""

    async def bearer(self) -> str:
        self._read()
        return self._token

    async def renew(self, refused: str) -> bool:
        self._stamp = None  # written twice within a tick of the file system's clock, it looks unchanged
        self._read()
        return self._token != refused

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            token = read_token(self._path)
        except (OSError, ValueError) as exc:
            logger.error("COZE_API_TOKEN_FILE cannot be used: {}", type(exc).__name__)
            token, stamp = "", None
        if token:
            self._token, self._stamp = token, stamp
        elif not self._token:
            raise CozeApiError("The Coze token is missing", hint="COZE_API_TOKEN_FILE", maybe_started=False)


def read_token(path: Path) -> str:
    """The token in a file. Raises ``OSError``, or ``ValueError`` for one that no header could carry."""
    return checked_token(path.read_bytes().decode("utf-8-sig"))
