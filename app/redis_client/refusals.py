"""How Redis says no: what means that it cannot serve now, and what a refusal says, in one line."""

import os
import re
import socket
import ssl
from typing import Final

from redis import exceptions as redis_errors

from app.utils.certificates import causes, certificate_fault

AWAY: Final = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterError,
    redis_errors.AskError,  # MOVED, too: redirected so often that there is no end to it
    redis_errors.TryAgainError,
    redis_errors.SlotNotCoveredError,
    redis_errors.InvalidResponse,  # no Redis, or no longer: what is behind an address can change
    OSError,
)
_AWAY_WORDS: Final = frozenset(
    {
        *("READONLY", "OOM", "NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "UNBLOCKED"),
        *("BUSY", "DENIED", "NOAUTH", "WRONGPASS"),
    }
)
"""First words of replies by which a server says that it cannot serve now. UNBLOCKED: it became a replica
while a read waited there. BUSY: somebody's script has been running for so long that it refuses all else.
DENIED: protected mode, it lets nobody in from outside of its machine."""
_WRAPPED: Final = re.compile(r"(?:ERR )?Error running script \(call to \w+\): (?:@\w+: ?\d+: ?)*-?")
"""What Redis before 7 puts before an error that comes out of a script."""
_NO_SENTINEL: Final = re.compile(r"(ERR )?unknown command\W+SENTINEL\b", re.IGNORECASE)
_OUR_FAULT: Final = ("same key slot", "No way to dispatch", "Invalid args", "Too many targets")
CAUGHT: Final = (*AWAY, redis_errors.RedisClusterException, redis_errors.ResponseError)
_MOST_CHARACTERS: Final = 200


class HandshakeRefused(redis_errors.ConnectionError):
    """The server answers and lets nobody in. Its text is the server's own."""


def server_words(error: BaseException) -> str:
    """The server's words, without what Redis before 7 puts around them."""
    return _WRAPPED.sub("", str(error), count=1)


def is_away(error: BaseException) -> bool:
    """Whether this says that Redis, or a part of it, cannot be used at the moment."""
    if isinstance(error, AWAY):
        return True
    text = server_words(error)
    if isinstance(error, redis_errors.RedisClusterException):
        return not any(words in text for words in _OUR_FAULT)
    if not isinstance(error, redis_errors.ResponseError):
        return False
    return text.partition(" ")[0] in _AWAY_WORDS or _NO_SENTINEL.match(text) is not None


def is_read_only(error: BaseException) -> bool:
    """Whether the server is a replica, which takes no writes."""
    return isinstance(error, redis_errors.ReadOnlyError) or server_words(error).startswith("READONLY ")


def reason(error: BaseException) -> str:
    """One line for the log and for ``check``. Of a server's refusal its own words; of all else the kind and
    what it stands for, since the text could quote the address with its password."""
    told = redis_errors.ResponseError | redis_errors.AuthenticationError | HandshakeRefused
    if not isinstance(error, told):
        words = certificate_fault(error, "ssl_ca_certs in REDIS_URL")
        known = _known_words(error)
        return words or f"{type(error).__name__}{known and ': '}{known}"
    words = " ".join(server_words(error).split())[:_MOST_CHARACTERS]
    return words if isinstance(error, HandshakeRefused) else f"{type(error).__name__}: {words}"


_CLOSED: Final = "the connection was closed"
_KNOWN_TEXTS: Final = {
    "max number of clients reached": "max number of clients reached",
    "Connection closed by server": _CLOSED,
    "Error while reading from socket": _CLOSED,
    "Timeout connecting to server": "no connection in time; with rediss:// also of a port without TLS",
    "Cluster mode is not enabled": "it is no Redis Cluster",
    "No master found for": "no Sentinel knows a master of that name",
}
"""What texts of redis-py's begin with, which hold an address behind that."""


def _known_words(error: BaseException) -> str:
    for each in causes(error):
        if isinstance(each, redis_errors.InvalidResponse):
            return "what answers there is no Redis"
        if found := next((words for text, words in _KNOWN_TEXTS.items() if str(each).startswith(text)), ""):
            return found
        if isinstance(each, socket.gaierror):
            return "its host name is not known"
        if isinstance(each, ssl.SSLError):
            return f"TLS failed ({getattr(each, 'reason', None) or 'no reason'})"
        if isinstance(each, OSError) and isinstance(each.errno, int):
            return os.strerror(each.errno)
    return ""
