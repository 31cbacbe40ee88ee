"""Ids of responses and their parts: each holds the chat's id, so that nothing has to be kept to find it."""

import re
from typing import Final, NamedTuple

from app.doors.openai.chunks import answer_id
from app.utils import is_session_id

_ANSWER: Final = r"(coze_chat_[0-9]{13}_[a-z2-7]{41})(?:-([1-9][0-9]{0,8}))?"
_RESPONSE: Final = re.compile(f"resp_{_ANSWER}")
_ITEM: Final = re.compile(f"(?:msg|rs|fc)_{_ANSWER}(?:_[0-9]{{1,4}})?")
_CONVERSATION: Final = "conv_"


class Name(NamedTuple):
    """One answer of a chat. ``epoch``: in which the chat went on with tool outputs; 0 for its first."""

    chat_id: str
    epoch: int = 0

    @property
    def answer_id(self) -> str:
        return answer_id(self.chat_id, self.epoch)

    @property
    def response_id(self) -> str:
        return f"resp_{self.answer_id}"

    @property
    def message_id(self) -> str:
        return f"msg_{self.answer_id}"

    @property
    def reasoning_id(self) -> str:
        return f"rs_{self.answer_id}"

    def call_item_id(self, number: int) -> str:
        """Of a function call as an item; what answers it names its ``call_id``."""
        return f"fc_{self.answer_id}_{number}"


def response_named(text: str) -> Name | None:
    return _named(_RESPONSE, text)


def response_of_item(text: str) -> Name | None:
    """The response whose output has an item of this id."""
    return _named(_ITEM, text)


def _named(pattern: re.Pattern[str], text: str) -> Name | None:
    match = pattern.fullmatch(text)
    return Name(match[1], int(match[2] or 0)) if match else None


def conversation_id(session_id: str) -> str:
    return _CONVERSATION + session_id


def session_of(conversation: str) -> str | None:
    """The session that a conversation's id names."""
    session_id = conversation.removeprefix(_CONVERSATION)
    known = conversation.startswith(_CONVERSATION) and is_session_id(session_id)
    return session_id if known else None
