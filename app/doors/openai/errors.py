"""Our failures in the shape that OpenAI's clients read, for everything under ``/coze/openai``.

    {"error": {"message": "...", "type": "...", "param": null, "code": "..."}}

What these clients repeat by themselves they decide by the status: OpenAI's SDKs 408, 409, 429 and 5xx unless
``x-should-retry`` says otherwise, the AI SDK the same without looking at that header, LangChain for
JavaScript all but 400 to 407 and 409. An answer that may have been paid for is therefore a 400 where it
failed, and so is whatever a repetition cannot mend. Sources: OpenAI's API reference, error codes, and what
these libraries do.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from app.doors.openai.bodies import OpenAIError
from app.error_handlers import ErrorShape, bearer_challenge
from app.exceptions import ServiceError

TOO_LONG: Final = "context_length_exceeded"
"""At this code clients shorten what they send, and ask again."""
_TOO_LONG_WORDS: Final = (
    "; the prompt is too long: more than the maximum context length (context_length_exceeded)"
)
"""LiteLLM and LangChain look for such words, not for the code."""
MOST_PATIENCE: Final = 60
"""Seconds. Whoever has to wait longer is told not to repeat the call, and no time: some clients sleep as long
as Retry-After says, for hours if need be."""

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_CODES: Final = {
    "AUTH_INVALID": "invalid_api_key",
    "RATE_LIMITED": "rate_limit_exceeded",
    "COZE_RATE_LIMITED": "rate_limit_exceeded",
    "COZE_VALIDATION_ERROR": "invalid_request",
}
"""Codes that these clients know by another name; all others are ours in lower case."""


class Told(NamedTuple):
    """What a client is told of a failure. ``retry``: whether the same call may be sent again by itself."""

    status: int
    type: str
    code: str
    retry: bool = False


_QUOTA: Final = Told(429, "insufficient_quota", "insufficient_quota")
"""The one 429 after which LangChain and LiteLLM, too, know that waiting does not help."""

COZE_CODES: Final[Mapping[int, Told]] = MappingProxyType(
    {
        4008: _QUOTA,
        4009: Told(503, "server_error", "overloaded"),
        4010: Told(400, "invalid_request_error", TOO_LONG),
        4011: _QUOTA,
        4013: Told(429, "rate_limit_error", "rate_limit_exceeded"),
        4016: Told(409, "invalid_request_error", "coze_session_busy"),
        4019: _QUOTA,
        4020: Told(429, "rate_limit_error", "rate_limit_exceeded", retry=True),
        4022: _QUOTA,
        4027: _QUOTA,
        4028: _QUOTA,
        4105: Told(400, "invalid_request_error", "content_policy_violation"),
        788788103: _QUOTA,
    }
)
"""By Coze's code. Of all others those that may pass by themselves are a 502, the rest a 400.

4020 alone is worth a repetition: the window is a minute, so we do not repeat it. All others that pass by
themselves we have repeated already, and a client's tries would multiply ours."""
_PASSES: Final = Told(502, "server_error", "coze_api_error")
_STAYS: Final = Told(400, "server_error", "coze_api_error")
_REPEATED_BY_US: Final = frozenset({"COZE_RATE_LIMITED", "COZE_API_ERROR"})
_FINAL_WHEREVER: Final = frozenset({"insufficient_quota", TOO_LONG, "content_policy_violation"})
"""Codes that say the same of an answer that had begun."""


def told_of(error: ServiceError) -> Told:
    """``error.details`` may hold ``begun`` (Coze is or was at work on it, so it may be paid for) and
    ``openai_code``, which counts before ours."""
    told = _told_of(error)
    code = error.details.get("openai_code") or told.code
    if error.details.get("begun") and code not in _FINAL_WHEREVER:
        return Told(400, "server_error", code)
    return told._replace(code=code)


def _told_of(error: ServiceError) -> Told:
    coze_code = error.details.get("coze_code")
    if error.code in ("COZE_QUOTA_EXHAUSTED", "QUOTA_EXCEEDED"):
        return _QUOTA
    if coze_code is not None and coze_code in COZE_CODES:
        return COZE_CODES[coze_code]
    if coze_code is not None and error.code == "COZE_API_ERROR":
        return _PASSES if error.retryable else _STAYS
    status = error.status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    patient = (error.retry_after or 0) <= MOST_PATIENCE
    code = _CODES.get(error.code, error.code.lower())
    if error.code == "COZE_API_ERROR" and not error.retryable:
        return _STAYS
    ours = coze_code is None and error.code not in _REPEATED_BY_US
    return Told(status, kind, code, retry=error.retryable and ours and patient)


def openai_error(error: ServiceError) -> dict[str, Any]:
    """``param`` may be given by ``error.details``; else it is the first wrong field."""
    fields = error.details.get("fields") or []
    wrong = "; ".join(f"{fault['field']}: {fault['message']}" for fault in fields)
    told = told_of(error)
    return {
        "error": {
            "message": _with_advice(f"{error.message} ({wrong})" if wrong else error.message, error.details)
            + (_TOO_LONG_WORDS if told.code == TOO_LONG else ""),
            "type": told.type,
            "param": error.details.get("param") or (fields[0]["field"] if fields else None),
            "code": told.code,
        }
    }


def _with_advice(message: str, details: dict[str, Any]) -> str:
    """What the operator needs: there is no other place for it that these clients show."""
    code, hint, logid = (details.get(name) for name in ("coze_code", "hint", "logid"))
    notes = [f"Coze's code {code}"] if code is not None and str(code) not in message else []
    notes += [str(hint)] if hint else []
    notes += [f"logid {logid}"] if logid else []
    return f"{message} ({'; '.join(notes)})" if notes else message


def _retry_after(error: ServiceError) -> int | None:
    """None, too, where waiting does not help."""
    seconds, told = error.retry_after, told_of(error)
    if seconds is None or seconds > MOST_PATIENCE or told.status == 400 or told.code in _FINAL_WHEREVER:
        return None
    return seconds


OPENAI_ERRORS: Final = ErrorShape(
    name="openai",
    prefix="/coze/openai",
    model=OpenAIError,
    body=lambda error, _request_id, _moment: openai_error(error),
    headers=lambda error: {"X-Should-Retry": "true" if told_of(error).retry else "false"},
    challenge=bearer_challenge,
    status=lambda error: told_of(error).status,
    retry_after=_retry_after,
    names_routes=True,
)
