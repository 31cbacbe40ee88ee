"""Single messages of a conversation: made and looked at."""

from __future__ import annotations

from starlette.responses import Response

from coze_simulator.chats import stored_message
from coze_simulator.core import Call
from coze_simulator.errors import ApiError
from coze_simulator.state import Message
from coze_simulator.validate import check_files, messages_of


async def create_message(call: Call) -> Response:
    """POST /v1/conversation/message/create."""
    conversation = call.store.conversation(call.query("conversation_id"), call.identity)
    [message] = messages_of({"messages": [call.body]}, "messages", save=True)
    check_files(call.store, call.identity, [message])
    return call.reply(call.dialect.message(stored_message(call, conversation, message), listed=True))


async def retrieve_message(call: Call) -> Response:
    """GET /v1/conversation/message/retrieve."""
    found = _message(call, call.query("conversation_id"), call.query("message_id"))
    return call.reply(call.dialect.message(found, listed=True))


def _message(call: Call, conversation_id: str, message_id: str) -> Message:
    conversation = call.store.conversation(conversation_id, call.identity)
    for message in conversation.messages:
        if message.id == message_id:
            return message
    raise ApiError(4005)
