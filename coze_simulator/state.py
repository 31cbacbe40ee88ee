"""What a simulator remembers: conversations, chats, messages, files. No I/O, no module state."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from coze_simulator.errors import ApiError
from coze_simulator.knobs import Knobs
from coze_simulator.outbox import Outbox

ChatStatus = Literal["created", "in_progress", "completed", "failed", "requires_action", "canceled"]
RUNNING: tuple[ChatStatus, ...] = ("created", "in_progress")


class IdSource:
    """19-digit ids, increasing, other ones after a restart: unix time in 2**-32 s, as Coze's appear to be."""

    def __init__(self, seed: int | None = None) -> None:
        self._last = 0
        self._dice = random.Random(seed)

    def next(self) -> str:
        """A new id."""
        now = int(time.time() * (1 << 32))
        self._last = max(self._last + self._dice.randrange(1, 1000), now)
        return str(self._last)

    def logid(self) -> str:
        """A log id as Coze's: local time to the second and 20 hex digits."""
        return time.strftime("%Y%m%d%H%M%S") + f"{self._dice.getrandbits(80):020X}"


@dataclass(slots=True)
class Message:
    """One message; ``chat_id`` is empty for those a conversation was created with. Times in unix s."""

    id: str
    conversation_id: str
    section_id: str
    role: str
    type: str
    content: str
    content_type: str = "text"
    bot_id: str = ""
    chat_id: str = ""
    reasoning_content: str = ""
    meta_data: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    in_context: bool = True
    feedback: Mapping[str, object] | None = None


@dataclass(slots=True)
class Usage:
    """Tokens; the sum is always ``input_count + output_count``."""

    input_count: int = 0
    output_count: int = 0

    def view(self) -> dict[str, int]:
        """As Coze sends it."""
        total = self.input_count + self.output_count
        return {"token_count": total, "output_count": self.output_count, "input_count": self.input_count}


@dataclass(slots=True)
class Chat:
    """One turn. ``history`` holds the user's earlier messages, oldest first."""

    id: str
    conversation_id: str
    section_id: str
    bot_id: str
    identity: str
    question: str
    history: tuple[str, ...]
    knobs: Knobs
    saved: bool
    created_at: int
    meta_data: Mapping[str, str]
    inserted: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    status: ChatStatus = "created"
    completed_at: int | None = None
    failed_at: int | None = None
    last_error: tuple[int, str] = (0, "")
    usage: Usage = field(default_factory=Usage)
    required_action: dict[str, object] | None = None
    rounds_left: int = 0
    tool_outputs: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    outbox: Outbox | None = None
    ended: float = 0.0  # monotonic
    lists_served: int = 0
    retrieves_refused: int = 0

    @property
    def running(self) -> bool:
        """Whether it keeps its conversation locked."""
        return self.status in RUNNING

    @property
    def shown_status(self) -> ChatStatus:
        """The status as retrieve tells it, which may lag behind."""
        lag = self.knobs.status_lag
        if lag and self.status == "completed" and time.monotonic() < self.ended + lag:
            return "in_progress"
        return self.status


