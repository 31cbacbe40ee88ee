"""Coze's SDK for Python in front of the running service, blocking and asynchronous: nothing but its base URL
and token changed. The steps are those of its own examples."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cozepy import (
    AsyncCoze,
    AsyncTokenAuth,
    ChatEventType,
    ChatStatus,
    Coze,
    CozeAPIError,
    Message,
    MessageContentType,
    MessageObjectString,
    MessageRole,
    TokenAuth,
    ToolOutput,
)
from cozepy.conversations.message.feedback import FeedbackType
from cozepy.request import AsyncHTTPClient, SyncHTTPClient

from tests.support import RunningApp, SimControl

from .conftest import base_of
from .support import BOT, KEY, OTHER_KEY

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
WEATHER = "[[sim:requires_action=function;rounds=2]] weather?"


@contextmanager
def sdk(door: RunningApp, token: str) -> Iterator[Coze]:
    with SyncHTTPClient() as http:
        yield Coze(auth=TokenAuth(token=token), base_url=base_of(door), http_client=http)


@pytest.fixture
def coze(door: RunningApp) -> Iterator[Coze]:
    with sdk(door, KEY) as client:
        yield client


@pytest.fixture
async def async_coze(door: RunningApp) -> AsyncIterator[AsyncCoze]:
    async with AsyncHTTPClient() as http:
        yield AsyncCoze(auth=AsyncTokenAuth(token=KEY), base_url=base_of(door), http_client=http)


def said(text: str) -> list[Message]:
    return [Message.build_user_question_text(text)]


def outputs_of(event: Any) -> list[ToolOutput]:
    calls = event.chat.required_action.submit_tool_outputs.tool_calls
    return [ToolOutput(tool_call_id=call.id, output="21 degrees") for call in calls]


def whole(coze: Coze, **asked: Any) -> str:
    """A streamed answer, as the SDK's example prints it."""
    text, last = "", None
    for event in coze.chat.stream(bot_id=BOT, user_id="u-1", **asked):
        last = event.event
        if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
            text += event.message.content
    assert last == ChatEventType.CONVERSATION_CHAT_COMPLETED
    return text


def test_a_chat_is_streamed_and_has_its_usage_and_a_logid(coze: Coze) -> None:
    stream = coze.chat.stream(bot_id=BOT, user_id="u-1", additional_messages=said("hello"))
    assert stream.response.logid
    events = list(stream)
    assert [events[0].event, events[1].event, events[-1].event] == [
        ChatEventType.CONVERSATION_CHAT_CREATED,
        ChatEventType.CONVERSATION_CHAT_IN_PROGRESS,
        ChatEventType.CONVERSATION_CHAT_COMPLETED,
    ]
    assert events[-1].chat.usage.token_count > 0


def test_a_chat_is_polled_and_its_answer_is_the_streamed_one(coze: Coze) -> None:
    polled = coze.chat.create_and_poll(bot_id=BOT, user_id="u-1", additional_messages=said("hello"))
    assert polled.chat.status == ChatStatus.COMPLETED
    [answer] = [message for message in polled.messages or [] if message.type == "answer"]
    assert answer.content == whole(coze, additional_messages=said("hello"))
    chat = coze.chat.create(bot_id=BOT, user_id="u-1", additional_messages=said("[[sim:delay=20]] slow"))
    assert chat.status == ChatStatus.IN_PROGRESS
    cancelled = coze.chat.cancel(conversation_id=chat.conversation_id, chat_id=chat.id)
    assert cancelled.status == ChatStatus.CANCELED


def test_a_conversation_goes_on_is_listed_cleared_renamed_and_deleted(coze: Coze) -> None:
    conversation = coze.conversations.create(messages=said("my name is Li"), bot_id=BOT)
    assert coze.conversations.retrieve(conversation_id=conversation.id).id == conversation.id
    text = whole(coze, conversation_id=conversation.id, additional_messages=said("what is my name?"))
    assert "Li" in text
    message = coze.conversations.messages.create(
        conversation_id=conversation.id,
        role=MessageRole.USER,
        content="and this",
        content_type=MessageContentType.TEXT,
    )
    again = coze.conversations.messages.retrieve(conversation_id=conversation.id, message_id=message.id or "")
    assert again.content == "and this"
    pages = coze.conversations.messages.list(conversation_id=conversation.id, limit=2)
    assert len(list(pages)) == 4
    [answer] = [
        each
        for each in coze.conversations.messages.list(conversation_id=conversation.id)
        if each.role == MessageRole.ASSISTANT
    ]
    feedback = coze.conversations.messages.feedback
    feedback.create(
        conversation_id=conversation.id, message_id=answer.id or "", feedback_type=FeedbackType.LIKE
    )
    feedback.delete(conversation_id=conversation.id, message_id=answer.id or "")
    section = coze.conversations.clear(conversation_id=conversation.id)
    assert section.conversation_id == conversation.id
    assert coze.conversations.update(conversation_id=conversation.id, name="ours").name == "ours"
    [listed] = coze.conversations.list(bot_id=BOT)
    assert (listed.id, listed.name, listed.last_section_id) == (conversation.id, "ours", section.id)
    coze.conversations.delete(conversation_id=conversation.id)
    with pytest.raises(CozeAPIError, match="4002"):
        coze.conversations.retrieve(conversation_id=conversation.id)


