"""What lists show: bots and past conversations; and what became of feedback."""

from typing import Any, Final

from pydantic import ConfigDict, Field

from app.models.documented import Answer

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
    "created_at": "2026-11-22T18:40:33.115908+00:00",
    "last_used_at": "2026-11-22T18:40:33.115908+00:00",
}


class Bot(Answer):
    """A bot of the settings, as Coze describes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BOT]})

    bot_id: str
    """The bot's id at Coze."""
    name: str | None
    """Its name; null while Coze does not tell it."""
    description: str
    """What it is for; empty where that is not told."""
    icon_url: str | None
    """The address of its picture; null where there is none that browsers may load."""
    opening_text: str
    """What it says before anything was asked."""
    suggested_questions: list[str]
    """What it suggests to ask first."""


class BotList(Answer):
    """The bots of the settings."""

    bots: list[Bot]
    """The default bot first."""


class Conversation(Answer):
    """A conversation at Coze that a user has had; POST /coze/sessions with its id goes on with it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CONVERSATION]})

    conversation_id: str
    """Coze's id of the conversation."""
    title: str | None
    """What it is called."""
    bot_id: str
    """The bot that answers in it."""
    created_at: str
    """When it was begun: UTC, ISO 8601."""
    last_used_at: str
    """When something was last said in it, to some five minutes: UTC, ISO 8601."""


class ConversationPage(Answer):
    """A page of a user's conversations."""

    conversations: list[Conversation]
    """The last used first."""
    has_more: bool
    """Whether older ones follow."""
    next_before: str | None = None
    """What to ask for as `before` to get the next page; null on the last one."""


class DeletedConversation(Answer):
    """A conversation that was deleted, at Coze too."""

    conversation_id: str
    """Coze's id of the conversation."""
    deleted: bool
    """Always true."""


class GivenFeedback(Answer):
    """What holds of an answer now."""

    chat_id: str
    """The chat that it is the answer of."""
    feedback_type: str | None
    """`like` or `unlike`; null once it was taken back."""
    reason_types: list[str] = Field(default_factory=list)
    """Why, in Coze's words."""
    comment: str = ""
    """Why, in the user's words."""
