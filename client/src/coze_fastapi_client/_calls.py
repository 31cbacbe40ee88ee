"""The service's calls: which request each is, and what its answer means. No I/O."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from ._errors import WaitTimeout
from ._flows import Flow, Pause, Request, Settings, call, data_of, path
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
    Model,
    RegenerateOptions,
    Session,
    SessionOptions,
    StoredFile,
    UsageReport,
)
from ._stream import StreamState

M = TypeVar("M", bound=Model)
_UPLOAD: Final = 120.0
"""Seconds until a file has been passed on to Coze."""
_LONGEST_POLL: Final = 60.0
"""Seconds that ``GET result`` takes as ``wait``."""


def _known(
    options: Mapping[str, Any], kind: type[SessionOptions | MessageOptions | RegenerateOptions]
) -> dict[str, Any]:
    """Those given; a misspelt one would otherwise be ignored by the service."""
    unknown = options.keys() - kind.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    return {name: value for name, value in options.items() if value is not None}


def _outputs(outputs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"tool_call_id": call_id, "output": output} for call_id, output in outputs.items()]


def _prefer(wait: float) -> dict[str, str]:
    """RFC 7240; ``wait`` is whole seconds there."""
    return {"Prefer": f"wait={math.ceil(wait)}" if wait > 0 else "respond-async"}


class Calls:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def _fetch(self, model: type[M], request: Request) -> Flow[M]:
        return model.parse(data_of((yield from call(self._settings, request))))

    # -- sessions ----------------------------------------------------------------------------------------

    def create_session(self, user_id: str, options: SessionOptions) -> Flow[Session]:
        body = {"user_id": user_id, **_known(options, SessionOptions)}
        headers = {"Idempotency-Key": body.pop("idempotency_key", None) or str(uuid.uuid4())}
        return self._fetch(Session, Request("POST", "/coze/sessions", json=body, headers=headers))

    def get_session(self, session_id: str, history_limit: int) -> Flow[Session]:
        params = {"history_limit": str(history_limit)}
        return self._fetch(Session, Request("GET", path("/coze/sessions/{}", session_id), params=params))

    def update_session(
        self, session_id: str, title: str | None, metadata: Mapping[str, str] | None
    ) -> Flow[Session]:
        given = {"title": title, "metadata": metadata}
        body = {name: value for name, value in given.items() if value is not None}
        return self._fetch(Session, Request("PATCH", path("/coze/sessions/{}", session_id), json=body))

    def delete_session(self, session_id: str) -> Flow[Session]:
        return self._fetch(Session, Request("DELETE", path("/coze/sessions/{}", session_id)))

    def list_sessions(self, user_id: str, limit: int) -> Flow[tuple[Session, ...]]:
        where = path("/coze/users/{}/sessions", user_id)
        reply = yield from call(self._settings, Request("GET", where, params={"limit": str(limit)}))
        return tuple(Session.parse(session) for session in data_of(reply)["sessions"])

    def erase_user(self, user_id: str) -> Flow[Erased]:
        sessions = chats = files = 0
        while True:
            erased = yield from self._fetch(Erased, Request("DELETE", path("/coze/users/{}", user_id)))
            sessions, chats = sessions + erased.erased_sessions, chats + erased.erased_chats
            files += erased.erased_files
            # What cannot be erased now is told, not tried for ever.
            if not erased.remaining_sessions or not (erased.erased_sessions or erased.erased_files):
                return Erased(user_id, sessions, chats, erased.remaining_sessions, files)

    def history(
        self, session_id: str, limit: int, order: str, before: str | None, after: str | None
    ) -> Flow[HistoryPage]:
        places = {"before": before, "after": after}
        params = {"limit": str(limit), "order": order, **{key: at for key, at in places.items() if at}}
        where = path("/coze/sessions/{}/history", session_id)
        return self._fetch(HistoryPage, Request("GET", where, params=params))

    def clear(self, session_id: str) -> Flow[ClearedContext]:
        return self._fetch(ClearedContext, Request("POST", path("/coze/sessions/{}/clear", session_id)))

    # -- chats -------------------------------------------------------------------------------------------

    def _message(
        self, session_id: str, message: str, options: MessageOptions, *, stream: bool, wait: float = 0.0
    ) -> Request:
        body = {"message": message, "stream": stream, **_known(options, MessageOptions)}
        headers = {"Idempotency-Key": body.pop("idempotency_key", None) or str(uuid.uuid4())}
        return Request(
            "POST",
            path("/coze/sessions/{}/messages", session_id),
            json=body,
            headers=headers if stream else headers | _prefer(wait),
            read_timeout=wait + self._settings.timeout,
        )

    def send(self, session_id: str, message: str, wait: float, options: MessageOptions) -> Flow[Chat]:
        return self._fetch(Chat, self._message(session_id, message, options, stream=False, wait=wait))

    def stream(self, session_id: str, message: str, options: MessageOptions) -> StreamState:
        return StreamState(self._settings, self._message(session_id, message, options, stream=True))

    def follow(self, chat_id: str, after: str | None) -> StreamState:
        headers = {"Last-Event-ID": after} if after else {}
        request = Request("GET", path("/coze/chats/{}/events", chat_id), headers=headers)
        return StreamState(self._settings, request, chat_id=chat_id, after=after, whole=not after)

    def list_chats(self, session_id: str, limit: int, before: str | None) -> Flow[ChatPage]:
        params = {"limit": str(limit)} | ({"before": before} if before else {})
        return self._fetch(
            ChatPage, Request("GET", path("/coze/sessions/{}/chats", session_id), params=params)
        )

    def result(self, chat_id: str, wait: float) -> Flow[Chat]:
        wait = max(0.0, min(wait, _LONGEST_POLL))
        request = Request(
            "GET",
            path("/coze/chats/{}/result", chat_id),
            params={"wait": f"{wait:g}"},
            read_timeout=wait + self._settings.timeout,
        )
        return self._fetch(Chat, request)

    def wait(self, chat_id: str, timeout: float | None) -> Flow[Chat]:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            chat = yield from self.result(chat_id, deadline - time.monotonic())
            if chat.settled:
                return chat
            if time.monotonic() >= deadline:
                raise WaitTimeout(chat)
            # A service that is about to leave answers at once.
            yield Pause(0.2)

    def cancel(self, chat_id: str) -> Flow[Chat]:
        return self._fetch(Chat, Request("POST", path("/coze/chats/{}/cancel", chat_id)))

    def _tool_outputs(
        self, chat_id: str, outputs: Mapping[str, str], *, stream: bool, wait: float
    ) -> Request:
        headers = {"Idempotency-Key": str(uuid.uuid4())}  # a second try leads to what the first one began
        return Request(
            "POST",
            path("/coze/chats/{}/tool_outputs", chat_id),
            json={"tool_outputs": _outputs(outputs), "stream": stream},
            headers=headers if stream else headers | _prefer(wait),
            read_timeout=wait + self._settings.timeout,
        )

    def submit_tool_outputs(self, chat_id: str, outputs: Mapping[str, str], wait: float) -> Flow[Chat]:
        return self._fetch(Chat, self._tool_outputs(chat_id, outputs, stream=False, wait=wait))

    def stream_tool_outputs(self, chat_id: str, outputs: Mapping[str, str], after: str | None) -> StreamState:
        request = self._tool_outputs(chat_id, outputs, stream=True, wait=0.0)
        return StreamState(self._settings, request, chat_id=chat_id, after=after)

    def _regenerate(
        self, chat_id: str, options: RegenerateOptions, *, stream: bool, wait: float = 0.0
    ) -> Request:
        body = {"stream": stream, **_known(options, RegenerateOptions)}
        headers = {"Idempotency-Key": body.pop("idempotency_key", None) or str(uuid.uuid4())}
        return Request(
            "POST",
            path("/coze/chats/{}/regenerate", chat_id),
            json=body,
            headers=headers if stream else headers | _prefer(wait),
            read_timeout=wait + self._settings.timeout,
        )

    def regenerate(self, chat_id: str, wait: float, options: RegenerateOptions) -> Flow[Chat]:
        return self._fetch(Chat, self._regenerate(chat_id, options, stream=False, wait=wait))

    def stream_regenerated(self, chat_id: str, options: RegenerateOptions) -> StreamState:
        return StreamState(self._settings, self._regenerate(chat_id, options, stream=True))

    def give_feedback(
        self, chat_id: str, feedback_type: str, reason_types: Iterable[str], comment: str
    ) -> Flow[GivenFeedback]:
        body = {"feedback_type": feedback_type, "reason_types": list(reason_types), "comment": comment}
        return self._fetch(
            GivenFeedback, Request("POST", path("/coze/chats/{}/feedback", chat_id), json=body)
        )

    def take_feedback_back(self, chat_id: str) -> Flow[GivenFeedback]:
        return self._fetch(GivenFeedback, Request("DELETE", path("/coze/chats/{}/feedback", chat_id)))

    # -- conversations, bots -----------------------------------------------------------------------------

    def list_conversations(self, user_id: str, limit: int, before: str | None) -> Flow[ConversationPage]:
        params = {"limit": str(limit)} | ({"before": before} if before else {})
        where = path("/coze/users/{}/conversations", user_id)
        return self._fetch(ConversationPage, Request("GET", where, params=params))

    def rename_conversation(self, user_id: str, conversation_id: str, title: str) -> Flow[Conversation]:
        where = path("/coze/users/{}/conversations/{}", user_id, conversation_id)
        return self._fetch(Conversation, Request("PATCH", where, json={"title": title}))

    def delete_conversation(self, user_id: str, conversation_id: str) -> Flow[None]:
        where = path("/coze/users/{}/conversations/{}", user_id, conversation_id)
        yield from call(self._settings, Request("DELETE", where))

    def list_bots(self) -> Flow[tuple[Bot, ...]]:
        reply = yield from call(self._settings, Request("GET", "/coze/bots"))
        return tuple(Bot.parse(bot) for bot in data_of(reply)["bots"])

    def get_bot(self, bot_id: str) -> Flow[Bot]:
        return self._fetch(Bot, Request("GET", path("/coze/bots/{}", bot_id)))

    # -- files, usage ------------------------------------------------------------------------------------

    def upload(
        self, name: str, content: bytes, content_type: str, session_id: str | None, user_id: str | None
    ) -> Flow[StoredFile]:
        whose = {"session_id": session_id, "user_id": user_id}
        request = Request(
            "POST",
            "/coze/files",
            params={key: value for key, value in whose.items() if value},
            files={"file": (name, content, content_type)},
            read_timeout=_UPLOAD,
            repeatable=False,
        )
        return self._fetch(StoredFile, request)

    def get_file(self, file_id: str) -> Flow[StoredFile]:
        return self._fetch(StoredFile, Request("GET", path("/coze/files/{}", file_id)))

    def delete_file(self, file_id: str) -> Flow[StoredFile]:
        return self._fetch(StoredFile, Request("DELETE", path("/coze/files/{}", file_id)))

    def usage(self, since: str | None, to: str | None, group_by: str) -> Flow[UsageReport]:
        days = {"from": since, "to": to}
        params = {"group_by": group_by, **{name: day for name, day in days.items() if day}}
        reply = yield from call(self._settings, Request("GET", "/coze/usage", params=params))
        data = data_of(reply)
        return UsageReport.parse({**data, "since": data.get("from")})

    # -- the service -------------------------------------------------------------------------------------

    def health(self) -> Flow[Health]:
        return self._fetch(Health, Request("GET", "/coze/health"))
