"""A chat's frames as Coze's own stream, for one reader.

Coze's events go out as Coze wrote them: no blank behind the colon, one data line, no ids and no comments, at
which Coze's SDKs stop. What is ours alone is left out. What a client has is only looked into where the log
goes on in another way than it read on: after a takeover, or where the log was trimmed.
"""

from typing import Any, Final

import orjson

from app.doors.coze.views import Json, chat_just_begun, chat_of_record
from app.exceptions import ServiceError
from app.models import Cursor
from app.models.chats import OUR_META_KEY
from app.tasks.frames import data_of
from app.tasks.owned import Begun
from app.tasks.passed import is_hidden, is_ours, shown
from app.tasks.reader import Batch, Ending

_DELTA: Final = b"event: conversation.message.delta\ndata: "
_DELTA_LENGTH: Final = len(_DELTA)
_DELTA_OUT: Final = b"event:conversation.message.delta\ndata:"
_BLANK: Final = 0x20
_SNAPSHOT: Final = b"event: snapshot\n"
_COMPLETED: Final = "conversation.message.completed"
_CHAT: Final = "conversation.chat."
_ENDS: Final = frozenset(f"{_CHAT}{how}" for how in ("completed", "failed", "requires_action", "canceled"))
_CANCELLED: Final = f"{_CHAT}cancelled"
_FAILURES: Final = frozenset({"error", f"{_CHAT}failed"})
_DONE: Final = b'event:done\ndata:"[DONE]"\n\n'
_OUR_KEY: Final = OUR_META_KEY.encode()


def event(name: str, data: bytes) -> bytes:
    """An event as Coze writes it; line breaks between the tokens of its JSON become blanks."""
    return b"event:%b\ndata:%b\n\n" % (name.encode(), data)


class _Told:
    """What a client has of one message."""

    __slots__ = ("content", "reasoning")

    def __init__(self) -> None:
        self.content = self.reasoning = ""


