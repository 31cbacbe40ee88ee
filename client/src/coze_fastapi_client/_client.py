"""The blocking client. Made by ``scripts/sync_client.py`` from ``_async_client.py``: edit that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import httpx

from ._calls import Calls
from ._errors import ConnectionLost
from ._flows import (
    STEPS,
    Flow,
    Open,
    Opened,
    Read,
    Reply,
    RunningFlow,
    Send,
    Settings,
    Step,
    connection_errors,
)
from ._models import (
    Bot,
    Chat,
    ChatPage,
    ClearedContext,
    Conversation,
    ConversationPage,
    Erased,
    GivenFeedback,
    Health,
    HistoryPage,
    MessageOptions,
    RegenerateOptions,
    Session,
    SessionOptions,
    StoredFile,
    UsageReport,
)
from ._sse import Event
from ._stream import StreamState
from ._view import StreamView

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""A stream is a connection for as long as it lasts."""


class StepRunner:
    """Carries out one flow's steps, and holds its open stream."""

    def __init__(self, http: httpx.Client, settings: Settings) -> None:
        self._http = http
        self._settings = settings
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def perform(self, step: Step) -> Reply | bytes | None:
        """Raises ConnectionLost."""
        with connection_errors():
            if isinstance(step, Send):
                response = self._http.send(self._build(step), follow_redirects=False)
                return Reply(response.status_code, response.headers, response.content)
            if isinstance(step, Open):
                return self._open(self._build(step))
            if isinstance(step, Read):
                return self._read()
            time.sleep(step.seconds)
        return None

    def _build(self, step: Send | Open) -> httpx.Request:
        return self._http.build_request(**step.request.build(self._settings))

    def _read(self) -> bytes:
        if self._chunks is not None:
            for chunk in self._chunks:
                return chunk
        return b""

    def _open(self, request: httpx.Request) -> Reply:
        self.close()
        response = self._http.send(request, stream=True, follow_redirects=False)
        reply = Reply(response.status_code, response.headers)
        if reply.status < 400 and reply.streaming:
            self._response, self._chunks = response, response.iter_bytes()
            return reply
        try:
            return Reply(reply.status, reply.headers, response.read())
        finally:
            response.close()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response, self._chunks = None, None


class FlowRunner:
    """Runs flows over one pool of connections."""

    def __init__(self, http: httpx.Client, settings: Settings) -> None:
        self._http = http
        self._settings = settings

    def steps(self) -> StepRunner:
        return StepRunner(self._http, self._settings)

    def run(self, flow: Flow[T]) -> T:
        running, steps = RunningFlow(flow), self.steps()
        while running.step is not None:
            try:
                outcome = steps.perform(running.step)
            except ConnectionLost as lost:
                running.fail(lost)
            else:
                running.answer(outcome)
        value: T = running.value  # type: ignore[assignment]  # it is over, so it has returned one
        return value


class Stream(StreamView):
    """A chat's events to their end, over as many connections as that takes. Use it as a context manager:
    entering raises what the service refuses, leaving closes the connection (the chat goes on).

    Iterating gives each event of the chat once and in order; lost connections are resumed by themselves.
    Raises StreamBroken when that did not help within ``patience``.
    """

    def __init__(self, runner: FlowRunner, state: StreamState) -> None:
        super().__init__(state)
        self._steps = runner.steps()

    def __enter__(self) -> Self:
        self._next()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._running.close()
        self._steps.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        item = self._next()
        if isinstance(item, Opened):
            item = self._next()
        if not isinstance(item, Event):
            self._steps.close()
            raise StopIteration
        return item

    def _next(self) -> Event | Opened | None:
        running = self._running
        if isinstance(running.step, (Event, Opened)):
            running.answer()
        while isinstance(running.step, STEPS):
            try:
                outcome = self._steps.perform(running.step)
            except ConnectionLost as lost:
                running.fail(lost)
            else:
                running.answer(outcome)
        item: Event | Opened | None = running.step
        return item

    def text_deltas(self) -> Iterator[str]:
        """The answer's text piece by piece; a ``Replacement`` stands for all pieces before it. Raises the
        chat's error at the end of one that failed."""
        for event in self:
            if event.has_text:
                yield event.text
        self._final().raise_for_error()

    def result(self) -> Chat:
        """Reads to the end; the final chat, also of one that failed."""
        for _ in self:
            pass
        return self._final()


