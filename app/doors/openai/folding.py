"""The frames of a chat's log as the texts that a client has not been told yet."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from app.doors.openai.texts import SentText, notice_of, rest_of
from app.tasks.frames import data_of

KINDS: Final = ("reasoning_content", "content")
"""In this order: who thinks first answers after it."""
TextByKind = dict[str, str]
"""The text of each of ``KINDS``."""
_DELTA: Final = b"event: conversation.message.delta\n"
_SNAPSHOT: Final = b"event: snapshot\n"
_OF_THE_BOT: Final = (_DELTA, b"event: conversation.message.completed\n")


def has_begun(frames: Iterable[bytes]) -> bool:
    """Whether one of the frames is the bot's."""
    return any(frame.startswith(_OF_THE_BOT) for frame in frames)


def content_type_of(chat: Mapping[str, Any]) -> object:
    return (chat.get("assistant_message") or {}).get("content_type")


def said_since(chat: Mapping[str, Any], kind: str, before: TextByKind | None) -> str:
    """What was said after the tools had answered; all of it where Coze has replaced what it said before."""
    text: str = chat[kind]
    if before is None or not text.startswith(before[kind]):
        return text
    return rest_of(text, before[kind])


class AnswerFold:
    """What one client has of an answer, which can only be given more.

    Args:
        before: what an earlier answer of this chat, which asked for tools, has said.
        content: whether the answer itself is told while it comes; else it is told at the end, when it is
            whole.
    """

    def __init__(self, before: TextByKind | None, *, content: bool) -> None:
        self._texts = {kind: SentText((before or {}).get(kind, "")) for kind in KINDS}
        self._placed: set[str] = set()
        """Messages that have their place among the others, with text or without."""
        self._noticed = False
        self._told = list(self._texts.items())[: None if content else 1]

    def news_of(self, frames: Iterable[bytes]) -> list[tuple[str, str]]:
        """What frames bring, as kind and text, neighbours of one kind as one. Raises ``ServiceError`` where
        something was replaced."""
        news: list[tuple[str, str]] = []
        for frame in frames:
            if frame.startswith(_DELTA):
                self._delta(data_of(frame), news)
            elif frame.startswith(_SNAPSHOT):
                news += self._snapshot(data_of(frame))
        return news if len(news) == 1 else _merged(news)

    def rest_of(self, chat: Mapping[str, Any]) -> TextByKind:
        """What the stored answer says beyond what was told."""
        rest = {kind: self._texts[kind].end(chat[kind]) for kind in KINDS}
        if self._tells_content:
            rest["content"] = self._noting("content", rest["content"], content_type_of(chat))
        return rest

    @property
    def _tells_content(self) -> bool:
        return len(self._told) == len(KINDS)

    def _delta(self, message: dict[str, Any], news: list[tuple[str, str]]) -> None:
        if (message.get("type") or "answer") != "answer":
            return
        message_id = str(message.get("id") or "")
        if message_id not in self._placed:
            self._placed.add(message_id)
            for _, sent in self._told:
                sent.add(message_id, "")
        content_type = message.get("content_type")
        for kind, sent in self._told:
            text = message.get(kind)
            if text and isinstance(text, str) and (said := sent.add(message_id, text)):
                news.append(
                    (kind, said if content_type == "text" else self._noting(kind, said, content_type))
                )

    def _snapshot(self, snapshot: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """In the order in which it was told: the thoughts before the first words, the words, all other
        thoughts."""
        self._placed.clear()
        messages = [(str(item.get("id") or ""), item) for item in snapshot.get("messages") or []]
        thoughts = [(message_id, _text_of(item, "reasoning_content")) for message_id, item in messages]
        spoken = [n for n, (_, item) in enumerate(messages, 1) if _text_of(item, "content")]
        yield (
            "reasoning_content",
            self._texts["reasoning_content"].replace(thoughts[: spoken[0]] if spoken else thoughts),
        )
        if self._tells_content:
            words = [(message_id, _text_of(item, "content")) for message_id, item in messages]
            foreign = (item.get("content_type") for _, item in messages if _text_of(item, "content"))
            news = self._texts["content"].replace(words)
            yield "content", self._noting("content", news, next(filter(notice_of, foreign), None))
        if spoken and spoken[0] < len(messages):
            yield "reasoning_content", self._texts["reasoning_content"].replace(thoughts)

    def _noting(self, kind: str, news: str, content_type: object) -> str:
        """A card's JSON is not to pass for the bot's words: it is said once, before the first of it."""
        if not news or kind != "content" or self._noticed or not (notice := notice_of(content_type)):
            return news
        self._noticed = True
        return notice + news


def _text_of(message: dict[str, Any], kind: str) -> str:
    text = message.get(kind)
    return text if isinstance(text, str) else ""


def _merged(texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind as one, and none without text."""
    told = [(kind, text) for kind, text in texts if text]
    return [(kind, "".join(text for _, text in some)) for kind, some in groupby(told, itemgetter(0))]
