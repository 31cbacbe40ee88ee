"""Our failures in the envelope that Coze's clients read, for everything under ``/coze/api``.

    {"code": 4016, "msg": "...", "detail": {"logid": "..."}}

They wear Coze's codes where one fits, since these clients know nothing else; the HTTP status is 200 as Coze
has it, but where a client or a proxy has to act on it: 401, 429 with Retry-After, 503. Source: Coze's page on
error codes, and what its SDKs do.
"""

from typing import Any, Final, NamedTuple

from app.error_handlers import ErrorShape, bearer_challenge, full_message
from app.exceptions import ServiceError, ValidationFailed
from app.models.documented import Documented
from app.tasks.passed import TOKEN_REFUSED

PARAMETERS: Final = 4000
NO_CHAT: Final = 4001
NO_CONVERSATION: Final = 4002
NO_BOT: Final = 4006
UNSAVED_NEEDS_STREAM: Final = 4007
CANNOT_CANCEL: Final = 4104
NOT_THERE: Final = 4200
_BUSY: Final = 4016
_QUOTA: Final = 4008
_RATE: Final = 4013
_TOKEN: Final = 4100
_OVERLOADED: Final = 4009
_INTERNAL: Final = 5000

_CODES: Final[dict[str, int]] = {
    "AUTH_MISSING": _TOKEN,
    "AUTH_INVALID": _TOKEN,
    "AUTH_FORBIDDEN": 4101,
    "COZE_VALIDATION_ERROR": PARAMETERS,
    "BODY_TOO_LARGE": PARAMETERS,
    "URI_TOO_LONG": PARAMETERS,
    "HEADERS_TOO_LARGE": PARAMETERS,
    "UNSUPPORTED_MEDIA_TYPE": PARAMETERS,
    "IDEMPOTENCY_KEY_REUSED": PARAMETERS,
    "COZE_CHAT_STATE": PARAMETERS,
    "COZE_CHAT_NOT_FOUND": NO_CHAT,
    "COZE_CHAT_EXPIRED": NO_CHAT,
    "COZE_CONVERSATION_NOT_FOUND": NO_CONVERSATION,
    "COZE_SESSION_NOT_FOUND": NO_CONVERSATION,
    "COZE_SESSION_TERMINATED": NO_CONVERSATION,
    "COZE_SESSION_EXPIRED": NO_CONVERSATION,
    "COZE_BOT_NOT_FOUND": NO_BOT,
    "MODEL_NOT_FOUND": NO_BOT,
    "COZE_FILE_NOT_FOUND": NOT_THERE,
    "NOT_FOUND": NOT_THERE,
    "METHOD_NOT_ALLOWED": NOT_THERE,
    "COZE_SESSION_BUSY": _BUSY,
    "RATE_LIMITED": _RATE,
    "SESSION_LIMIT_REACHED": _RATE,
    "COZE_RATE_LIMITED": _RATE,
    "QUOTA_EXCEEDED": _QUOTA,
    "OVERLOADED": _OVERLOADED,
}
"""Of all others ``_INTERNAL``: what keeps us from serving."""
_STATUSES: Final[dict[int, int]] = {_TOKEN: 401, _RATE: 429, _QUOTA: 429}
_CANNOT_SERVE: Final = frozenset(
    {"AUTH_UNAVAILABLE", "COZE_REDIS_ERROR", "SHUTTING_DOWN", "OVERLOADED", "COZE_TIMEOUT"}
    | {"COZE_API_ERROR", "COZE_QUOTA_EXHAUSTED"}
)
_NOT_OFFERED: Final = frozenset({"NOT_FOUND", "METHOD_NOT_ALLOWED"})


class CozeRefusal(ValidationFailed):
    """A refusal under a code of Coze's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message, details={"coze_code": code})


class Told(NamedTuple):
    status: int
    code: int


def told_of(error: ServiceError) -> Told:
    """Coze's own code where it gave one; but that our token is refused is not the caller's affair."""
    code = error.details.get("coze_code")
    if isinstance(code, int) and code not in TOKEN_REFUSED:
        return Told(_STATUSES.get(code, 200), code)
    if error.code in _NOT_OFFERED:
        return Told(error.status, NOT_THERE)
    known = _CODES.get(error.code, _INTERNAL)
    if error.code in _CANNOT_SERVE:
        return Told(503, known)
    return Told(_STATUSES.get(known, 500 if known == _INTERNAL else 200), known)


class CozeDetail(Documented):
    """What Coze's support, or ours, asks for."""

    logid: str
    """Coze's, or the request's id where Coze was not asked."""


class CozeError(Documented):
    """Every failure of Coze's routes. ``detail.logid``: Coze's where it gave one, else our request's id."""

    code: int
    """Coze's code of the failure."""
    msg: str
    """What went wrong, in words."""
    detail: CozeDetail
    """Where it is found in logs."""


def _body(error: ServiceError, request_id: str, _moment: str) -> dict[str, Any]:
    logid = str(error.details.get("logid") or request_id)
    return {"code": told_of(error).code, "msg": _message(error), "detail": {"logid": logid}}


def _message(error: ServiceError) -> str:
    if error.code in _NOT_OFFERED:
        return f"This service does not offer this part of Coze's API ({error.message})"
    return full_message(error)


def _retry_after(error: ServiceError) -> int | None:
    """None where a chat was created that we cannot serve: it may have begun, and would be paid twice."""
    status = told_of(error).status
    if status == 503 and "chat_id" in error.details:
        return None
    return error.retry_after if status in (429, 503) else None


COZE_ERRORS: Final = ErrorShape(
    name="coze_api",
    prefix="/coze/api",
    model=CozeError,
    body=_body,
    logid_header="X-Tt-Logid",
    challenge=bearer_challenge,
    status=lambda error: told_of(error).status,
    retry_after=_retry_after,
)
