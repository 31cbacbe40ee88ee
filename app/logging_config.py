"""loguru: JSON lines or console, ids bound by ``logger.contextualize``, secrets redacted.

Besides its own values a context may have ``fields``: a function that is asked for more at each line, since
who calls, the chat's id and Coze's logid are only known as things go on.
"""

import json as stdlib_json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import orjson
from loguru import logger

from app.config import Settings

if TYPE_CHECKING:
    from loguru import Record

LogFields = Callable[[], Mapping[str, object]]

_SECRETS: Final = re.compile(
    r"(?i)(bearer\s+)[^\s\"',]+|\b(pat_|sat_|czs_|cztei_)[A-Za-z0-9_.-]+"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"
)
_REDIS_ADDRESS: Final = re.compile(r"(?i)(rediss?://)(\S+)")
"""All of it: a look for the ``@`` behind a password would begin anew at each of a thousand addresses."""
_REDIS_AT_THE_END: Final = re.compile(r"(?i)rediss?://\S*\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_ENDS: Final = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_QUOTED_INPUT: Final = re.compile(r"input_value=.*?, input_type=", re.DOTALL)
"""pydantic quotes what it refused: bodies, and records with what users wrote."""
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_MAX_FIELD: Final = 256
_MOST_LOOKED_AT: Final = 4 * _MAX_FIELD
_TO_BE_CLEANED: Final = re.compile(
    r"(?i:bearer|pat_|sat_|czs_|cztei_|redis|eyJ)|[\x00-\x1f\x7f-\x9f\u2028\u2029]"
)
"""What a text must hold for ``redact`` or ``one_line`` to change it: one look instead of two."""
_OF_SECRETS: Final = ("bearer", "pat_", "sat_", "czs_", "cztei_", "redis", "eyj")


def redact(text: str) -> str:
    """Takes tokens and passwords out of a text, in time that grows with its length alone: anybody's address
    is logged, before it is known who asks."""
    text = _SECRETS.sub(lambda m: (m[1] or m[2] or "") + "***", text)
    return _REDIS_ADDRESS.sub(_without_password, text)


def _without_password(address: re.Match[str]) -> str:
    login, _, server = address[2].rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{address[1]}{user}:***@{server}" if colon else address[0]


def one_line(text: str) -> str:
    """Control characters escaped: what a caller wrote cannot start a line of its own."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def _clean(value: object) -> object:
    """Redacted before it is cut: half a token is not recognised as one. What lies far behind the cut is not
    looked at, so half an address of Redis' there is taken for one with a password."""
    if not isinstance(value, str):
        return value
    if len(value) > _MOST_LOOKED_AT:
        value = _REDIS_AT_THE_END.sub("***", value[:_MOST_LOOKED_AT])
    return one_line(redact(value)[:_MAX_FIELD]) if _TO_BE_CLEANED.search(value) else value[:_MAX_FIELD]


def _is_harmless(text: str) -> bool:
    """Whether nothing of it can have to be cleaned, which is nearly always so, and found out in a tenth of
    the time that a regular expression takes. What is not ASCII is looked at by that one."""
    if not (text.isascii() and text.isprintable()):
        return False
    lower = text.lower()
    for part in _OF_SECRETS:  # noqa: SIM110  # any() with a generator takes twice as long
        if part in lower:
            return False
    return True


def _prepare(record: "Record", render: Callable[["Record"], str]) -> None:
    """Cleans a record, and leaves the line that it makes in ``extra["line"]``, for all sinks alike."""
    extra = record["extra"]
    fields: LogFields | None = extra.pop("fields", None)
    found = {**extra, **fields()} if fields is not None else dict(extra)
    extra.clear()
    texts = [value for value in found.values() if isinstance(value, str)]
    harmless = _is_harmless(" ".join([record["message"], *texts]))
    if not harmless and _TO_BE_CLEANED.search(record["message"]):
        record["message"] = one_line(redact(record["message"]))
    for name, value in found.items():
        if value is None or value == "":
            continue
        if not harmless:
            extra[name] = _clean(value)
        else:
            extra[name] = value[:_MAX_FIELD] if isinstance(value, str) else value
    extra["line"] = render(record)


def _exception_text(record: "Record") -> str:
    """The traceback without the values of variables, tokens and messages among them."""
    fault = record["exception"]
    if fault is None:
        return ""
    text = redact("".join(traceback.format_exception(fault.type, fault.value, fault.traceback)))
    text = _QUOTED_INPUT.sub("input_value=***, input_type=", text)
    return _LINE_ENDS.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def _json_line(record: "Record") -> str:
    line: dict[str, object] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
        **record["extra"],
    }
    if exception := _exception_text(record):
        line["exception"] = exception
    try:
        return orjson.dumps(line, default=str).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, which is no UTF-8
        return stdlib_json.dumps(line, default=str)


def _console_line(record: "Record") -> str:
    context = "".join(f"{name}={value} " for name, value in sorted(record["extra"].items()))
    line = f"{record['time']:HH:mm:ss.SSS} {record['level'].name: <7} {context}{record['message']}"
    return "\n".join(filter(None, (line, _exception_text(record).rstrip())))


def write_stdout(text: str) -> None:
    """In any encoding: where stdout's lacks a character, all beyond ASCII are written as in JSON."""
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        sys.stdout.write(_NOT_ASCII.sub(lambda m: stdlib_json.dumps(m[0])[1:-1], text))
    sys.stdout.flush()


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _ToLoguru(logging.Handler):
    """uvicorn's and the libraries' records, at their own level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in logging.getLevelNamesMapping() else "INFO"
        logger.opt(exception=record.exc_info, depth=6).log(level, "{}", record.getMessage())


def configure_logging(settings: Settings) -> None:
    """Sends all logging of the process through loguru to stdout, and to COZE_LOG_FILE where one is named; not
    with several workers: processes that rotate the same file would lose lines."""
    render = _json_line if settings.log_format == "json" else _console_line
    logger.remove()
    logger.configure(patcher=lambda record: _prepare(record, render))
    # A function and no text: loguru would put its own traceback behind a text.
    form = lambda _: "{extra[line]}\n"  # noqa: E731
    logger.add(write_stdout, level=settings.log_level, format=form)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], name != "uvicorn.access"
    for name in ("httpx", "httpcore", "aiohttp", "fakeredis", "opentelemetry"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not settings.log_file:
        return
    if settings.workers > 1:
        text = "COZE_LOG_FILE is for one process: with WORKERS={} the log goes to stdout alone"
        logger.warning(text, settings.workers)
        return
    try:
        logger.add(
            settings.log_file.replace("{", "{{").replace("}", "}}"),
            level=settings.log_level,
            format=form,
            rotation=int(settings.log_rotation_mb * 1_000_000),
            retention=timedelta(days=settings.log_retention_days),
            watch=True,
            errors="backslashreplace",
            opener=_for_its_owner,
        )
    except OSError as exc:
        fault = exc.strerror or type(exc).__name__
        logger.error("COZE_LOG_FILE cannot be opened, the log goes to stdout alone: {}", fault)
