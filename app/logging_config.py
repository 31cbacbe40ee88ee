"""loguru: JSON lines or console, ids bound by ``logger.contextualize``, secrets redacted."""

import logging
import re
import sys
from typing import TYPE_CHECKING, Final

import orjson
from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

_SECRETS: Final = re.compile(
    r"(?i)(bearer\s+)[^\s\"',]+|\b(pat_|sat_|czs_|cztei_)[A-Za-z0-9_.-]+|(rediss?://[^:@/\s]*:)[^@\s]+(?=@)"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_CONSOLE: Final = "{time:HH:mm:ss.SSS} {level: <7} {extra[context]}{message}"


def redact(text: str) -> str:
    """Takes tokens out of a text."""
    return _SECRETS.sub(lambda m: (m[1] or m[2] or m[3] or "") + "***", text)


def one_line(text: str) -> str:
    """Control characters escaped: what a caller wrote cannot start a line of its own."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def _prepare(record: "Record") -> None:
    record["message"] = one_line(redact(record["message"]))
    ids = {name: value for name, value in record["extra"].items() if name != "context"}
    record["extra"]["context"] = "".join(f"{name}={one_line(str(ids[name]))} " for name in sorted(ids))


def _write_json(message: "Message") -> None:
    record = message.record
    line: dict[str, object] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
    }
    line |= {name: value for name, value in record["extra"].items() if name != "context"}
    if record["exception"] is not None:
        line["exception"] = redact(str(message).split("\n", 1)[-1])
    sys.stdout.write(orjson.dumps(line, default=str).decode() + "\n")
    sys.stdout.flush()


def _write_console(message: "Message") -> None:
    sys.stdout.write(redact(str(message)))
    sys.stdout.flush()


class _ToLoguru(logging.Handler):
    """uvicorn's and the libraries' records, at their own level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in logging.getLevelNamesMapping() else "INFO"
        logger.opt(exception=record.exc_info, depth=6).log(level, "{}", record.getMessage())


def configure_logging(*, level: str, json: bool) -> None:
    """Sends all logging of the process through loguru to stdout.

    ``diagnose`` stays off: it would print the values of variables, tokens and messages among them.
    """
    logger.remove()
    logger.configure(patcher=_prepare)
    sink = _write_json if json else _write_console
    logger.add(sink, level=level, format=_CONSOLE, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], name != "uvicorn.access"
    for name in ("httpx", "httpcore", "aiohttp", "fakeredis"):
        logging.getLogger(name).setLevel(logging.WARNING)
