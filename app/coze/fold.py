"""Folds the events of one chat into its answer, and says what readers must be told. No I/O.

The order of Coze's events and their quirks: the streaming section of the v3 chat page. What is folded is
keyed by message id, since a flow can answer with several messages, and a completed message replaces what
its deltas said.

The folding rule: readers append ``conversation.message.delta`` by message id and let ``snapshot`` replace
what they have; nothing else brings them text. So the fold is at all times what its readers have: a delta
that is passed on changes both alike, and whatever else changes the fold returns the frames that change
its readers in the same way.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypedDict

import msgspec

from app.coze.answer_message import AnswerMessage, join
from app.coze.codes import coze_error
from app.coze.loose_json import whole
from app.coze.marks import as_ours, hide
from app.coze.reading import EventReader, decode
from app.coze.stream import STREAM_ENDS, SSEEvent, frame
from app.coze.wire import (
    UNREADABLE,
    ChatState,
    Message,
    Status,
    TokenUsage,
    code_of,
    integer,
    json_object,
    log_id,
)
from app.exceptions import CozeApiError, UpstreamError

ANSWER_SEPARATOR: Final = "\n"
"""Between the messages of an answer that has several."""

MAX_ANSWERS: Final = 1_000
MAX_FOLLOW_UPS: Final = 100
MAX_TEXT: Final = 4 * 1024 * 1024
"""Characters of all answers and their reasoning, far more than models say: a chat's record has them twice."""

DELTA: Final = "conversation.message.delta"
MESSAGE_COMPLETED: Final = "conversation.message.completed"
SNAPSHOT: Final = "snapshot"
ERROR: Final = "error"

_CHAT: Final = "conversation.chat."
_HIDDEN: Final = frozenset({"verbose", "knowledge"})
"""Machinery; ``knowledge`` is what coze-studio calls a verbose knowledge recall."""

_CHAT_ENDS: Final[dict[str, Status]] = {
    "conversation.chat.completed": "completed",
    "conversation.chat.failed": "failed",
    "conversation.chat.requires_action": "requires_action",
    "conversation.chat.canceled": "canceled",
    "conversation.chat.cancelled": "canceled",
}


_DELTA_FRAME: Final = b"event: conversation.message.delta\ndata: %b\n\n"


class Snapshot(TypedDict):
    """Replaces what a reader has. A message is what ``Fold.answers`` gives."""

    messages: list[dict[str, str]]
    follow_up_questions: list[str]