class Sessions:
    def __init__(self, runner: FlowRunner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls

    def create(self, user_id: str, **options: Unpack[SessionOptions]) -> Session:
        """Opens a session for one of your users."""
        return self._runner.run(self._calls.create_session(user_id, options))

    def get(self, session_id: str, *, history_limit: int = 20) -> Session:
        """The session with its newest chats (0 to 100). Looking counts as activity."""
        return self._runner.run(self._calls.get_session(session_id, history_limit))

    def list(self, user_id: str, *, limit: int = 100) -> tuple[Session, ...]:
        """The user's live sessions, newest activity first."""
        return self._runner.run(self._calls.list_sessions(user_id, limit))

    def update(
        self, session_id: str, *, title: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Session:
        """Renames the session, or replaces its metadata as a whole."""
        return self._runner.run(self._calls.update_session(session_id, title, metadata))

    def delete(self, session_id: str) -> Session:
        """Ends the session; its running chats are cancelled. A second time answers the same."""
        return self._runner.run(self._calls.delete_session(session_id))

    def history(
        self,
        session_id: str,
        *,
        limit: int = 20,
        order: Literal["desc", "asc"] = "desc",
        before: str | None = None,
        after: str | None = None,
    ) -> HistoryPage:
        """A page of the conversation's messages as Coze keeps them, newest first unless ``order`` is asc."""
        return self._runner.run(self._calls.history(session_id, limit, order, before, after))

    def clear(self, session_id: str) -> ClearedContext:
        """The bot forgets what was said; the messages stay in the history."""
        return self._runner.run(self._calls.clear(session_id))


class Chats:
    def __init__(self, runner: FlowRunner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls

    def send(
        self, session_id: str, message: str, *, wait: float = 30.0, **options: Unpack[MessageOptions]
    ) -> Chat:
        """The answer, or after ``wait`` seconds (at most 600) the chat as it stands: it goes on, and ``wait``
        or ``result`` has the rest. Raises the error of a chat that failed."""
        return self._runner.run(self._calls.send(session_id, message, wait, options))

    def stream(self, session_id: str, message: str, **options: Unpack[MessageOptions]) -> Stream:
        """The answer as it comes. One chat, however often the connection has to be made anew."""
        return Stream(self._runner, self._calls.stream(session_id, message, options))

    def follow(self, chat_id: str, *, after: str | None = None) -> Stream:
        """A chat's stream from its start, or behind an event id."""
        return Stream(self._runner, self._calls.follow(chat_id, after))

    def list(self, session_id: str, *, limit: int = 20, before: str | None = None) -> ChatPage:
        """A page of the session's chats, newest first."""
        return self._runner.run(self._calls.list_chats(session_id, limit, before))

    def result(self, chat_id: str, *, wait: float = 0.0) -> Chat:
        """The chat as it stands, or once it is settled, within ``wait`` seconds (at most 60)."""
        return self._runner.run(self._calls.result(chat_id, wait))

    def wait(self, chat_id: str, *, timeout: float | None = None) -> Chat:
        """The chat once it is settled. Raises WaitTimeout."""
        return self._runner.run(self._calls.wait(chat_id, timeout))

    def cancel(self, chat_id: str) -> Chat:
        """Cancels, here and at Coze; a chat that is over answers as it is."""
        return self._runner.run(self._calls.cancel(chat_id))

    def submit_tool_outputs(self, chat_id: str, outputs: Mapping[str, str], *, wait: float = 30.0) -> Chat:
        """Answers all of ``chat.tool_calls`` (call id -> output); the chat goes on under its id."""
        return self._runner.run(self._calls.submit_tool_outputs(chat_id, outputs, wait))

    def stream_tool_outputs(
        self, chat_id: str, outputs: Mapping[str, str], *, after: str | None = None
    ) -> Stream:
        """The same, streamed. ``after``: the chat's ``last_event_id``; its text so far comes again as one
        piece."""
        return Stream(self._runner, self._calls.stream_tool_outputs(chat_id, outputs, after))

    def regenerate(self, chat_id: str, *, wait: float = 30.0, **options: Unpack[RegenerateOptions]) -> Chat:
        """Asks the message of the session's newest chat once more, as a new chat; Coze keeps both turns."""
        return self._runner.run(self._calls.regenerate(chat_id, wait, options))

    def stream_regenerated(self, chat_id: str, **options: Unpack[RegenerateOptions]) -> Stream:
        """The same, streamed."""
        return Stream(self._runner, self._calls.stream_regenerated(chat_id, options))

    def give_feedback(
        self,
        chat_id: str,
        feedback_type: Literal["like", "unlike"],
        *,
        reason_types: Iterable[str] = (),
        comment: str = "",
    ) -> GivenFeedback:
        """Coze keeps it with the answer; the last one counts."""
        return self._runner.run(self._calls.give_feedback(chat_id, feedback_type, reason_types, comment))

    def take_feedback_back(self, chat_id: str) -> GivenFeedback:
        return self._runner.run(self._calls.take_feedback_back(chat_id))


class Conversations:
    def __init__(self, runner: FlowRunner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls

    def list(self, user_id: str, *, limit: int = 50, before: str | None = None) -> ConversationPage:
        """A page of what the user has had, the last used first; it outlives sessions."""
        return self._runner.run(self._calls.list_conversations(user_id, limit, before))

    def rename(self, user_id: str, conversation_id: str, title: str) -> Conversation:
        return self._runner.run(self._calls.rename_conversation(user_id, conversation_id, title))

    def delete(self, user_id: str, conversation_id: str) -> None:
        """At Coze, too; sessions that go on with it end. Raises NotFound a second time."""
        self._runner.run(self._calls.delete_conversation(user_id, conversation_id))


class Bots:
    def __init__(self, runner: FlowRunner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls

    def list(self) -> tuple[Bot, ...]:
        """The configured ones, the default first."""
        return self._runner.run(self._calls.list_bots())

    def get(self, bot_id: str) -> Bot:
        return self._runner.run(self._calls.get_bot(bot_id))


class Users:
    def __init__(self, runner: FlowRunner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls

    def erase(self, user_id: str) -> Erased:
        """Erases all that is kept of the user."""
        return self._runner.run(self._calls.erase_user(user_id))


class Files:
    def __init__(self, runner: FlowRunner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls

    def upload(
        self,
        name: str,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> StoredFile:
        """Passes a file on to Coze, to go along with messages: ``attachments=[{"file_id": file.file_id}]``.
        It is sent again only where it was refused before it was read: a second one would be another file."""
        return self._runner.run(self._calls.upload(name, content, content_type, session_id, user_id))

    def get(self, file_id: str) -> StoredFile:
        return self._runner.run(self._calls.get_file(file_id))

    def delete(self, file_id: str) -> StoredFile:
        """The service forgets it; Coze deletes it when its time is up."""
        return self._runner.run(self._calls.delete_file(file_id))


class CozeClient:
    """Talks to one coze-fastapi service (or to the balancer before its replicas).

    ``token`` (or a function that returns it) and ``host`` go as HtySudoerToken and HtyHost; a caller without
    has an ``api_key`` (one of the service's COZE_API_KEYS, or a function that returns it). ``timeout``:
    seconds to connect, and to answer what needs no waiting. ``max_retries``: of a call. ``patience``:
    seconds that a call, or a stream without news, may go on failing. ``heartbeat``: the service's
    SSE_HEARTBEAT_SECONDS. ``http``: an httpx client of your own, which stays yours to close.
    Threads may share a client; a stream belongs to one of them at a time.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | Callable[[], str] | None = None,
        host: str | None = None,
        timeout: float = 10.0,
        max_retries: int = 4,
        patience: float = 60.0,
        heartbeat: float = 15.0,
        http: httpx.Client | None = None,
        api_key: str | Callable[[], str] | None = None,
    ) -> None:
        settings = Settings(base_url, token, host, timeout, max_retries, patience, heartbeat, api_key)
        self._own = http is None
        self._http = http or httpx.Client(limits=_LIMITS)
        self._runner = FlowRunner(self._http, settings)
        self._calls = Calls(settings)
        self.sessions = Sessions(self._runner, self._calls)
        self.chats = Chats(self._runner, self._calls)
        self.conversations = Conversations(self._runner, self._calls)
        self.bots = Bots(self._runner, self._calls)
        self.users = Users(self._runner, self._calls)
        self.files = Files(self._runner, self._calls)

    def health(self) -> Health:
        """Raises Unavailable where the service cannot reach its Redis."""
        return self._runner.run(self._calls.health())

    def usage(self, *, since: str | None = None, to: str | None = None, group_by: str = "day") -> UsageReport:
        """Chats and tokens of the caller (an admin: of the root). Days as ``2026-11-22`` (UTC, inclusive; by
        default the last 30); ``group_by``: of day, bot, user and root, with commas."""
        return self._runner.run(self._calls.usage(since, to, group_by))

    def close(self) -> None:
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
