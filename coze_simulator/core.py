"""One simulator's parts, and one request's way through them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from coze_simulator.errors import ApiError, DropConnection, HttpFault
from coze_simulator.knobs import CHAT_PATH, KnobBoard, Knobs
from coze_simulator.oauth import TokenOffice
from coze_simulator.options import WRONG_TOKEN, SimulatorOptions
from coze_simulator.outbox import Outbox
from coze_simulator.recorder import Record, Recorder
from coze_simulator.responses import WireResponse
from coze_simulator.state import Chat, Store
from coze_simulator.turn import Turn, end_failed
from coze_simulator.validate import bad, last_user_text
from coze_simulator.wire import Dialect, Json, dumps, make_dialect

PREFIX = "/coze"
UPSTREAM_MODES = ("ok", "refuse", "hang", "html502")
_HANG = 86_400.0  # seconds
_HTML = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_REASONS = {
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
logger = logging.getLogger("coze_simulator")


@dataclass(slots=True)
class Core:
    """Everything one simulator owns. ``upstream`` is one of UPSTREAM_MODES."""

    options: SimulatorOptions
    dialect: Dialect = field(init=False)
    store: Store = field(init=False)
    board: KnobBoard = field(default_factory=KnobBoard)
    recorder: Recorder = field(default_factory=Recorder)
    office: TokenOffice = field(default_factory=TokenOffice)
    upstream: str = "ok"
    open_streams: int = 0
    max_open_streams: int = 0
    tasks: dict[asyncio.Task[None], Chat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dialect = make_dialect(self.options.dialect, http_errors=self.options.http_errors)
        self.store = Store(self.options.max_conversations, self.options.id_seed)

    def start(self, chat: Chat, *, resumed: bool = False) -> asyncio.Task[None]:
        """Lets ``chat`` run in a task of its own, which outlives the request."""
        turn = Turn(self.store, self.dialect, self.options, chat)
        task = asyncio.create_task(turn.run(resumed=resumed), name=f"chat-{chat.id}")
        self.tasks[task] = chat
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)
        self.store.running -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("chat task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Ends all chats. For the end of the server's life."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stream(self, call: Call, chat: Chat, task: asyncio.Task[None], outbox: Outbox) -> Response:
        """The response that streams ``chat``."""
        policy = call.knobs.on_disconnect or self.options.on_disconnect

        def gone() -> None:
            if policy == "stop" and chat.running:
                # As if Coze noticed and gave up: no answer is kept.
                task.cancel()
                chat.messages.clear()
                end_failed(self.store, chat, 5000)
                self.store.drop_answers(chat)

        headers = {**self.dialect.stream_headers, self.dialect.logid_header: call.logid}
        if call.knobs.called is not None:
            headers["content-type"] = call.knobs.called
        return StreamResponse(
            self,
            outbox,
            status=200,
            headers=headers,
            knobs=call.knobs,
            on_gone=gone,
        )


class StreamResponse(WireResponse):
    """A stream that is counted while it is open."""

    def __init__(self, core: Core, outbox: Outbox, **kwargs: Any) -> None:
        super().__init__(outbox, **kwargs)
        self._core = core
        self._counted = False

    async def __call__(self, *args: Any) -> None:
        """Sends it."""
        core = self._core
        core.open_streams += 1
        self._counted = True
        core.max_open_streams = max(core.max_open_streams, core.open_streams)
        try:
            await super().__call__(*args)
        finally:
            self.over()

    def over(self) -> None:
        """Counted out before the last bytes leave, so that the client's next stream is not one too many."""
        if self._counted:
            self._counted = False
            self._core.open_streams -= 1


Handler = Callable[["Call"], Awaitable[Response]]