class Fold:
    """The answer so far.

    ``status`` is ``in_progress`` until a terminal event. ``error`` is an upstream ``error`` event or a failed
    chat, and wins over a later ``completed``. ``done``: the stream said that nothing more comes.
    ``final_data``: Coze's data of the terminal chat event, for completed, canceled and requires_action.
    ``logid``: Coze's, for errors. Where ``reader`` could not read what may have been text, the answer never
    counts as completed by the stream alone: Coze's stored one has to be asked for (``adopt``).
    ``keeps_all``: for clients of Coze's own API: what readers are not shown becomes hidden frames, and what
    we add for them is marked (``app.coze.marks``).
    """

    def __init__(self, *, logid: str | None = None, keeps_all: bool = False) -> None:
        self.keeps_all = keeps_all
        self.coze_chat_id: str | None = None
        self.conversation_id: str | None = None
        self.status: Status = "in_progress"
        self.error: UpstreamError | None = None
        self.required_action: dict[str, object] | None = None
        self.usage: TokenUsage | None = None
        self.done = False
        self.final_data: bytes | None = None
        self.logid = logid
        self._answers: dict[str, AnswerMessage] = {}
        self._length = 0
        """Characters in them."""
        self._follow_ups: list[str] = []
        self._kept: set[str] = set()
        """Ids of hidden messages that were kept."""
        self.reader = EventReader()

    @property
    def begun(self) -> bool:
        """Coze has begun the chat."""
        return bool(self.coze_chat_id or self._answers)

    @property
    def settled(self) -> bool:
        """Nothing that could still come changes the outcome. After ``completed`` audio may follow, so only
        ``done`` and errors settle a stream."""
        return self.done or self.error is not None

    def feed(self, event: SSEEvent) -> list[bytes]:
        """Takes one event; returns the frames for readers: mostly one, and none (or a hidden one) for what
        they do not get: verbose messages, errors, the ends of chat and stream (whose frames the caller
        writes), unreadable data."""
        name = event.name
        if name == DELTA:
            shown = self._delta(event)
            return [] if shown is None else [shown]
        if name == MESSAGE_COMPLETED:
            return self._message(event)
        if name.startswith(_CHAT):
            return self._chat(event)
        if name in STREAM_ENDS or (name == "message" and event.data.strip(b' "') == b"[DONE]"):
            self.done = True
            return []
        if name == ERROR:
            return self._upstream_error(event.data)
        return [frame(name, self.reader.passed_on(event.data))]

    def reopen(self) -> None:
        """The chat goes on after tool outputs, in a new stream."""
        self.status = "in_progress"
        self.required_action = None
        self.final_data = None
        self.done = False

    def content(self) -> str:
        """The text of all answers in order of first appearance."""
        return ANSWER_SEPARATOR.join(filter(None, (join(item.content) for item in self._answers.values())))

    def reasoning(self) -> str:
        return ANSWER_SEPARATOR.join(filter(None, (join(item.reasoning) for item in self._answers.values())))

    def follow_ups(self) -> list[str]:
        return list(self._follow_ups)

    def answers(self) -> list[dict[str, str]]:
        """``{"id", "type", "content", "content_type", "reasoning_content"}`` of each answer."""
        return [answer.view() for answer in self._answers.values()]

    def snapshot(self) -> Snapshot:
        return {"messages": self.answers(), "follow_up_questions": self.follow_ups()}

    def snapshot_frame(self) -> bytes:
        """The answer so far by message id; it replaces what a reader has."""
        return frame(SNAPSHOT, msgspec.json.encode(self.snapshot()))

    def restore(self, snapshot: Snapshot) -> None:
        """Takes what ``snapshot`` gave as the answer so far."""
        self._answers = {}
        for message in snapshot.get("messages") or []:
            answer = self._answer(message["id"])
            if answer is not None:
                answer.content, answer.reasoning = [message["content"]], [message["reasoning_content"]]
                answer.content_type = message["content_type"]
        self._length = sum(answer.length for answer in self._answers.values())
        self._follow_ups = list(snapshot.get("follow_up_questions") or [])

    def lacks_answer(self, messages: list[Message], chat: ChatState) -> bool:
        """Whether Coze calls the chat completed, and neither its list (``messages``) nor what was heard has
        the whole answer: the list can lag behind the chat.

        Where nothing was heard there may be no answer. It is taken for one that is not listed yet where Coze
        counts tokens that it has written, and lists nothing at all.
        """
        if chat.status != "completed" or any(message.type == "answer" for message in messages):
            return False
        if self._answers:
            return not all(answer.complete for answer in self._answers.values())
        return not messages and chat.usage is not None and bool(chat.usage.output_count)

    def adopt(self, messages: list[Message], chat: ChatState) -> list[bytes]:
        """Takes Coze's stored answer and state over what was folded (repair after a cut).

        What was folded of a message stays where the stored one is empty there, and so does everything where
        Coze stored no answer at all (see ``lacks_answer``). An error that the stream brought stays. Returns
        the frames for readers: what a stream would have brought, and a snapshot where they have what is not
        in the stored answer.
        """
        self.reader.halves.clear()  # what is stored has them whole
        self._adopt_chat(chat)
        stored = [message for message in messages if message.type == "answer" and message.role != "user"]
        asked = self.follow_ups()
        if any(message.type == "follow_up" for message in messages):
            self._follow_ups = []
            for message in messages:
                if message.type == "follow_up":
                    self._add_follow_up(message.content)
        news = self._adopt_answers(stored) if stored else []
        if news is None or self._follow_ups[: len(asked)] != asked:
            news, asked = [self.snapshot_frame()], self._follow_ups
        for answer in self._answers.values() if stored else ():
            if not answer.complete:
                answer.complete = True
                news.append(self._frame(MESSAGE_COMPLETED, answer.view()))
        for message in messages if self.keeps_all else ():
            if message.type in _HIDDEN and message.id not in self._kept:
                self._kept.add(message.id)
                machinery = {name: getattr(message, name) for name in ("id", "type", "content")}
                news.append(hide(self._frame(MESSAGE_COMPLETED, {**machinery, "content_type": "text"})))
        for question in self._follow_ups[len(asked) :]:
            follow_up = {"type": "follow_up", "content": question, "content_type": "text"}
            news.append(self._frame(MESSAGE_COMPLETED, follow_up))
        return news

    def _adopt_answers(self, stored: list[Message]) -> list[bytes] | None:
        """Returns the deltas that tell readers the rest; None where only a snapshot can."""
        before, self._answers, self._length = self._answers, {}, 0
        known = {message_id: place for place, message_id in enumerate(before)}
        # The list is not in order of time; ids that were seen live keep their order.
        stored.sort(key=lambda item: (known.get(item.id, len(known)), item.created_at or 0))
        news: list[bytes] | None = []
        for message in stored:
            if message.id in before:
                self._answers[message.id] = before[message.id]
                self._length += before[message.id].length
            # Two stored messages under one id would be Coze's mistake; the later one counts.
            more = self._put(message.id, message.content, message.reasoning_content, message.content_type)
            news = None if news is None or more is None else news + more
        return news if before.keys() <= self._answers.keys() else None

    def _put(
        self, message_id: str, content: str | None, reasoning: str | None, content_type: str | None
    ) -> list[bytes] | None:
        """A message's whole text. Returns the delta that tells readers the rest; None where only a snapshot
        can, since they have something else."""
        answer = self._answers.get(message_id)
        if answer is None:
            # Of a message without text readers do not hear, so it must not have a place before others.
            answer = self._answer(message_id) if content or reasoning else None
            if answer is None:
                return []
        had = answer.text
        length = len(content or had.content) + len(reasoning or had.reasoning)
        self._length += length - len(had.content) - len(had.reasoning)
        if self._length > MAX_TEXT:
            self._fail_of_length()
            return []
        answer.put(content, reasoning, content_type)
        now = answer.text
        if now == had:
            return []
        answer.complete = False
        if not (now.content.startswith(had.content) and now.reasoning.startswith(had.reasoning)):
            return None
        rest = answer.view() | {"content": now.content[len(had.content) :]}
        rest["reasoning_content"] = now.reasoning[len(had.reasoning) :]
        return [self._frame(DELTA, rest)]

    def _frame(self, name: str, message: Mapping[str, str]) -> bytes:
        """An event of ours in Coze's shape."""
        ids = {"conversation_id": self.conversation_id, "chat_id": self.coze_chat_id, "role": "assistant"}
        return frame(name, msgspec.json.encode({**ids, **message}))

    def _adopt_chat(self, chat: ChatState) -> None:
        self.coze_chat_id = self.coze_chat_id or chat.id or None
        self.conversation_id = chat.conversation_id or self.conversation_id
        self.usage = chat.usage or self.usage
        self.required_action = chat.required_action if chat.status == "requires_action" else None
        if self.error is None:
            self.error = chat.failure()
        if self.error is not None:
            self.status = "failed"
        elif chat.status in _CHAT_ENDS.values():
            self.status = chat.status

    def _answer(self, message_id: str) -> AnswerMessage | None:
        answer = self._answers.get(message_id)
        if answer is None:
            if len(self._answers) >= MAX_ANSWERS:
                self._fail(
                    CozeApiError(
                        f"Coze sent more than {MAX_ANSWERS} messages in one answer", logid=self.logid
                    )
                )
                return None
            answer = self._answers[message_id] = AnswerMessage(message_id)
        return answer

    def _fail_of_length(self) -> None:
        self._fail(CozeApiError(f"Coze's answer is longer than {MAX_TEXT} characters", logid=self.logid))

    def feed_all(self, events: Iterable[SSEEvent]) -> list[bytes]:
        """The frames for readers of ``events``, up to the one that settles the outcome."""
        frames: list[bytes] = []
        for event in events:
            if event.name == DELTA:
                shown = self._delta(event)
                if shown is not None:
                    frames.append(shown)
                    continue
            else:
                frames += self.feed(event)
            if self.settled:
                break
        return frames

    def end_halves(self, message_id: str | None = None) -> list[bytes]:
        """Halves whose rest never came, as U+FFFD: of one message, or of all."""
        news: list[bytes] = []
        for key in [key for key in self.reader.halves if message_id in (None, key[0])]:
            rest = whole(self.reader.halves.pop(key))
            answer = self._answers.get(key[0])
            if answer is not None:
                (answer.content if key[1] == "content" else answer.reasoning).append(rest)
                texts = {"content": "", "reasoning_content": "", key[1]: rest}
                news.append(self._frame(DELTA, {**answer.view(), **texts}))
        return news

    def _delta(self, event: SSEEvent) -> bytes | None:
        data, read = event.data, None
        try:
            # The decoder does not look at the bytes of fields that it does not know.
            if not self.reader.halves and (data.isascii() or data.decode()):
                read = decode(data), data
        except UNREADABLE:
            pass
        read = read or self.reader.mend(data, delta=True)
        if read is None:
            return None
        wire, data = read
        if self.keeps_all:
            data = data.lstrip(b" ")  # a blank in front is our mark
        kind = wire.type or "answer"
        if kind == "answer":
            answer = self._answers.get(wire.id) or self._answer(wire.id)
            if answer is None:
                return None
            content, reasoning = wire.content or "", wire.reasoning_content or ""
            self._length += len(content) + len(reasoning)
            if self._length > MAX_TEXT:
                self._fail_of_length()
                return None
            if content:
                answer.content.append(content)
            if reasoning:
                answer.reasoning.append(reasoning)
            if wire.content_type:
                answer.content_type = wire.content_type
        elif kind in _HIDDEN:
            return hide(frame(DELTA, data)) if self.keeps_all else None
        return frame(DELTA, data) if b"\n" in data else _DELTA_FRAME % data

    def _message(self, event: SSEEvent) -> list[bytes]:
        read = self.reader.message(event.data)
        if read is None:
            return []
        wire, data = read
        if self.keeps_all:
            data = data.lstrip(b" ")
        if wire.type in _HIDDEN:
            self._kept.add(wire.id)
            return self._hidden(event.name, data)
        news: list[bytes] = []
        if wire.type == "answer":
            # The whole text has the other half, too; a half of what it does not tell again ends here.
            told = {"content": wire.content, "reasoning_content": wire.reasoning_content}
            for name in [name for name, part in told.items() if part]:
                self.reader.halves.pop((wire.id, name), None)
            news = self.end_halves(wire.id) if self.reader.halves else []
            rest = self._put(wire.id, wire.content, wire.reasoning_content, wire.content_type)
            if rest is not None and self.keeps_all:
                rest = [as_ours(each) for each in rest]
            news = [self.snapshot_frame()] if rest is None else news + rest
            answer = self._answers.get(wire.id)
            if self.settled and (answer is None or rest == []):  # one too many, or too long
                return []
            if answer is not None:
                answer.complete = True
        elif wire.type == "follow_up":
            self._add_follow_up(wire.content or "")
        return [*news, frame(event.name, data)]

    def _add_follow_up(self, question: str) -> None:
        if question and question not in self._follow_ups and len(self._follow_ups) < MAX_FOLLOW_UPS:
            self._follow_ups.append(question)

    def _chat(self, event: SSEEvent) -> list[bytes]:
        data, told = self.reader.object(event.data)
        chat = ChatState.parse(data, logid=self.logid)
        self.coze_chat_id = self.coze_chat_id or chat.id or None
        self.conversation_id = chat.conversation_id or self.conversation_id
        self.usage = chat.usage or self.usage
        end = _CHAT_ENDS.get(event.name)
        if end is None:
            return [frame(event.name, told)] if data is not None else []
        news = self.end_halves()
        if end == "failed" or (end == "completed" and chat.error_code is not None):
            code = chat.error_code or code_of(data or {})
            error = coze_error(code, logid=self.logid, maybe_started=True)
            news += self._failure(event.name, data, error)
        elif end == "completed" and self.reader.has_gap:
            self.done = True  # of the stream; what the chat has said in full is stored
        elif self.error is None:
            self.status = end
            self.required_action = chat.required_action if end == "requires_action" else None
            self.final_data = told if data is not None else None
            if data is not None:
                news += self._hidden(event.name, told)
        return news

    def _hidden(self, name: str, data: bytes) -> list[bytes]:
        return [hide(frame(name, data.lstrip(b" ")))] if self.keeps_all else []

    def _failure(self, name: str, data: dict[str, object] | None, error: UpstreamError) -> list[bytes]:
        """The first failure counts, and is kept with a text of ours: Coze's may hold what is not for
        callers."""
        if self.error is not None:
            return []
        self._fail(error)
        told = dict(data or {})
        if "msg" in told:
            told["msg"] = error.message
        if isinstance(last := told.get("last_error"), dict):
            told["last_error"] = {**last, "msg": error.message}
        return self._hidden(name, msgspec.json.encode(told))

    def _upstream_error(self, data: bytes) -> list[bytes]:
        found = json_object(data) or {}
        detail = found.get("detail")
        logid = log_id(detail.get("logid")) if isinstance(detail, dict) else ""
        code = code_of(found)
        told: dict[str, object] = {name: found[name] for name in ("code", "msg", "detail") if name in found}
        if code is not None and not integer(told.get("code")):
            told["code"] = code  # it had another name, by which Coze's SDKs do not find it
        error = coze_error(code, logid=logid or self.logid, maybe_started=True)
        return [*self.end_halves(), *self._failure(ERROR, told, error)]

    def _fail(self, error: UpstreamError) -> None:
        # The first error is the cause; what follows it is its echo.
        if self.error is None:
            self.error = error
        self.status = "failed"
        self.final_data = None
        self.required_action = None
