"""Everything that this package raises.

The tree::

    CozeError
     +- ConnectionLost               no answer: not reachable, or the connection broke, and patience ran out
     |   +- StreamBroken             ... while reading a stream; ``follow`` goes on behind ``last_event_id``
     +- WaitTimeout                  the chat is still at work (also a TimeoutError)
     +- UnexpectedAnswer             what answered is not this service
     +- CozeServiceError             the service answered with an error: code, status, message ...
         +- InvalidRequest           400, 405, 413-415, 431  ``fields``
         +- AuthError                401
         |   +- Forbidden            403
         +- NotFound                 404
         |   +- SessionNotFound
         |   +- ChatNotFound
         +- Conflict                 409
         |   +- SessionBusy          ``chat_id`` is the chat under way
         |   +- ChatStateConflict
         +- Gone                     410
         |   +- SessionGone          terminated or expired: open a new one
         |   +- ChatExpired
         +- IdempotencyKeyReused     422
         +- RateLimited              429   ``retry_after``
         |   +- SessionLimitReached
         +- ServiceFault             500
         +- UpstreamError            502: Coze failed   ``coze_code``, ``logid``, ``hint``
         |   +- UpstreamTimeout      504
         +- Unavailable              503   ``retry_after``
             +- QuotaExhausted

A code that this version does not know becomes the class of its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._models import Chat


class CozeError(Exception):
    """Base of all."""


class ConnectionLost(CozeError):
    """``__cause__`` is httpx' error. ``request_sent`` False: the service cannot have seen the request."""

    def __init__(self, message: str, *, request_sent: bool = True) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class StreamBroken(ConnectionLost):
    """The chat itself goes on: ``client.chats.follow(error.chat_id, after=error.last_event_id)``."""

    def __init__(self, message: str, *, chat_id: str, last_event_id: str | None) -> None:
        super().__init__(message)
        self.chat_id = chat_id
        self.last_event_id = last_event_id


class WaitTimeout(CozeError, TimeoutError):
    """``chat`` as it stands; it goes on."""

    def __init__(self, chat: Chat) -> None:
        super().__init__(f"{chat.chat_id} is still {chat.status}")
        self.chat = chat


class UnexpectedAnswer(CozeError):
    """A proxy's page, or another service."""


class CozeServiceError(CozeError):
    """``code`` is the service's, ``status`` that of HTTP (0 for a chat's error). ``retry_after``: seconds."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int = 0,
        request_id: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.details: Mapping[str, Any] = details or {}

    def __str__(self) -> str:
        known = [str(self.status or ""), self.code, self.request_id and f"request {self.request_id}"]
        return f"{self.message} ({', '.join(filter(None, known))})"

    @property
    def chat_id(self) -> str | None:
        """The chat that failed, or that is in the way."""
        return self.details.get("chat_id")

    @property
    def logid(self) -> str | None:
        """What Coze's support asks for."""
        return self.details.get("logid")


class InvalidRequest(CozeServiceError):
    @property
    def fields(self) -> list[dict[str, str]]:
        """``{"field": dotted path, "message": text}`` of each fault."""
        return list(self.details.get("fields", ()))


class AuthError(CozeServiceError):
    """The token or the host is missing or not accepted."""


class Forbidden(AuthError):
    """Only for administrators."""


class NotFound(CozeServiceError):
    """Unknown, no longer kept, or somebody else's."""


class SessionNotFound(NotFound): ...


class ChatNotFound(NotFound): ...


class Conflict(CozeServiceError): ...


class SessionBusy(Conflict):
    """``chat_id`` is the chat under way; ``on_busy="enqueue"`` or ``"interrupt"`` is the other way."""


class ChatStateConflict(Conflict): ...


class Gone(CozeServiceError): ...


class SessionGone(Gone):
    """Terminated or expired: open a new one."""


class ChatExpired(Gone): ...


class IdempotencyKeyReused(CozeServiceError): ...


class RateLimited(CozeServiceError): ...


class SessionLimitReached(RateLimited): ...


class ServiceFault(CozeServiceError): ...


class UpstreamError(CozeServiceError):
    """Coze, or the way to it, failed."""

    @property
    def coze_code(self) -> int | None:
        return self.details.get("coze_code")

    @property
    def hint(self) -> str | None:
        """Advice to whoever runs the service."""
        return self.details.get("hint")


class UpstreamTimeout(UpstreamError): ...


class Unavailable(CozeServiceError): ...


class QuotaExhausted(Unavailable):
    """The Coze account has to be topped up."""


_BY_CODE: Final[dict[str, type[CozeServiceError]]] = {
    "COZE_SESSION_NOT_FOUND": SessionNotFound,
    "COZE_CHAT_NOT_FOUND": ChatNotFound,
    "COZE_SESSION_BUSY": SessionBusy,
    "COZE_CHAT_STATE": ChatStateConflict,
    "COZE_SESSION_TERMINATED": SessionGone,
    "COZE_SESSION_EXPIRED": SessionGone,
    "COZE_CHAT_EXPIRED": ChatExpired,
    "SESSION_LIMIT_REACHED": SessionLimitReached,
    "COZE_QUOTA_EXHAUSTED": QuotaExhausted,
    # What a failed chat carries has no status of its own.
    "COZE_API_ERROR": UpstreamError,
    "COZE_TIMEOUT": UpstreamTimeout,
    "COZE_RATE_LIMITED": RateLimited,
    "OVERLOADED": Unavailable,
    "SHUTTING_DOWN": Unavailable,
    "COZE_REDIS_ERROR": Unavailable,
    "INTERNAL_ERROR": ServiceFault,
}
_BY_STATUS: Final[dict[int, type[CozeServiceError]]] = {
    400: InvalidRequest,
    401: AuthError,
    403: Forbidden,
    404: NotFound,
    405: InvalidRequest,
    409: Conflict,
    410: Gone,
    413: InvalidRequest,
    414: InvalidRequest,
    415: InvalidRequest,
    431: InvalidRequest,
    422: IdempotencyKeyReused,
    429: RateLimited,
    500: ServiceFault,
    502: UpstreamError,
    503: Unavailable,
    504: UpstreamTimeout,
}


def error_class(code: str, status: int = 0) -> type[CozeServiceError]:
    return _BY_CODE.get(code) or _BY_STATUS.get(status, CozeServiceError)


def service_error(
    body: Mapping[str, Any], *, status: int = 0, retry_after: float | None = None
) -> CozeServiceError:
    """From the ``error`` object of the envelope, of an ``error`` event or of a failed chat."""
    code = str(body.get("code", ""))
    return error_class(code, status)(
        str(body.get("message") or "no message"),
        code=code,
        status=status,
        request_id=str(body.get("request_id") or ""),
        retryable=bool(body.get("retryable")),
        retry_after=retry_after,
        details=body.get("details") or {},
    )
