"""The keys of COZE_OPENAI_API_KEYS: callers that have no HTY token, such as Open WebUI's server."""

import hashlib
import hmac
from pathlib import Path
from typing import Final

from loguru import logger

from app.config import parse_api_keys
from app.models import Identity

_ROOT: Final = "api_key:"
"""No host holds a colon, so no root of the organisation can be taken for a key's."""


class ApiKeys:
    """``listed``: the keys themselves; ``file``: where they are instead, read again when it changes.

    Each key is a tenant of its own: it owns what was made with it, and is nobody's admin.

    Raises:
        ValueError: the file cannot be read or holds something else.
    """

    def __init__(self, listed: str, file: Path | None = None) -> None:
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._names = _by_digest(listed)
        if file is not None:
            try:
                self._read(file)
            except (OSError, ValueError) as error:
                raise ValueError(f"COZE_OPENAI_API_KEYS_FILE cannot be used: {_reason(error)}") from None

    def identify(self, key: str) -> Identity | None:
        """Who this key stands for. The time it takes tells nothing of the keys that there are."""
        if self._file is not None:
            try:
                self._read(self._file)
            except (OSError, ValueError) as error:  # the last good keys outlive a bad moment
                logger.error("COZE_OPENAI_API_KEYS_FILE cannot be used: {}", _reason(error))
        given, found = _digest(key), None
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, given):
                found = name
        return None if found is None else Identity(root=_ROOT + found, hty_id=None)

    def _read(self, file: Path) -> None:
        stat = file.stat()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            self._names = _by_digest(file.read_text(encoding="utf-8"))
            self._stamp = stamp


def _by_digest(listed: str) -> dict[bytes, str]:
    return {_digest(key): name for key, name in parse_api_keys(listed).items()}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _reason(error: Exception) -> str:
    """Only the kind of what the system or a decoder says: the latter quotes the file."""
    plain = isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError)
    return str(error) if plain else type(error).__name__
