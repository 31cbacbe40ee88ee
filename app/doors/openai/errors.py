"""Our failures in the shape that OpenAI's clients read, for everything under ``/coze/openai``.

    {"error": {"message": "...", "type": "...", "param": null, "code": "..."}}

The HTTP status is the same as elsewhere; only the words differ. Source: OpenAI's API reference, error codes,
and what its Python SDK does with them.
"""

from typing import Any, Final

from app.doors.openai.bodies import OpenAIError
from app.error_handlers import ErrorShape
from app.exceptions import ServiceError

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
_CODES: Final = {
    "AUTH_MISSING": "invalid_api_key",
    "AUTH_INVALID": "invalid_api_key",
    "RATE_LIMITED": "rate_limit_exceeded",
    "COZE_RATE_LIMITED": "rate_limit_exceeded",
    "COZE_QUOTA_EXHAUSTED": "insufficient_quota",
    "QUOTA_EXCEEDED": "insufficient_quota",
    "COZE_VALIDATION_ERROR": "invalid_request",
}
"""Codes that these clients know by another name; all others are ours in lower case."""
TOO_LONG: Final = "context_length_exceeded"
"""At this code clients shorten what they send, and ask again."""
_NOT_BEGUN: Final = frozenset({"COZE_RATE_LIMITED", "OVERLOADED", "COZE_SESSION_BUSY"})
"""Refusals by Coze itself: a chat that failed so was never begun there."""


def openai_error(error: ServiceError) -> dict[str, Any]:
    """``param`` and ``code`` may be given by ``error.details``; else the first wrong field, and our code."""
    fields = error.details.get("fields") or []
    wrong = "; ".join(f"{fault['field']}: {fault['message']}" for fault in fields)
    message = _with_advice(f"{error.message} ({wrong})" if wrong else error.message, error.details)
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": error.details.get("param") or (fields[0]["field"] if fields else None),
            "code": error.details.get("openai_code") or _CODES.get(error.code, error.code.lower()),
        }
    }


def _with_advice(message: str, details: dict[str, Any]) -> str:
    """What the operator needs: there is no other place for it that these clients show."""
    code, hint, logid = (details.get(name) for name in ("coze_code", "hint", "logid"))
    notes = [f"Coze's code {code}"] if code is not None and str(code) not in message else []
    notes += [str(hint)] if hint else []
    notes += [f"logid {logid}"] if logid else []
    return f"{message} ({'; '.join(notes)})" if notes else message


def _retry_header(error: ServiceError) -> dict[str, str]:
    """``x-should-retry``, which OpenAI's SDKs obey: by themselves they repeat every 409, 429 and 5xx.

    A chat that has failed may have been paid for, so repeating it is left to people, unless Coze refused to
    begin it.
    """
    failed_chat = "chat_id" in error.details and error.code not in _NOT_BEGUN
    return {"X-Should-Retry": "true" if error.retryable and not failed_chat else "false"}


OPENAI_ERRORS: Final = ErrorShape(
    name="openai",
    prefix="/coze/openai",
    model=OpenAIError,
    body=lambda error, _request_id, _moment: openai_error(error),
    headers=_retry_header,
)
