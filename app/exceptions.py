"""Every failure that we expect: one class each, with its code, HTTP status and whether a retry can help.

``ERROR_CLASSES`` is the one table from code to class, and so to HTTP status.
"""

from typing import Any, ClassVar, Final


class ServiceError(Exception):
    """An expected failure.

    ``message`` is for the caller and never holds an upstream's own text; ``details`` is JSON-able.
    ``retry_after`` is in seconds and becomes the ``Retry-After`` header.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: bool = False
    default_message: ClassVar[str] = "Internal error"
    default_retry_after: ClassVar[int | None] = None

    def __init_subclass__(
        cls,
        *,
        code: str = "",
        status: int = 500,
        retry_after: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        """Without a ``code`` a class has all of its base. Whatever has a ``retry_after`` can be tried again,
        unless ``retryable`` says otherwise."""
        if code:
            cls.code, cls.status, cls.default_retry_after = code, status, retry_after
            cls.retryable = retry_after is not None if retryable is None else retryable

    def __init__(
        self,
        message: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.details: dict[str, Any] = details or {}
        self.retry_after = retry_after if retry_after is not None else self.default_retry_after
        self.headers: dict[str, str] = headers or {}
        super().__init__(self.message)


class ValidationFailed(ServiceError, code="COZE_VALIDATION_ERROR", status=400):
    """``details.fields``: list of ``{"field": dotted path, "message": text}``."""

    default_message = "The request is not valid"


def wrong_field(name: str, problem: str, message: str | None = None) -> ValidationFailed:
    """What is wrong with one thing that the caller sent; ``name``: a field's dotted path, or a header."""
    return ValidationFailed(message, details={"fields": [{"field": name, "message": problem}]})


class AuthMissing(ServiceError, code="AUTH_MISSING", status=401):
    default_message = "HtySudoerToken and HtyHost headers are required"


class AuthInvalid(ServiceError, code="AUTH_INVALID", status=401):
    default_message = "The token or host is not accepted"


class AuthForbidden(ServiceError, code="AUTH_FORBIDDEN", status=403):
    default_message = "This needs an administrator's role"


class SessionNotFound(ServiceError, code="COZE_SESSION_NOT_FOUND", status=404):
    default_message = "No such session"


class ChatNotFound(ServiceError, code="COZE_CHAT_NOT_FOUND", status=404):
    default_message = "No such chat"


class FileNotFound(ServiceError, code="COZE_FILE_NOT_FOUND", status=404):
    default_message = "No such file"


class ModelNotFound(ServiceError, code="MODEL_NOT_FOUND", status=404):
    """OpenAI's routes alone."""

    default_message = "No such model; GET /coze/openai/v1/models lists them"


class ConversationNotFound(ServiceError, code="COZE_CONVERSATION_NOT_FOUND", status=404):
    default_message = "No such conversation"


class BotNotFound(ServiceError, code="COZE_BOT_NOT_FOUND", status=404):
    default_message = "No such bot; GET /coze/bots lists them"


class RouteNotFound(ServiceError, code="NOT_FOUND", status=404):
    default_message = "No such route"


class MethodNotAllowed(ServiceError, code="METHOD_NOT_ALLOWED", status=405):
    default_message = "This route does not take that method"


class SessionBusy(ServiceError, code="COZE_SESSION_BUSY", status=409, retry_after=1):
    """``details.chat_id`` names the chat that is in the way."""

    default_message = "The session has a chat that is still running"


class ChatState(ServiceError, code="COZE_CHAT_STATE", status=409):
    default_message = "The chat is not in a state that allows this"


class NotTheNewest(ChatState):
    """What was to go on from a chat; the session has gone on from it already."""

    default_message = "The session has a newer chat"


class SessionTerminated(ServiceError, code="COZE_SESSION_TERMINATED", status=410):
    default_message = "The session was terminated; create a new one"


class SessionExpired(ServiceError, code="COZE_SESSION_EXPIRED", status=410):
    default_message = "The session has expired; create a new one"


class ChatExpired(ServiceError, code="COZE_CHAT_EXPIRED", status=410):
    default_message = "The chat's record is no longer kept"


class BodyTooLarge(ServiceError, code="BODY_TOO_LARGE", status=413):
    default_message = "The request body is too large"


class TargetTooLong(ServiceError, code="URI_TOO_LONG", status=414):
    default_message = "The request line is too long"


class UnsupportedMediaType(ServiceError, code="UNSUPPORTED_MEDIA_TYPE", status=415):
    default_message = "Send application/json"


class IdempotencyKeyReused(ServiceError, code="IDEMPOTENCY_KEY_REUSED", status=422):
    default_message = "This Idempotency-Key was used with another request"


class HeadersTooLarge(ServiceError, code="HEADERS_TOO_LARGE", status=431):
    default_message = "The headers are too large"