def test_a_local_plug_in_answers_two_rounds_of_tool_calls(coze: Coze, simulator: SimControl) -> None:
    stream = coze.chat.stream(bot_id=BOT, user_id="u-1", additional_messages=said(WEATHER))
    text = ""
    for _ in range(3):
        again = None
        for event in stream:
            if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
                text += event.message.content
            if event.event == ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION:
                again = event
        if again is None:
            break
        stream = coze.chat.submit_tool_outputs(  # type: ignore[assignment]
            conversation_id=again.chat.conversation_id,
            chat_id=again.chat.id,
            tool_outputs=outputs_of(again),
            stream=True,
        )
    assert "21 degrees" in text
    assert len(simulator.requests(path="/v3/chat")) == 1


def test_a_picture_is_uploaded_and_asked_about(coze: Coze) -> None:
    file = coze.files.upload(file=("photo.png", PNG))
    assert coze.files.retrieve(file_id=file.id).file_name == "photo.png"
    objects = [
        MessageObjectString.build_text("what is this?"),
        MessageObjectString.build_image(file_id=file.id),
    ]
    assert "what is this?" in whole(coze, additional_messages=[Message.build_user_question_objects(objects)])


def test_the_bot_introduces_itself(coze: Coze) -> None:
    for version in (1, 2):
        bot = coze.bots.retrieve(bot_id=BOT, use_api_version=version)
        assert (bot.bot_id, bot.name) == (BOT, "模拟智能体")
        assert bot.onboarding_info is not None
        assert bot.onboarding_info.suggested_questions


def test_refusals_are_the_sdks_own_errors_with_code_and_logid(coze: Coze, door: RunningApp) -> None:
    def code_of(client: Coze, text: str = "hello", **asked: Any) -> int | None:
        with pytest.raises(CozeAPIError) as refused:
            whole(client, additional_messages=said(text), **asked)
        assert refused.value.logid
        return refused.value.code

    assert code_of(coze, "[[sim:fail=4015]] hello") == 4015
    with pytest.raises(CozeAPIError, match="does not offer") as refused:
        coze.workspaces.list()
    assert refused.value.code == 4200
    with sdk(door, "sk-wrong-0123456789abcd") as wrong, sdk(door, OTHER_KEY) as other:
        assert code_of(wrong) == 4100
        conversation = coze.conversations.create()
        assert code_of(other, conversation_id=conversation.id) == 4002


async def test_the_asynchronous_client_does_the_same_with_many_at_once(
    async_coze: AsyncCoze, simulator: SimControl
) -> None:
    async def hold(number: int) -> None:
        conversation = await async_coze.conversations.create(bot_id=BOT)
        text = ""
        async for event in async_coze.chat.stream(
            bot_id=BOT,
            user_id=f"u-{number}",
            conversation_id=conversation.id,
            additional_messages=said(f"my name is Li{number}"),
        ):
            if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA and event.message is not None:
                text += event.message.content
        assert f"Li{number}" in text
        chat = await async_coze.chat.create(
            bot_id=BOT,
            user_id=f"u-{number}",
            conversation_id=conversation.id,
            additional_messages=said("what is my name?"),
        )
        ids = {"conversation_id": conversation.id, "chat_id": chat.id}
        while chat.status == ChatStatus.IN_PROGRESS:
            chat = await async_coze.chat.retrieve(**ids)
        messages = await async_coze.chat.messages.list(**ids)
        [answer] = [message for message in messages if message.type == "answer"]
        assert f"Li{number}" in answer.content

    await asyncio.gather(*(hold(number) for number in range(8)))
    assert len(simulator.requests(path="/v3/chat")) == 16
    listed = await async_coze.conversations.list(bot_id=BOT, page_size=3)
    assert len([each async for each in listed]) == 8


async def test_the_asynchronous_client_uploads_and_answers_tool_calls(async_coze: AsyncCoze) -> None:
    file = await async_coze.files.upload(file=("a.png", PNG))
    objects = [MessageObjectString.build_text(WEATHER), MessageObjectString.build_image(file_id=file.id)]
    question = [Message.build_user_question_objects(objects)]
    stream: Any = async_coze.chat.stream(bot_id=BOT, user_id="u-1", additional_messages=question)
    for _ in range(3):
        text, again = "", None
        async for event in stream:
            if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
                text += event.message.content
            if event.event == ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION:
                again = event
        if again is None:
            break
        stream = async_coze.chat.submit_tool_outputs_stream(
            conversation_id=again.chat.conversation_id,
            chat_id=again.chat.id,
            tool_outputs=outputs_of(again),
        )
    assert "21 degrees" in text