@dataclass(slots=True)
class Conversation:
    """A conversation and its messages, oldest first. Only messages of the current section are context."""

    id: str
    identity: str
    section_id: str
    created_at: int
    meta_data: Mapping[str, str]
    name: str | None = None
    bot_id: str = ""
    creator_id: str = ""
    connector_id: str = "1024"
    updated_at: int = 0
    messages: list[Message] = field(default_factory=list)
    chat_ids: list[str] = field(default_factory=list)
    active: Chat | None = None
    locked_until: float = 0.0  # monotonic

    @property
    def busy(self) -> bool:
        """Whether a new chat is to be refused (4016). A chat that waits for tool outputs does not count."""
        if self.active is not None and self.active.running:
            return True
        return time.monotonic() < self.locked_until

    def context(self) -> list[Message]:
        """The messages the bot still knows of."""
        return [item for item in self.messages if item.in_context and item.section_id == self.section_id]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is kept of an upload: not its content, but what proves it. ``mime`` as it was declared."""

    id: str
    identity: str
    file_name: str
    size: int
    created_at: int
    sha256: str
    mime: str


class Store:
    """All state of one simulator. Every lookup checks the identity; refusals are ApiErrors."""

    def __init__(self, max_conversations: int, id_seed: int | None = None) -> None:
        self.ids = IdSource(id_seed)
        self.conversations: OrderedDict[str, Conversation] = OrderedDict()
        self.chats: dict[str, Chat] = {}
        self.files: OrderedDict[str, StoredFile] = OrderedDict()
        self.running = 0
        self.max_running = 0
        self.chats_created = 0
        self._max_conversations = max_conversations

    def create_conversation(
        self, identity: str, *, meta_data: Mapping[str, str], name: str | None = None, bot_id: str = ""
    ) -> Conversation:
        """A new, empty conversation. Its first section has the conversation's id."""
        new_id, now = self.ids.next(), int(time.time())
        conversation = Conversation(
            id=new_id,
            identity=identity,
            section_id=new_id,
            created_at=now,
            updated_at=now,
            meta_data=meta_data,
            name=name,
            bot_id=bot_id,
            creator_id=self.ids.next(),
        )
        self.conversations[new_id] = conversation
        self._forget_oldest()
        return conversation

    def _forget_oldest(self) -> None:
        excess = len(self.conversations) - self._max_conversations
        if excess <= 0:
            return
        idle = (
            item for item in self.conversations.values() if item.active is None or not item.active.running
        )
        for conversation in [item for item, _ in zip(idle, range(excess), strict=False)]:
            self.forget(conversation)

    def forget(self, conversation: Conversation) -> None:
        """The conversation and its chats are unknown from now on."""
        del self.conversations[conversation.id]
        for chat_id in conversation.chat_ids:
            self.chats.pop(chat_id, None)

    def conversation(self, conversation_id: str, identity: str) -> Conversation:
        """Raises ApiError 4002 when it is unknown or another identity's."""
        found = self.conversations.get(conversation_id)
        if found is None or found.identity != identity:
            raise ApiError(4002)
        return found

    def chat(self, conversation_id: str, chat_id: str, identity: str) -> Chat:
        """Raises ApiError 4000, 4002 or 4001."""
        if not conversation_id or not chat_id:
            raise ApiError(4000, "Request parameter error: conversation_id and chat_id are required")
        conversation = self.conversation(conversation_id, identity)
        found = self.chats.get(chat_id)
        if found is None or found.conversation_id != conversation.id:
            raise ApiError(4001)
        return found

    def saved_chat(self, conversation_id: str, chat_id: str, identity: str) -> Chat:
        """As :meth:`chat`, but one without history (auto_save_history=false) does not exist here (4001)."""
        found = self.chat(conversation_id, chat_id, identity)
        if not found.saved:
            raise ApiError(4001)
        return found

    def file(self, file_id: str, identity: str) -> StoredFile:
        """Raises ApiError 4200 when it is unknown or another identity's."""
        found = self.files.get(file_id)
        if found is None or found.identity != identity:
            raise ApiError(4200)
        return found

    def add_chat(self, conversation: Conversation, chat: Chat) -> None:
        """Registers a chat that is about to run."""
        self.chats[chat.id] = chat
        conversation.chat_ids.append(chat.id)
        conversation.active = chat
        self.conversations.move_to_end(conversation.id)
        self.chats_created += 1
        self.began()

    def began(self) -> None:
        """Counts a chat that starts or goes on."""
        self.running += 1
        self.max_running = max(self.max_running, self.running)

    def add_message(self, chat: Chat, message: Message) -> None:
        """Keeps a message of the bot, unless the chat is over or keeps no history."""
        if chat.status == "canceled":
            return
        chat.messages.append(message)
        conversation = self.conversations.get(chat.conversation_id)
        if chat.saved and message.type == "answer" and conversation is not None:
            conversation.messages.append(message)
            conversation.updated_at = message.created_at

    def drop_answers(self, chat: Chat) -> None:
        """Removes what the bot said in this turn from its conversation."""
        conversation = self.conversations.get(chat.conversation_id)
        if conversation is not None:
            conversation.messages = [
                item for item in conversation.messages if item.chat_id != chat.id or item.role == "user"
            ]

    def leave_context(self, chat: Chat) -> None:
        """A cancelled or failed turn is not remembered by the bot, though it stays listed."""
        conversation = self.conversations.get(chat.conversation_id)
        if conversation is None:
            return
        for message in conversation.messages:
            if message.chat_id == chat.id:
                message.in_context = False


def page_of(
    messages: Sequence[Message], *, newest_first: bool, limit: int, before_id: str, after_id: str
) -> tuple[list[Message], bool]:
    """One page and whether more lie beyond it. ``messages`` oldest first; "0" or "" as an id means none.

    ``after_id`` and ``before_id`` are positions in the order of the answer: under `desc` the older page comes
    *after* the response's last_id. Raises ApiError 4005 for an id that is not among the messages.
    """
    ordered = list(reversed(messages)) if newest_first else list(messages)
    positions = {message.id: index for index, message in enumerate(ordered)}

    def position(message_id: str) -> int | None:
        if message_id in ("", "0"):
            return None
        if message_id not in positions:
            raise ApiError(4005)
        return positions[message_id]

    after, before = position(after_id), position(before_id)
    if before is not None and after is None:
        start = max(0, before - limit)
        return ordered[start:before], start > 0
    start = 0 if after is None else after + 1
    stop = len(ordered) if before is None else before
    page = ordered[start : min(start + limit, stop)]
    return page, start + limit < stop
