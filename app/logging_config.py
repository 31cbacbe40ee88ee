"""loguru: JSON lines or console, ids bound by ``logger.contextualize``, secrets redacted.

Besides its own values a context may have ``fields``: a function that is asked for more at each line, since
who calls, the chat's id and Coze's logid are only known as things go on.
"""

import contextlib
import json as stdlib_json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

LogFields = Callable[[], Mapping[str, Any]]

_SECRETS: Final = re.compile(
    r"(?i)(bearer\s+)[^\s\"',]+|\b(pat_|sat_|czs_|cztei_)[A-Za-z0-9_.-]+|(rediss?://[^:@/\s]*:)[^@\s]+(?=@)"
    r"|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_ENDS: Final = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_INPUT: Final = re.compile(r"input_value=.*?, input_type=", re.DOTALL)
"""pydantic quotes what it refused: bodies, and records with what users wrote."""
_CONSOLE: Final = "{time:HH:mm:ss.SSS} {level: <7} {extra[context]}{message}"
_MAX_FIELD: Final = 256
_SUSPECT: Final = re.compile(r"(?i:bearer|pat_|sat_|czs_|cztei_|redis|eyJ)|[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What a text must hold for ``redact`` or ``one_line`` to change it: one look instead of two."""


def redact(text: str) -> str:
    """Takes tokens out of a text."""
    return _SECRETS.sub(lambda m: (m[1] or m[2] or m[3] or "") + "***", text)


def one_line(text: str) -> str:
    """Control characters escaped: what a caller wrote cannot start a line of its own."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def _clean(value: Any) -> Any:
    """Redacted before it is cut: half a token is not recognised as one."""
    if not isinstance(value, str):
        return value
    return one_line(redact(value)[:_MAX_FIELD]) if _SUSPECT.search(value) else value[:_MAX_FIELD]


def _prepare(record: "Record") -> None:
    if _SUSPECT.search(record["message"]):
        record["message"] = one_line(redact(record["message"]))
    extra = dict(record["extra"])
    fields: LogFields | None = extra.pop("fields", None)
    found = {**extra, **fields()} if fields is not None else extra
    found = {name: _clean(value) for name, value in found.items() if value is not None and value != ""}
    record["extra"].clear()
    record["extra"].update(found)


def _prepare_for_console(record: "Record") -> None:
    _prepare(record)
    found = record["extra"]
    found["context"] = "".join(f"{name}={found[name]} " for name in sorted(found))


def _exception_text(message: "Message") -> str:
    text = redact(str(message).split("\n", 1)[-1])
    text = _INPUT.sub("input_value=***, input_type=", text)
    return _LINE_ENDS.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def _json_line(message: "Message") -> str:
    record = message.record
    line: dict[str, object] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
    }
    line |= record["extra"]
    if record["exception"] is not None:
        line["exception"] = _exception_text(message)
    try:
        return orjson.dumps(line, default=str).decode() + "\n"
    except orjson.JSONEncodeError:  # half a surrogate pair, which is no UTF-8
        return stdlib_json.dumps(line, default=str) + "\n"


def _console_line(message: "Message") -> str:
    text = str(message)
    if message.record["exception"] is not None:
        return text.split("\n", 1)[0] + "\n" + _exception_text(message)
    return redact(text)


class LogFile:
    """A file that any number of processes append to, and that is rotated once.

    A line is one ``write`` to a file opened for appending, so lines of several processes do not mix. At
    midnight, or past ``max_bytes``, whoever notices first renames the file under a lock; the others see that
    the name leads elsewhere and open it anew, as they do when an outside tool rotates it. Renamed files are
    kept for ``keep_days``.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep_days: float) -> None:
        self._path = path.absolute()
        self._max_bytes = max_bytes
        self._keep_seconds = keep_days * 86_400
        self._file = -1
        self._day = ""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        self._drop_old()

    def write(self, line: str) -> None:
        data = line.encode(errors="backslashreplace")
        if self._is_elsewhere():
            self._open()
        if self._day != _day_of(time.time()) or self._size() + len(data) > self._max_bytes:
            self._rotate()
        os.write(self._file, data)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.close()
        self._file = opened
        state = os.fstat(opened)
        self._day = _day_of(state.st_mtime if state.st_size else time.time())

    def _is_elsewhere(self) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return True
        return self._file < 0 or not os.path.samestat(named, os.fstat(self._file))

    def _size(self) -> int:
        return os.fstat(self._file).st_size

    def _rotate(self) -> None:
        import fcntl  # POSIX alone; without COZE_LOG_FILE the service runs elsewhere, too

        if self._size() == 0:  # a line longer than the bound, or the first one of a day
            self._day = _day_of(time.time())
            return
        path = self._path
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._is_elsewhere():  # else another process was faster
                stamp = time.strftime("%Y-%m-%d_%H-%M-%S") + f"_{time.time_ns() // 1000 % 1_000_000:06d}"
                path.rename(path.with_name(f"{path.stem}.{stamp}{path.suffix}"))
                self._drop_old()
            self._open()

    def _drop_old(self) -> None:
        oldest = time.time() - self._keep_seconds
        for file in self._path.parent.glob(f"{self._path.stem}.*{self._path.suffix}"):
            with contextlib.suppress(FileNotFoundError):
                if file != self._path and file.stat().st_mtime < oldest:
                    file.unlink()


def _day_of(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))


class _Sink:
    """Each line once rendered, to stdout and to the file."""

    def __init__(self, render: Callable[["Message"], str], file: LogFile | None) -> None:
        self._render = render
        self._file = file

    def write(self, message: "Message") -> None:
        line = self._render(message)
        sys.stdout.write(line)
        sys.stdout.flush()
        if self._file is not None:
            self._file.write(line)

    def stop(self) -> None:
        """loguru calls it when the sink is replaced."""
        if self._file is not None:
            self._file.close()


class _ToLoguru(logging.Handler):
    """uvicorn's and the libraries' records, at their own level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in logging.getLevelNamesMapping() else "INFO"
        logger.opt(exception=record.exc_info, depth=6).log(level, "{}", record.getMessage())


def configure_logging(
    *, level: str, json: bool, file: str = "", max_bytes: int = 100_000_000, keep_days: float = 7
) -> None:
    """Sends all logging of the process through loguru to stdout, and to ``file`` where one is named.

    ``diagnose`` stays off: it would print the values of variables, tokens and messages among them.
    """
    logger.remove()
    logger.configure(patcher=_prepare if json else _prepare_for_console)
    opened, fault = None, ""
    if file:
        try:
            opened = LogFile(Path(file), max_bytes=max_bytes, keep_days=keep_days)
        except OSError as exc:
            fault = exc.strerror or type(exc).__name__
    sink = _Sink(_json_line if json else _console_line, opened)
    form = "{message}" if json else _CONSOLE
    logger.add(sink, level=level, format=form, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], name != "uvicorn.access"
    for name in ("httpx", "httpcore", "aiohttp", "fakeredis", "opentelemetry"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if fault:
        logger.error("COZE_LOG_FILE cannot be opened, logging to stdout alone: {}", fault)
