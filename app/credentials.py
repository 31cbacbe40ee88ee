"""Where the Coze token comes from: a variable, or a file that is read again when it changes."""

from pathlib import Path

from loguru import logger

from app.config import Settings
from app.exceptions import CozeApiError


class TokenSource:
    """The bearer for Coze. It never shows in ``repr`` or in an error."""

    def __init__(self, settings: Settings) -> None:
        source = settings.token_source()
        self._path = source if isinstance(source, Path) else None
        self._stamp: tuple[int, int] | None = None
        self._token = ""
        if source is not None and not isinstance(source, Path):
            self._token = _bare(source.get_secret_value())

    async def bearer(self, conversation_id: str | None) -> str:
        """Raises ``CozeApiError`` where the file cannot be read and never could be."""
        if self._path is not None:
            self._read(self._path)
        return self._token

    def _read(self, path: Path) -> None:
        """A ``stat`` for each call, a read for each change; the last good token outlives a bad moment."""
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            token = _bare(path.read_text(encoding="utf-8"))
        except OSError as exc:
            logger.error("COZE_API_TOKEN_FILE cannot be read: {}", type(exc).__name__)
            token, stamp = "", None
        if token:
            self._token, self._stamp = token, stamp
        elif not self._token:
            raise CozeApiError("The Coze token is missing", hint="COZE_API_TOKEN_FILE", maybe_started=False)


def _bare(text: str) -> str:
    """Without ``Bearer`` and white space."""
    text = text.strip()
    return text[7:].strip() if text[:7].lower() == "bearer " else text
