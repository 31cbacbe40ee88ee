"""Clock and ids. Imports nothing of ours and must not grow."""

import base64
import hashlib
import re
import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

SHARDS: Final = 32
"""Number of fixed hash tags; one base32 character of every id carries the shard."""

_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_OF_BYTE: Final = (_BASE32 * 8).encode()
"""A character for each byte: its lowest five bits."""
_TOKEN_CHARS: Final = 20
"""20 base32 characters: 100 random bits."""

SESSION_ID_PATTERN: Final = re.compile(r"coze_session_[0-9]{13}_[a-z2-7]{21}")
CHAT_ID_PATTERN: Final = re.compile(r"coze_chat_[0-9]{13}_[a-z2-7]{41}")


def now_ms() -> int:
    """Wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def iso(ms: int | None = None) -> str:
    """ISO 8601 in UTC with microseconds and offset, of ``ms`` (milliseconds) or of now."""
    seconds = time.time_ns() / 1_000_000_000 if ms is None else ms / 1000
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def random_token() -> str:
    """100 random bits as 20 lower-case base32 characters."""
    return secrets.token_bytes(_TOKEN_CHARS).translate(_BASE32_OF_BYTE).decode()


def new_id(kind: Literal["session", "file"]) -> str:
    """``coze_<kind>_<ms>_<shard char><100 random bits>`` on a random shard."""
    return f"coze_{kind}_{now_ms()}_{random_token()[0]}{random_token()}"


def new_chat_id(session_id: str) -> str:
    """``coze_chat_<ms>_<shard char><group><100 random bits>``.

    The group leads to the record in one HMGET. It is a one-way digest: a chat id tells nothing of its
    session's id.
    """
    return f"coze_chat_{now_ms()}_{session_id[-_TOKEN_CHARS - 1]}{group_of(session_id)}{random_token()}"


def created_ms(any_id: str) -> int:
    """When a session, file or chat got its well-formed id."""
    return int(any_id.split("_", 3)[2])


def age_of(any_id: str) -> float:
    """Seconds since then, by the clocks of both machines."""
    return (now_ms() - created_ms(any_id)) / 1000


def shard_of(any_id: str) -> int:
    """Shard number, below ``SHARDS``, of a well-formed session or chat id."""
    return _BASE32.index(any_id.rsplit("_", 1)[1][0]) % SHARDS


def group_of(any_id: str) -> str:
    """Name (20 characters) under which a session keeps its chats, from its id or from a chat's."""
    if any_id.startswith("coze_chat_"):
        return any_id[-2 * _TOKEN_CHARS : -_TOKEN_CHARS]
    return _digest_of(any_id)


@lru_cache(maxsize=4096)
def _digest_of(any_id: str) -> str:
    return base64.b32encode(hashlib.sha256(any_id.encode()).digest()).decode().lower()[:_TOKEN_CHARS]


def is_session_id(value: str) -> bool:
    return SESSION_ID_PATTERN.fullmatch(value) is not None


def is_chat_id(value: str) -> bool:
    return CHAT_ID_PATTERN.fullmatch(value) is not None