@dataclass(slots=True)
class Call:
    """One request to the API."""

    core: Core
    request: Request
    record: Record
    logid: str
    knobs: Knobs = field(default_factory=Knobs)
    identity: str = ""
    body: Json = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The simulator's memory."""
        return self.core.store

    @property
    def dialect(self) -> Dialect:
        """The simulator's dialect."""
        return self.core.dialect

    def query(self, name: str) -> str:
        """A query parameter, "" if absent."""
        return self.request.query_params.get(name, "")

    async def read_json(self) -> None:
        """Reads the body into :attr:`body`. Raises ApiError 4000 unless it is empty or a JSON object."""
        raw = await self.request.body()
        if not raw:
            return
        try:
            body = json.loads(raw)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise bad("the body is not valid JSON") from error
        if not isinstance(body, dict):
            raise bad("the body must be a JSON object")
        self.body = body

    def reply(self, data: object, **beside: object) -> Response:
        """A success in Coze's envelope."""
        return self.json(200, self.dialect.envelope(data, self.logid, **beside))

    def json(self, status: int, body: Json) -> Response:
        """A JSON response with the log id."""
        self.record.status, self.record.code = status, int(body.get("code") or 0)
        headers = {"content-type": "application/json; charset=utf-8", self.dialect.logid_header: self.logid}
        return WireResponse(dumps(body), status=status, headers=headers, knobs=self.knobs)

    def refusal_as_stream(self, error: ApiError) -> Response:
        """A stream whose first event is the refusal, and its last."""
        body = self.dialect.frame("error", {"code": error.code, "msg": error.msg})
        headers = {**self.dialect.stream_headers, self.dialect.logid_header: self.logid}
        return WireResponse(body, status=200, headers=headers, knobs=self.knobs)

    def unknown_path(self) -> Response:
        """The answer where there is no such endpoint."""
        return self.json(*self.dialect.unknown_path(self.logid))

    def raise_faults(self) -> None:
        """The refusals that the knobs ask for."""
        knobs = self.knobs
        if knobs.drop:
            raise DropConnection
        if knobs.http is not None:
            raise HttpFault(knobs.http, knobs.http_body, knobs.retry_after)
        if knobs.fail is not None:
            raise ApiError(knobs.fail, status=knobs.fail_http)

    def authenticate(self) -> None:
        """Sets :attr:`identity`. Raises ApiError 4100."""
        scheme, _, token = self.request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and token != WRONG_TOKEN:
            if token.startswith("pat_") and len(token) > len("pat_"):
                self.identity = token
            else:
                self.identity = self.core.office.identity_of(token) or ""
        if not self.identity:
            raise ApiError(4100)

    def fault(self, fault: HttpFault) -> Response:
        """A failure that is no envelope."""
        self.record.status = fault.status
        title = f"{fault.status} {_REASONS.get(fault.status, 'Error')}"
        kind = fault.body or ("html" if fault.status >= 502 else "text")
        bodies = {
            "html": ("text/html", _HTML.format(title)),
            "text": ("text/plain; charset=utf-8", title),
            "json": ("application/json", json.dumps({"message": title})),
            "empty": ("text/plain; charset=utf-8", ""),
        }
        content_type, text = bodies[kind]
        headers = {"content-type": content_type, self.dialect.logid_header: self.logid}
        if fault.retry_after is not None:
            headers["retry-after"] = f"{fault.retry_after:g}"
        return WireResponse(text.encode(), status=fault.status, headers=headers, knobs=self.knobs)


def split_mount(path: str) -> tuple[str, str]:
    """``/coze/v3/chat`` -> (``/coze``, ``/v3/chat``)."""
    if path == PREFIX or path.startswith(PREFIX + "/"):
        return PREFIX, path[len(PREFIX) :] or "/"
    return "", path


async def _dispatch(core: Core, request: Request, handler: Handler, *, raw: bool) -> Response:
    """Takes one API request through log, upstream mode, knobs and its handler."""
    mount, path = split_mount(request.url.path)
    query = dict(request.query_params)
    record = Record(
        method=request.method,
        path=path,
        mount=mount,
        query=query,
        conversation_id=query.get("conversation_id", ""),
        chat_id=query.get("chat_id", ""),
        headers={name: value for name, value in request.headers.items() if name != "authorization"},
    )
    call = Call(core, request, record, core.store.ids.logid())
    record.logid = call.logid
    core.recorder.add(record)
    began = time.monotonic()
    response = await _answer(call, handler, path, raw=raw)
    spent = (time.monotonic() - began) * 1000
    logger.info(
        "%s %s%s %s code=%s %.0fms %s",
        record.method,
        mount,
        path,
        record.status,
        record.code,
        spent,
        call.logid,
    )
    return response


async def _answer(call: Call, handler: Handler, path: str, *, raw: bool) -> Response:
    record = call.record
    try:
        _gate(call)
        if not raw:
            await call.read_json()
        text = _describe(call, path)
        call.knobs = call.core.board.resolve(path, text, directives=path.startswith(CHAT_PATH))
        call.raise_faults()
        response = await handler(call)
        record.status = record.status or response.status_code
        return response
    except ApiError as error:
        return call.json(*call.dialect.error(error, call.logid))
    except HttpFault as fault:
        return call.fault(fault)
    except (DropConnection, ClientDisconnect):
        return WireResponse(b"", status=200, headers={}, knobs=call.knobs, drop=True)


def _gate(call: Call) -> None:
    """The mode of the whole upstream. Raises HttpFault or DropConnection."""
    mode = call.core.upstream
    if mode == "html502":
        raise HttpFault(502)
    if mode == "refuse":
        raise DropConnection
    if mode == "hang":
        call.knobs = Knobs(first_byte=_HANG)
        raise DropConnection


def _describe(call: Call, path: str) -> str:
    """Notes in the log what is asked, and returns the text that rules are matched against."""
    record, body = call.record, call.body
    for name in ("conversation_id", "chat_id"):
        if path != CHAT_PATH and not getattr(record, name) and isinstance(body.get(name), str):
            setattr(record, name, body[name])
    meta_data = body.get("meta_data")
    if isinstance(meta_data, dict):
        record.meta_data = {str(key): str(value) for key, value in meta_data.items()}
    record.stream = body.get("stream") is True
    record.user_id = str(body.get("user_id") or "")
    if path == CHAT_PATH:
        record.message = last_user_text(body)
        return record.message
    outputs = body.get("tool_outputs")
    if isinstance(outputs, list):
        record.message = "\n".join(str(item.get("output")) for item in outputs if isinstance(item, dict))
        return record.message
    return " ".join((call.request.url.query, record.conversation_id, record.chat_id))


def endpoint_of(
    core: Core, handler: Handler, *, public: bool = False, raw: bool = False
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """``handler`` as a Starlette endpoint. ``public``: without a token; ``raw``: the body is left alone."""

    async def guarded(call: Call) -> Response:
        if not public:
            call.authenticate()
        return await handler(call)

    async def endpoint(request: Request) -> Response:
        return await _dispatch(core, request, guarded, raw=raw)

    return endpoint