class RateLimited(ServiceError, code="RATE_LIMITED", status=429, retry_after=1):
    default_message = "Too many requests; try again later"


class SessionLimitReached(ServiceError, code="SESSION_LIMIT_REACHED", status=429, retry_after=60):
    default_message = "No more sessions can be created at the moment"


class QuotaExceeded(ServiceError, code="QUOTA_EXCEEDED", status=429, retry_after=3600):
    """``details.reset_at``: when the day, and with it the quota, begins anew."""

    default_message = "The user's tokens of this day are used up"


class InternalError(ServiceError):
    """Says nothing of the inside."""


class RedisUnavailable(ServiceError, code="COZE_REDIS_ERROR", status=503, retry_after=2):
    default_message = "The store is not reachable; try again shortly"


class AuthUnavailable(ServiceError, code="AUTH_UNAVAILABLE", status=503, retry_after=5):
    default_message = "The token cannot be checked at the moment"


class ShuttingDown(ServiceError, code="SHUTTING_DOWN", status=503, retry_after=1):
    default_message = "This process is shutting down; try again"


class Overloaded(ServiceError, code="OVERLOADED", status=503, retry_after=2):
    default_message = "Too much is going on at the moment; try again shortly"


class UpstreamError(ServiceError):
    """Coze, or the way to it, failed.

    ``coze_code`` is Coze's own number (None where Coze said none), ``logid`` what its support asks
    for, ``hint`` our advice to the operator. ``maybe_started`` is False only where Coze demonstrably
    has not begun a chat, so that the request may be sent again.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        coze_code: int | None = None,
        logid: str | None = None,
        hint: str | None = None,
        maybe_started: bool = True,
        retryable: bool | None = None,
        retry_after: int | None = None,
    ) -> None:
        details = {"coze_code": coze_code, "logid": logid, "hint": hint}
        super().__init__(
            message,
            details={name: value for name, value in details.items() if value is not None},
            retry_after=retry_after,
        )
        if retryable is not None:
            self.retryable = retryable  # some Coze codes of one class pass by themselves
        self.coze_code = coze_code
        self.logid = logid
        self.hint = hint
        self.maybe_started = maybe_started


class CozeRateLimited(UpstreamError, code="COZE_RATE_LIMITED", status=429, retry_after=60):
    """Coze 4008, 4013, 4020, or HTTP 429."""

    default_message = "Coze limits the rate of requests; try again later"


class CozeBusy(UpstreamError, code="COZE_SESSION_BUSY", status=409, retry_after=2):
    """Coze 4016: the conversation has a chat that still runs."""

    default_message = "Coze still works on this conversation's previous message"


class CozeApiError(UpstreamError, code="COZE_API_ERROR", status=502):
    """Every other failure of Coze: its cause is ours or the bot's, not the caller's."""

    default_message = "Coze could not answer"


class CozeOverloaded(UpstreamError, code="OVERLOADED", status=503, retry_after=5):
    """Coze 4009."""

    default_message = "Coze is busy; try again shortly"


class CozeQuotaExhausted(
    UpstreamError, code="COZE_QUOTA_EXHAUSTED", status=503, retry_after=3600, retryable=False
):
    """Coze 4011, 4019, 4022, 4027, 4028, 788788103: the account has to be topped up."""

    default_message = "The Coze account has no quota left"


class CozeTimeout(UpstreamError, code="COZE_TIMEOUT", status=504, retryable=True):
    """A deadline passed; the message names which one and its length."""

    default_message = "Coze did not answer in time"


def _leaves(cls: type[ServiceError]) -> list[type[ServiceError]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _leaves(sub))]


ERROR_CLASSES: Final[dict[str, type[ServiceError]]] = {
    cls.code: cls for cls in reversed(_leaves(ServiceError)) if cls is not UpstreamError
}
"""Error code -> class. Where our own class and Coze's share a code, ours: both have the same status."""

# -- what routes have in common, for the published OpenAPI -------------------------------------------------

BEGINS: Final = (BodyTooLarge, UnsupportedMediaType, RateLimited, ShuttingDown)
"""Of routes that take a body and begin something."""
BEGINS_ONCE: Final = (*BEGINS, IdempotencyKeyReused)
"""Of those that take an Idempotency-Key."""
SESSION: Final = (SessionNotFound, SessionTerminated, SessionExpired)
"""Of routes that need a living session."""
COZE: Final = (CozeRateLimited, CozeApiError, CozeQuotaExhausted, CozeTimeout)
"""Of routes that answer with what Coze said."""
EVERYWHERE: Final = (
    *(ValidationFailed, AuthMissing, AuthInvalid, AuthUnavailable),  # headers may be too large anywhere
    *(RedisUnavailable, Overloaded, InternalError),
)
"""Of all routes that need a caller."""
