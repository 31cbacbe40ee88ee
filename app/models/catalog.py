"""What lists show: bots and past conversations; and what became of feedback."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

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


class Bot(BaseModel):
    """A bot of the settings, as Coze describes it. ``name`` is null while Coze does not."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BOT]})

    bot_id: str
    name: str | None
    description: str
    icon_url: str | None
    opening_text: str
    suggested_questions: list[str]


class BotList(BaseModel):
    """The default bot first."""

    bots: list[Bot]


class Conversation(BaseModel):
    """A conversation at Coze that a user has had; POST /coze/sessions with its id goes on with it.
    ``last_used_at`` is exact to some five minutes."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CONVERSATION]})

    conversation_id: str
    title: str | None
    bot_id: str
    created_at: str
    last_used_at: str


class ConversationPage(BaseModel):
    """The last used first; ``next_before`` asks for the next page."""

    conversations: list[Conversation]
    has_more: bool
    next_before: str | None = None


class DeletedConversation(BaseModel):
    conversation_id: str
    deleted: bool


class GivenFeedback(BaseModel):
    """``feedback_type``: null once it was taken back."""

    chat_id: str
    feedback_type: str | None
    reason_types: list[str] = []
    comment: str = ""
