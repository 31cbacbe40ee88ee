"""How Redis says no: what means that it cannot serve now, and what a refusal says, in one line."""

import re
from typing import Final

from redis import exceptions as redis_errors

from app.utils.certificates import certificate_fault

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
    return isinstance(error, redis_errors.ResponseError) and text.partition(" ")[0] in _AWAY_WORDS


def is_read_only(error: BaseException) -> bool:
    """Whether the server is a replica, which takes no writes."""
    return isinstance(error, redis_errors.ReadOnlyError) or server_words(error).startswith("READONLY ")


def reason(error: BaseException) -> str:
    """One line for the log and for ``check``. Of a server's refusal its own words; of all else the kind
    alone, since the text could quote the address with its password."""
    told = redis_errors.ResponseError | redis_errors.AuthenticationError | HandshakeRefused
    if not isinstance(error, told):
        return certificate_fault(error, "ssl_ca_certs in REDIS_URL") or type(error).__name__
    words = " ".join(server_words(error).split())[:_MOST_CHARACTERS]
    return words if isinstance(error, HandshakeRefused) else f"{type(error).__name__}: {words}"
