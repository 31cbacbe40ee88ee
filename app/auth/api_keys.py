"""API keys: callers that have no HTY token, such as another server of the organisation, or Open WebUI's.

COZE_API_KEYS opens all doors, COZE_OPENAI_API_KEYS those of OpenAI's clients alone.
"""

import hashlib
import hmac
from pathlib import Path
from typing import Final, Literal, NamedTuple

from loguru import logger

from app.config import parse_api_keys
from app.models import Identity

Door = Literal["all", "openai", "coze"]
"""What somebody wants to get in at: the routes for OpenAI's or Coze's clients, or any other."""

_ROOT: Final = "api_key:"
"""No host holds a colon, so no root of the organisation can be taken for a key's."""


class KeySetting(NamedTuple):
    """``setting``: its name; ``listed``: its value; ``file``: where the keys are instead, read again when it
    changes."""

    setting: str
    listed: str = ""
    file: Path | None = None


class _Keys:
    """The keys of one setting, by digest.

    Raises:
        ValueError: the file cannot be read or holds something else.
    """

    def __init__(self, source: KeySetting) -> None:
        self._source = source
        self._stamp: tuple[int, int, int] | None = None
        self.names = _by_digest(source.listed)
        if source.file is not None:
            try:
                self._read(source.file)
            except (OSError, ValueError) as error:
                raise ValueError(self._trouble(error)) from None

    def look(self) -> bool:
        """Reads the file where it has changed; whether there are other keys now. The last good ones outlive a
        bad moment."""
        try:
            return self._source.file is not None and self._read(self._source.file)
        except (OSError, ValueError) as error:
            logger.error("{}", self._trouble(error))
            return False

    def _read(self, file: Path) -> bool:
        stat = file.stat()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp:
            return False
        self.names = _by_digest(file.read_text(encoding="utf-8"))
        self._stamp = stamp
        return True

    def _trouble(self, error: Exception) -> str:
        return f"{self._source.setting}_FILE cannot be used: {_reason(error)}"


class ApiKeys:
    """``everywhere``: keys for all doors; ``openai``: for those of OpenAI's clients. Their union counts.

    Each name is a tenant of its own: it owns what was made with its key, and is nobody's admin.

    Raises:
        ValueError: a file cannot be used, or one name or key stands for two things.
    """

    def __init__(self, everywhere: KeySetting, openai: KeySetting) -> None:
        self._everywhere, self._openai = _Keys(everywhere), _Keys(openai)
        self._take()

    @property
    def any(self) -> bool:
        """Whether there are keys for all doors."""
        return bool(self._names["all"])

    def identify(self, key: str, door: Door) -> Identity | None:
        """Who this key stands for at that door. The time it takes tells nothing of the keys there are."""
        if self._everywhere.look() | self._openai.look():
            try:
                self._take()
            except ValueError as error:
                logger.error("{}", error)
        given, found = _digest(key), None
        for digest, name in self._names[door].items():
            if hmac.compare_digest(digest, given):
                found = name
        return None if found is None else Identity(root=_ROOT + found, hty_id=None)

    def _take(self) -> None:
        """What both settings say now, or nothing of it."""
        everywhere = self._everywhere.names
        self._names: dict[Door, dict[bytes, str]] = {
            "openai": _union(everywhere, self._openai.names),
            "all": everywhere,
            "coze": everywhere,
        }


def _union(everywhere: dict[bytes, str], openai: dict[bytes, str]) -> dict[bytes, str]:
    """Of what stands in both, an equal pair counts once. Raises ``ValueError`` where only half of a pair is
    equal: two keys of one name would be one tenant, by mistake."""
    both = everywhere | openai
    names = {*everywhere.items(), *openai.items()}
    if not len({name for _, name in names}) == len(names) == len(both):
        raise ValueError("COZE_API_KEYS and COZE_OPENAI_API_KEYS: one name or key stands for two things")
    return both


def _by_digest(listed: str) -> dict[bytes, str]:
    return {_digest(key): name for key, name in parse_api_keys(listed).items()}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _reason(error: Exception) -> str:
    """Only the kind of what the system or a decoder says: the latter quotes the file."""
    plain = isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError)
    return str(error) if plain else type(error).__name__
