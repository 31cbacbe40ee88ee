"""What lists show: bots and past conversations; and what became of feedback."""

from typing import Any, Final

from pydantic import Field

from app.models.chats import MOMENT
from app.models.documented import Answer, example

_BOT: Final[dict[str, Any]] = {
    "bot_id": "7380000000000000009",
    "name": "旅行助手",
    "description": "帮你安排行程",
    "icon_url": "https://icons.example.com/7380000000000000009.png",
    "opening_text": "你好，想去哪里玩？",
    "suggested_questions": ["周末去杭州怎么玩？"],
}
_CONVERSATION: Final[dict[str, Any]] = {
    "conversation_id": "7380000000000000005",
    "title": "周末去杭州",
    "bot_id": "7380000000000000009",
    "created_at": MOMENT,
    "last_used_at": MOMENT,
}


class Bot(Answer):
    """A bot of the settings, as Coze describes it."""

    model_config = example(_BOT)

    bot_id: str
    """Coze's id of the bot, for opening a session."""
    name: str | None
    """What it is called; null while Coze does not describe it."""
    description: str
    """What it does."""
    icon_url: str | None
    """An https address of its icon, at Coze."""
    opening_text: str
    """What it says before anybody has asked anything."""
    suggested_questions: list[str]
    """What one may ask it first."""


class BotList(Answer):
    """The configured bots."""

    bots: list[Bot]
    """The default bot first."""


class Conversation(Answer):
    """A conversation at Coze that a user has had; a new session can go on with it."""

    model_config = example(_CONVERSATION)

    conversation_id: str
    """Coze's id of the conversation."""
    title: str | None
    """The begin of its first message, or what it was called since."""
    bot_id: str
    """The bot that answered last."""
    created_at: str
    """When its first session was opened: UTC, ISO 8601."""
    last_used_at: str
    """When it was last talked in or gone on with, exact to some five minutes: UTC, ISO 8601."""


class ConversationPage(Answer):
    """A page of a user's conversations."""

    conversations: list[Conversation]
    """The last used first."""
    has_more: bool
    """Whether more follow."""
    next_before: str | None = None
    """What to ask for as `before` to get the next page; null on the last one."""


class DeletedConversation(Answer):
    """A conversation that is gone."""

    conversation_id: str
    """Coze's id of the conversation."""
    deleted: bool
    """Always true."""


class GivenFeedback(Answer):
    """What Coze now keeps with an answer."""

    chat_id: str
    """The chat whose answer it is."""
    feedback_type: str | None
    """`like` or `unlike`; null once it was taken back."""
    reason_types: list[str] = Field(default_factory=list)
    """Why, as the app names its reasons."""
    comment: str = ""
    """Why, in the user's words."""
