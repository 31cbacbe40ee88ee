"""Reads Coze's answers that are not streams: the envelope, its older and self-hosted shapes, and error
bodies of any kind. No I/O.

The rule (Coze's pages, confirmed by what its SDKs had to repair): a JSON object with a ``code`` other than
0 is that error whatever the HTTP status; else a status of 400 and more is an error of the way; an absent
``code`` is 0.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from app.coze.codes import coze_error, status_may_have_started
from app.coze.loose_json import mended_object
from app.coze.wire import code_of, integer, json_object, log_id, strict_object
from app.exceptions import CozeApiError

_BOM: Final = b"\xef\xbb\xbf"
_MAX_RETRY_AFTER: Final = 86_400
_BLANKS: Final = b" \t\r\n"
_JSON_STARTS: Final = b'{["-0123456789ntf'

ERROR_EVENT: Final = "error"
FAILED_EVENT: Final = "conversation.chat.failed"

_DATA_KEYS: Final = ("data", "ChatV3ChatDetail", "Messages", "ConversationData")
"""Where the payload is: Coze's name first, then those of coze-studio."""


class Reply(msgspec.Struct, frozen=True):
    """A successful answer. ``body`` is the whole object (paging keys sit beside the payload)."""

    body: dict[str, object]
    data: object
    logid: str | None
    mended: bool = False
    """A part of it was no JSON; the rest was read all the same."""


class Head(msgspec.Struct, frozen=True):
    """What the headers say. ``retry_after``: seconds."""

    status: int
    content_type: str
    logid: str | None
    retry_after: int | None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str]) -> "Head":
        logid = headers.get("x-tt-logid") or headers.get("x-log-id") or ""
        return cls(
            status=status,
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            logid=log_id(logid) or None,
            retry_after=parse_retry_after(headers.get("retry-after", "")),
        )

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_event_stream(self) -> bool:
        return self.is_success and self.content_type == "text/event-stream"


def read_reply(head: Head, body: bytes) -> Reply:
    """The answer of a JSON call.

    Raises the error of its code or status; ``CozeApiError`` for a success that is not a JSON object.
    """
    found = strict_object(body.removeprefix(_BOM))
    mended = found is None
    if found is None:
        found = mended_object(body)
    if found is not None:
        _raise_for_code(found, head)
    if not head.is_success:
        raise coze_error(
            None,
            logid=_logid(found or {}, head),
            http_status=head.status,
            maybe_started=status_may_have_started(head.status),
            retry_after=head.retry_after,
        )
    if found is None:
        # Some middle box, or Coze cut short: it may well have done what was asked.
        raise CozeApiError("Coze's answer is not JSON", logid=head.logid, maybe_started=True, retryable=True)
    data = next((found[key] for key in _DATA_KEYS if found.get(key) is not None), None)
    return Reply(found, data, _logid(found, head), mended)


def _raise_for_code(found: Mapping[str, object], head: Head) -> None:
    """Raises where the object says that the request failed. Coze has then not started anything."""
    code = code_of(found)
    older_form = (
        integer(found.get("code")) is None and "data" not in found and isinstance(found.get("error"), dict)
    )
    if code or (older_form and head.is_success):
        raise coze_error(
            code,
            logid=_logid(found, head),
            http_status=head.status,
            maybe_started=False,
            retry_after=head.retry_after,
        )


def raise_refusal(name: str, data: bytes, head: Head) -> bool:
    """Raises the error of an event that tells one with Coze's code, as the first of a stream: Coze has then
    not started anything, as if it had answered with that JSON. Returns whether the event tells of a chat.
    """
    if name not in (ERROR_EVENT, FAILED_EVENT, "message"):
        return name.startswith("conversation.") or name == "done"
    found = json_object(data) or {}
    if name == FAILED_EVENT and found.get("id"):
        return True  # a chat that had begun
    last_error = found.get("last_error")
    code = code_of(found) or (code_of(last_error) if isinstance(last_error, dict) else None)
    if code:
        raise coze_error(code, logid=_logid(found, head), http_status=head.status, maybe_started=False)
    return name != "message"


def error_in_tail(tail: bytes, head: Head, *, started: bool) -> None:
    """Raises the error of a bare JSON line in an event stream; says nothing to anything else.

    ``started``: events came before it.
    """
    found = json_object(tail.strip(_BLANKS)) if tail.lstrip(_BLANKS).startswith(b"{") else None
    code = code_of(found) if found else None
    if found and code:
        raise coze_error(code, logid=_logid(found, head), http_status=head.status, maybe_started=started)


def looks_like(first: bytes) -> str:
    """``json``, ``markup``, ``stream``, or ``unknown`` while only blanks came: by the first byte of a body,
    since servers and what stands between label a stream as JSON, and the other way round. No field of a
    stream begins as a value of JSON does."""
    start = first.removeprefix(_BOM).lstrip(_BLANKS)[:1]
    if start == b"":
        return "unknown"
    if start == b"<":
        return "markup"
    return "json" if start in _JSON_STARTS else "stream"


def parse_retry_after(value: str) -> int | None:
    """``Retry-After`` (RFC 9110, 10.2.3) in seconds, 0 to a day; None where it is absent or unreadable."""
    seconds = integer(value.strip())
    if seconds is None and value:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = int((moment - datetime.now(UTC)).total_seconds()) + 1
    return None if seconds is None else min(max(seconds, 0), _MAX_RETRY_AFTER)


def _logid(found: Mapping[str, object], head: Head) -> str | None:
    for key in ("detail", "error"):
        part = found.get(key)
        if isinstance(part, dict) and (logid := log_id(part.get("logid"))):
            return head.logid or logid
    return head.logid
