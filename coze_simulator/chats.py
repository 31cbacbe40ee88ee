"""The chat endpoints: /v3/chat and what hangs below it."""

from __future__ import annotations

import time

from starlette.responses import Response

from coze_simulator.answers import count_tokens
from coze_simulator.core import Call
from coze_simulator.errors import ApiError, HttpFault
from coze_simulator.knobs import strip_directives
from coze_simulator.options import UNPUBLISHED_BOT_ID
from coze_simulator.outbox import Outbox
from coze_simulator.state import RUNNING, Chat, Conversation, Message, Usage
from coze_simulator.validate import (
    ChatRequest,
    EnterMessage,
    bad,
    bool_of,
    chat_request,
    check_files,
    text_of,
    words,
)

_SYSTEM_PROMPT_TOKENS = 64


async def create_chat(call: Call) -> Response:
    """POST /v3/chat: JSON with the chat just created, or the stream of its events."""
    asked = chat_request(call.body, stream_by_default=call.dialect.stream_by_default)
    if asked.bot_id == UNPUBLISHED_BOT_ID:
        raise ApiError(4015)
    check_files(call.store, call.identity, asked.messages)
    try:
        conversation = _conversation(call, asked)
    except ApiError as error:
        if error.code == 4016 and asked.stream and call.core.options.busy_as_event:
            return call.refusal_as_stream(error)
        raise
    chat = _new_chat(call, conversation, asked)
    call.store.add_chat(conversation, chat)
    call.record.conversation_id, call.record.chat_id = conversation.id, chat.id
    return _run(call, chat, stream=asked.stream)


def _run(call: Call, chat: Chat, *, stream: bool, resumed: bool = False) -> Response:
    outbox = Outbox() if stream else None
    chat.outbox = outbox
    if outbox is None:
        chat.status = "in_progress"
    task = call.core.start(chat, resumed=resumed)
    if outbox is None:
        return call.reply(call.dialect.chat(chat))
    return call.core.stream(call, chat, task, outbox)


def _conversation(call: Call, asked: ChatRequest) -> Conversation:
    """The conversation of the query string (never of the body), or a new one."""
    conversation_id = call.query("conversation_id")
    has_question = any(message.role == "user" and message.content for message in asked.messages)
    if not conversation_id:
        if not has_question:
            raise bad("a new conversation needs a message of the user")
        return call.store.create_conversation(call.identity, meta_data={}, bot_id=asked.bot_id)
    conversation = call.store.conversation(conversation_id, call.identity)
    if conversation.busy and call.dialect.one_chat_per_conversation:
        raise ApiError(4016)
    if not has_question and not any(message.role == "user" for message in conversation.context()):
        raise bad("an empty conversation needs a message of the user")
    return conversation


def _new_chat(call: Call, conversation: Conversation, asked: ChatRequest) -> Chat:
    context = conversation.context()
    earlier = [words(item.content, item.content_type) for item in context if item.role == "user"]
    said = [strip_directives(item.text) for item in asked.messages if item.role == "user"]
    everything = earlier + said
    tokens = sum(count_tokens(item.content) for item in context)
    tokens += sum(count_tokens(item.content) for item in asked.messages)
    chat = Chat(
        id=call.store.ids.next(),
        conversation_id=conversation.id,
        section_id=conversation.section_id,
        bot_id=asked.bot_id,
        identity=call.identity,
        question=everything[-1],
        history=tuple(everything[:-1]),
        knobs=call.knobs,
        saved=asked.save,
        created_at=int(time.time()),
        meta_data=asked.meta_data if call.core.options.keeps_meta_data else {},
        prompt_tokens=_SYSTEM_PROMPT_TOKENS + tokens,
        rounds_left=call.knobs.rounds if call.knobs.requires_action else 0,
    )
    if asked.save:
        for item in asked.messages:
            message = stored_message(call, conversation, item, bot_id=chat.bot_id, chat_id=chat.id)
            chat.inserted.append(message.id)
    return chat