class CozeDialect:
    """One stream. ``goes_on``: it goes on after tool outputs, so that the chat is not told as created
    again."""

    opening: Final = b""
    heartbeat: Final = b"\n"
    """A blank line: Coze's SDKs read over it, and take a comment for a fault."""

    def __init__(self, begun: Begun, *, goes_on: bool = False) -> None:
        self._begun = begun
        self._stage = 1 if goes_on else 0
        """How much of the chat's beginning was told: nothing, that it is created, that it is in progress."""
        self._goes_on = goes_on
        self._before: dict[str, _Told] = {}
        """What the client got by the stream before, where this one goes on."""
        self._passed: list[bytes] = []
        """Frames that were passed on, for as long as nobody has had to look into them."""
        self._told: dict[str, _Told] | None = None
        """What the client has of each message, once that has to be known."""
        self._log: dict[str, _Told] = {}
        """What the log says of each, from then on."""
        self._completed: set[str] = set()
        self._held: list[tuple[str, bytes]] = []
        """From Coze's own end on nothing goes out before the end is committed: a client that has read it
        sends its next message."""

    # -- what comes --------------------------------------------------------------------------------------

    def batch(self, batch: Batch) -> bytes:
        if self._stage == 2 and self._told is None and not self._held:
            return b"".join(map(self._quick, batch.frames))
        return b"".join(map(self._frame, batch.frames))

    def _quick(self, frame: bytes) -> bytes:
        """Nearly all frames are deltas, of which nothing has to be known."""
        if not frame.startswith(_DELTA) or self._told is not None or self._held:
            return self._frame(frame)
        if frame[_DELTA_LENGTH] == _BLANK:  # our mark
            return b""
        self._passed.append(frame)
        if frame.count(b"\n") > 3:
            return event("conversation.message.delta", _data(frame))
        return _DELTA_OUT + frame[_DELTA_LENGTH:]

    def _frame(self, frame: bytes) -> bytes:
        if is_hidden(frame):
            frame = shown(frame)
            name = _name(frame)
            if name in _ENDS or name in _FAILURES or name == _CANCELLED:
                self._held.append((name, event(name, _without_our_key(_data(frame)))))
                return b""
            return self._out(name, frame)
        if frame.startswith(_SNAPSHOT):
            return self._snapshot(data_of(frame))
        name = _name(frame)
        if name == "chat" or name in _ENDS or name == "error":
            return b""  # ours; ends are told once they are committed
        if self._told is not None and name in ("conversation.message.delta", _COMPLETED):
            return self._careful(name, frame)
        return b"" if is_ours(frame) else self._out(name, frame)

    def _out(self, name: str, frame: bytes) -> bytes:
        """``frame`` as it goes to the client, behind what of the beginning is missing."""
        if name == f"{_CHAT}created":
            missing, self._stage = b"", max(self._stage, 1)
        elif name == f"{_CHAT}in_progress":
            missing, self._stage = self._beginning(1), 2
        else:
            missing, self._stage = self._beginning(2), 2
        if self._told is None:
            self._passed.append(frame)
        data = _data(frame)
        piece = event(name, _without_our_key(data) if name.startswith(_CHAT) else data)
        if self._held:
            self._held.append(("", missing + piece))
            return b""
        return missing + piece

    def _beginning(self, stage: int) -> bytes:
        """The events with which a chat begins, as far as Coze has not told them, up to that stage."""
        told = b""
        for n, status in enumerate(("created", "in_progress")):
            if n >= self._stage and n < stage:
                told += event(_CHAT + status, orjson.dumps(chat_just_begun(self._begun, status)))
        return told

    # -- where the log goes on in another way ------------------------------------------------------------

    def _snapshot(self, snapshot: dict[str, Any]) -> bytes:
        """The answer as the log has it from here on: what of it the client lacks."""
        if self._goes_on and self._stage == 1 and self._told is None:
            # It opens the epoch in which the chat goes on, and says what was told before.
            for message in snapshot.get("messages") or []:
                _add(self._before.setdefault(message["id"], _Told()), message)
            return b""
        if self._told is None:
            self._look_back()
        assert self._told is not None  # noqa: S101  # looked at
        self._held = [(name, piece) for name, piece in self._held if not name]  # the log tells the end anew
        self._log = {}
        news = b""
        for message in snapshot.get("messages") or []:
            said = self._log.setdefault(message["id"], _Told())
            said.content, said.reasoning = message["content"], message["reasoning_content"]
            news += self._rest(message)
        return news

    def _look_back(self) -> None:
        self._told = self._before
        for frame in self._passed:
            message = data_of(frame)
            if frame.startswith(_DELTA) and (message.get("type") or "answer") == "answer":
                _add(self._told.setdefault(str(message.get("id")), _Told()), message)
            elif _name(frame) == _COMPLETED:
                self._completed.add(str(message.get("id")))
        self._passed = []

    def _careful(self, name: str, frame: bytes) -> bytes:
        message = data_of(frame)
        message_id = str(message.get("id"))
        if name == _COMPLETED:
            if is_ours(frame) or (message.get("id") and message_id in self._completed):
                return b""
            self._completed.add(message_id)
            return self._out(name, frame)
        if (message.get("type") or "answer") != "answer":
            return self._out(name, frame)
        _add(self._log.setdefault(message_id, _Told()), message)
        return self._rest(message)

    def _rest(self, message: Json) -> bytes:
        """A delta with what the log says of the message beyond what the client has. Where they differ there
        is none: the completed message has the whole text."""
        assert self._told is not None  # noqa: S101  # looked at
        log = self._log[str(message.get("id"))]
        told = self._told.setdefault(str(message.get("id")), _Told())
        content, reasoning = _behind(log.content, told.content), _behind(log.reasoning, told.reasoning)
        if not content and not reasoning:
            return b""
        told.content, told.reasoning = told.content + content, told.reasoning + reasoning
        delta = {
            "id": message.get("id"),
            "conversation_id": self._begun.at_coze.conversation_id,
            "bot_id": self._begun.bot_id,
            "role": "assistant",
            "type": "answer",
            **({"reasoning_content": reasoning} if reasoning else {}),
            "content": content,
            "content_type": message.get("content_type") or "text",
            "chat_id": self._begun.at_coze.chat_id,
        }
        return self._out("conversation.message.delta", _DELTA + orjson.dumps(delta) + b"\n\n")

    # -- the end -----------------------------------------------------------------------------------------

    async def ending(self, ending: Ending, last: Cursor) -> bytes:
        """Coze's own end where it has sent one, else one in its stead; and ``done`` as Coze has it, which is
        not there behind a failure."""
        record = orjson.loads(ending.record)
        status, held, self._held = record["status"], self._held, []
        others = b"".join(piece for name, piece in held if not name)
        wanted = _FAILURES if status == "failed" else _ENDS - _FAILURES
        if status == "failed":
            of_coze = b"".join(piece for name, piece in held if name in wanted)
            return others + (of_coze or self._our_end(record))
        if status in ("completed", "requires_action") and any(name in wanted for name, _ in held):
            return b"".join(piece for name, piece in held if name not in _FAILURES) + _DONE
        return others + self._our_end(record) + _DONE

    def _our_end(self, record: Json) -> bytes:
        at_coze = self._begun.at_coze
        view = chat_of_record(record, at_coze.conversation_id, at_coze.chat_id)
        return self._beginning(2) + event(_CHAT + view["status"], orjson.dumps(view))

    def error(self, error: ServiceError, request_id: str) -> None:
        """The chat goes on without this reader; a clean end would be taken for the answer's."""

    def reconnect(self) -> None:
        """As ``error``."""


def _name(frame: bytes) -> str:
    return frame[7 : frame.find(b"\n")].decode("utf-8", "replace")


def _data(frame: bytes) -> bytes:
    lines = frame[:-2].split(b"\n")[1:]
    return b" ".join(line[6:] for line in lines).lstrip(b" ")


def _without_our_key(data: bytes) -> bytes:
    if _OUR_KEY not in data:
        return data
    chat = data_of(b"\ndata: " + data + b"\n\n")
    if isinstance(meta := chat.get("meta_data"), dict):
        meta.pop(OUR_META_KEY, None)
        if not meta:
            del chat["meta_data"]
    return orjson.dumps(chat)


def _add(said: _Told, message: Json) -> None:
    said.content += message.get("content") or ""
    said.reasoning += message.get("reasoning_content") or ""


def _behind(text: str, begin: str) -> str:
    return text[len(begin) :] if text.startswith(begin) else ""