def stored_message(
    call: Call, conversation: Conversation, item: EnterMessage, *, bot_id: str = "", chat_id: str = ""
) -> Message:
    """Adds a message of the caller's to the conversation."""
    message = Message(
        id=call.store.ids.next(),
        conversation_id=conversation.id,
        section_id=conversation.section_id,
        role=item.role,
        type=item.type,
        content=item.content,
        content_type=item.content_type,
        bot_id=bot_id,
        chat_id=chat_id,
        meta_data=item.meta_data,
        created_at=int(time.time()),
    )
    conversation.messages.append(message)
    return message


async def retrieve_chat(call: Call) -> Response:
    """GET (and on the cloud POST) /v3/chat/retrieve."""
    if call.request.method == "POST" and not call.dialect.post_retrieve:
        return call.unknown_path()
    try:
        chat = call.store.saved_chat(call.query("conversation_id"), call.query("chat_id"), call.identity)
    except ApiError as error:
        if call.dialect.name == "studio":
            raise HttpFault(500, "text") from error
        raise
    if chat.retrieves_refused < chat.knobs.not_found:
        chat.retrieves_refused += 1
        raise ApiError(4200)
    return call.reply(call.dialect.chat(chat))


async def list_chat_messages(call: Call) -> Response:
    """GET /v3/chat/message/list: what the bot has said so far in one turn."""
    chat = call.store.saved_chat(call.query("conversation_id"), call.query("chat_id"), call.identity)
    chat.lists_served += 1
    if chat.lists_served <= chat.knobs.empty_list:
        return call.reply([])
    conversation = call.store.conversation(chat.conversation_id, call.identity)
    questions = [item for item in conversation.messages if item.chat_id == chat.id and item.role == "user"]
    body = call.dialect.chat_messages(chat, questions[-1] if questions else None, call.logid)
    return call.json(200, body)


async def cancel_chat(call: Call) -> Response:
    """POST /v3/chat/cancel. An open stream is not cut; the turn leaves the context."""
    conversation_id, chat_id = text_of(call.body, "conversation_id"), text_of(call.body, "chat_id")
    chat = call.store.chat(conversation_id, chat_id, call.identity)
    if chat.status not in RUNNING:
        raise ApiError(4104)
    chat.status = "canceled"
    chat.usage = Usage(input_count=chat.prompt_tokens)
    chat.ended = time.monotonic()
    call.store.leave_context(chat)
    conversation = call.store.conversation(conversation_id, call.identity)
    if chat.knobs.cancel_lag:
        conversation.locked_until = chat.ended + chat.knobs.cancel_lag
    if chat.outbox is None or chat.outbox.gone:
        # Nobody listens, so the rest need not be said.
        for task in [task for task, owner in call.core.tasks.items() if owner is chat]:
            task.cancel()
    return call.json(200, call.dialect.canceled(chat, call.logid))


async def submit_tool_outputs(call: Call) -> Response:
    """POST /v3/chat/submit_tool_outputs: all outputs in one call; the same chat goes on."""
    if not call.dialect.has_tool_outputs:
        return call.unknown_path()
    stream = bool_of(call.body, "stream", default=False)
    chat = call.store.chat(call.query("conversation_id"), call.query("chat_id"), call.identity)
    if not chat.saved:
        raise ApiError(5000, "internal error: the chat keeps no history")
    if chat.status != "requires_action" or chat.required_action is None:
        raise bad("the chat does not wait for tool outputs")
    outputs = _outputs(call, chat.required_action)
    conversation = call.store.conversation(chat.conversation_id, call.identity)
    if conversation.busy:
        raise ApiError(4016)
    chat.tool_outputs.extend(outputs)
    chat.required_action = None
    chat.status = "in_progress"
    conversation.active = chat
    call.store.began()
    return _run(call, chat, stream=stream, resumed=True)


def _outputs(call: Call, action: dict[str, object]) -> list[str]:
    given = call.body.get("tool_outputs")
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise bad("tool_outputs must be a list of objects")
    by_id = {text_of(item, "tool_call_id", required=True): text_of(item, "output") for item in given}
    wanted = action["submit_tool_outputs"]
    calls = wanted["tool_calls"] if isinstance(wanted, dict) else []
    if set(by_id) != {item["id"] for item in calls}:
        raise bad("tool_outputs must answer every tool call, and no other")
    return [strip_directives(by_id[item["id"]]) for item in calls]
