"""The official SDK against the simulator: somebody else's reading of the same wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from cozepy import (
    AsyncCoze,
    AsyncTokenAuth,
    Chat,
    ChatEventType,
    ChatStatus,
    Coze,
    CozeAPIError,
    JWTAuth,
    JWTOAuthApp,
    Message,
    MessageContentType,
    MessageObjectString,
    MessageType,
    TokenAuth,
    ToolOutput,
)
from cozepy.conversations.message.feedback import FeedbackType
from cozepy.request import AsyncHTTPClient, SyncHTTPClient
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN, WRONG_TOKEN
from coze_simulator.options import UNPUBLISHED_BOT_ID

from .helpers import SimClient

BOT = SIMULATOR_BOT_ID


@pytest.fixture
def sim_sdk(sim_cloud: SimClient) -> Iterator[Coze]:
    with SyncHTTPClient() as http:
        yield Coze(auth=TokenAuth(SIMULATOR_TOKEN), base_url=sim_cloud.sim.base_url, http_client=http)


@pytest.fixture
async def sim_async_sdk(sim_cloud: SimClient) -> AsyncIterator[AsyncCoze]:
    async with AsyncHTTPClient() as http:
        yield AsyncCoze(
            auth=AsyncTokenAuth(SIMULATOR_TOKEN), base_url=sim_cloud.sim.base_url, http_client=http
        )


def ask(text: str) -> list[Message]:
    return [Message.build_user_question_text(text)]


def test_streaming_delivers_reasoning_answer_follow_ups_and_usage(sim_sdk: Coze) -> None:
    text, reasoning, follow_ups, usage, kinds, whole = "", "", [], None, [], ""
    for event in sim_sdk.chat.stream(bot_id=BOT, user_id="u", additional_messages=ask("今天天气怎么样")):
        kinds.append(event.event)
        if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
            text += event.message.content
            reasoning += event.message.reasoning_content or ""
        elif event.event == ChatEventType.CONVERSATION_MESSAGE_COMPLETED:
            if event.message.type == MessageType.FOLLOW_UP:
                follow_ups.append(event.message.content)
            if event.message.type == MessageType.ANSWER:
                whole = event.message.content
                assert not event.message.reasoning_content
        elif event.event == ChatEventType.CONVERSATION_CHAT_COMPLETED:
            usage = event.chat.usage
    assert kinds[:2] == [ChatEventType.CONVERSATION_CHAT_CREATED, ChatEventType.CONVERSATION_CHAT_IN_PROGRESS]
    assert kinds[-1] == ChatEventType.CONVERSATION_CHAT_COMPLETED  # the SDK keeps `done` to itself
    assert "今天天气怎么样" in text
    assert text == whole
    assert reasoning
    assert len(follow_ups) == 3
    assert usage is not None
    assert usage.token_count == usage.input_count + usage.output_count > 0


def test_create_and_poll_lists_the_answer_with_its_reasoning(sim_sdk: Coze) -> None:
    poll = sim_sdk.chat.create_and_poll(
        bot_id=BOT, user_id="u", additional_messages=ask("poll me[[sim:delay=0.1]]"), meta_data={"k": "v"}
    )
    assert poll.chat.status == ChatStatus.COMPLETED
    assert poll.chat.meta_data == {"k": "v"}
    assert poll.messages is not None
    answers = [item for item in poll.messages if item.type == MessageType.ANSWER]
    assert len(answers) == 1
    assert "poll me" in answers[0].content
    assert "sim:" not in answers[0].content
    assert answers[0].reasoning_content


def test_cancel_ends_a_running_chat_and_refuses_an_ended_one(sim_sdk: Coze) -> None:
    chat = sim_sdk.chat.create(bot_id=BOT, user_id="u", additional_messages=ask("long[[sim:delay=60]]"))
    canceled = sim_sdk.chat.cancel(conversation_id=chat.conversation_id, chat_id=chat.id)
    assert canceled.status == ChatStatus.CANCELED
    again = sim_sdk.chat.retrieve(conversation_id=chat.conversation_id, chat_id=chat.id)
    assert again.status == ChatStatus.CANCELED
    with pytest.raises(CozeAPIError) as caught:
        sim_sdk.chat.cancel(conversation_id=chat.conversation_id, chat_id=chat.id)
    assert caught.value.code == 4104
    assert caught.value.logid


def test_conversations_are_created_retrieved_listed_and_cleared(sim_sdk: Coze) -> None:
    made = sim_sdk.conversations.create(
        messages=[Message.build_user_question_text("first"), Message.build_assistant_answer("second")],
        meta_data={"team": "a"},
    )
    assert sim_sdk.conversations.retrieve(conversation_id=made.id).meta_data == {"team": "a"}
    sim_sdk.chat.create_and_poll(
        bot_id=BOT, user_id="u", conversation_id=made.id, additional_messages=ask("third")
    )
    listed = list(sim_sdk.conversations.messages.list(conversation_id=made.id, order="asc", limit=2))
    assert [item.content for item in listed][:3] == ["first", "second", "third"]
    assert len(listed) == 4
    assert listed[2].chat_id == listed[3].chat_id != ""
    section = sim_sdk.conversations.clear(conversation_id=made.id)
    assert section.conversation_id == made.id
    assert section.id not in ("", made.last_section_id)
    assert len(list(sim_sdk.conversations.messages.list(conversation_id=made.id))) == 4


def test_a_file_is_uploaded_and_used_in_a_question(sim_sdk: Coze) -> None:
    file = sim_sdk.files.upload(file=("图 a.png", b"\x89PNG" * 100))
    assert (file.bytes, file.file_name) == (400, "图 a.png")
    assert sim_sdk.files.retrieve(file_id=file.id).bytes == 400
    message = Message.build_user_question_objects(
        [MessageObjectString.build_text("what is this?"), MessageObjectString.build_image(file_id=file.id)]
    )
    assert message.content_type == MessageContentType.OBJECT_STRING
    poll = sim_sdk.chat.create_and_poll(bot_id=BOT, user_id="u", additional_messages=[message])
    assert poll.messages is not None
    assert any("what is this?" in item.content for item in poll.messages)


def test_tool_outputs_resume_the_same_chat_as_a_stream(sim_sdk: Coze) -> None:
    events = list(
        sim_sdk.chat.stream(
            bot_id=BOT, user_id="u", additional_messages=ask("weather[[sim:requires_action=1;tool_calls=2]]")
        )
    )
    chat = next(item.chat for item in events if item.event == ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION)
    calls = chat.required_action.submit_tool_outputs.tool_calls
    assert [call.function.name for call in calls] == ["f", "f2"]
    resumed = list(
        sim_sdk.chat.submit_tool_outputs(
            conversation_id=chat.conversation_id,
            chat_id=chat.id,
            tool_outputs=[ToolOutput(tool_call_id=call.id, output="21 degrees") for call in calls],
            stream=True,
        )
    )
    assert resumed[0].event == ChatEventType.CONVERSATION_CHAT_IN_PROGRESS
    answer = "".join(
        item.message.content for item in resumed if item.event == ChatEventType.CONVERSATION_MESSAGE_DELTA
    )
    assert "21 degrees" in answer
    assert {item.chat.id for item in resumed if item.chat} == {chat.id}
    assert resumed[-1].event == ChatEventType.CONVERSATION_CHAT_COMPLETED


def test_errors_reach_the_sdk_with_code_and_logid(sim_cloud: SimClient) -> None:
    with SyncHTTPClient() as http:
        wrong = Coze(auth=TokenAuth(WRONG_TOKEN), base_url=sim_cloud.sim.root_url, http_client=http)
        with pytest.raises(CozeAPIError) as caught:
            next(wrong.chat.stream(bot_id=BOT, user_id="u", additional_messages=ask("x")))
    assert caught.value.code == 4100
    assert caught.value.logid


def test_a_service_token_is_issued_for_a_jwt_and_its_chats_outlive_it(sim_cloud: SimClient) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    base = sim_cloud.sim.base_url
    app = JWTOAuthApp(client_id="app-1", private_key=pem, public_key_id="kid-1", base_url=base)
    try:
        with SyncHTTPClient() as http:
            first = Coze(auth=JWTAuth(oauth_app=app), base_url=base, http_client=http)
            second = Coze(auth=JWTAuth(oauth_app=app), base_url=base, http_client=http)
            poll = first.chat.create_and_poll(bot_id=BOT, user_id="u", additional_messages=ask("hi"))
            ids = {"conversation_id": poll.chat.conversation_id, "chat_id": poll.chat.id}
            assert second.chat.retrieve(**ids).status == ChatStatus.COMPLETED
        token = app.get_access_token(ttl=60).access_token
    finally:
        app._requester.sync_client.close()
    assert token.startswith("czs_")
    headers = {"authorization": f"Bearer {token}"}
    create = base + "/v1/conversation/create"
    assert httpx.post(create, headers=headers, json={}).json()["code"] == 0
    sim_cloud.control("DELETE", "tokens")
    assert httpx.post(create, headers=headers, json={}).json()["code"] == 4100


async def test_async_streams_run_side_by_side(sim_async_sdk: AsyncCoze) -> None:
    async def run(number: int) -> str:
        text = ""
        stream = sim_async_sdk.chat.stream(
            bot_id=BOT, user_id=f"u{number}", additional_messages=ask(f"question {number}")
        )
        async for event in stream:
            if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
                text += event.message.content
        return text

    texts = await asyncio.gather(*(run(number) for number in range(30)))
    assert all(f"“question {number}”" in text for number, text in enumerate(texts))


async def status_reached(sdk: AsyncCoze, chat: Chat, status: ChatStatus) -> Chat:
    async with asyncio.timeout(20):
        while True:
            found = await sdk.chat.retrieve(conversation_id=chat.conversation_id, chat_id=chat.id)
            if found.status == status:
                return found
            await asyncio.sleep(0.01)


async def test_async_polling_cancelling_listing_and_uploading(sim_async_sdk: AsyncCoze) -> None:
    chat = await sim_async_sdk.chat.create(bot_id=BOT, user_id="u", additional_messages=ask("async"))
    await status_reached(sim_async_sdk, chat, ChatStatus.COMPLETED)
    messages = await sim_async_sdk.chat.messages.list(conversation_id=chat.conversation_id, chat_id=chat.id)
    assert {item.type for item in messages} == {
        MessageType.ANSWER,
        MessageType.VERBOSE,
        MessageType.FOLLOW_UP,
    }
    chat = await sim_async_sdk.chat.create(
        bot_id=BOT, user_id="u", additional_messages=ask("x[[sim:delay=60]]")
    )
    canceled = await sim_async_sdk.chat.cancel(conversation_id=chat.conversation_id, chat_id=chat.id)
    assert canceled.status == ChatStatus.CANCELED
    assert (await sim_async_sdk.files.upload(file=("a.txt", b"hello"))).bytes == 5
    made = await sim_async_sdk.conversations.create()
    assert (await sim_async_sdk.conversations.retrieve(conversation_id=made.id)).id == made.id


async def test_async_tool_outputs_without_a_stream_are_polled(sim_async_sdk: AsyncCoze) -> None:
    chat = await sim_async_sdk.chat.create(
        bot_id=BOT, user_id="u", additional_messages=ask("which city[[sim:requires_action=reply_message]]")
    )
    ids = {"conversation_id": chat.conversation_id, "chat_id": chat.id}

    waiting = await status_reached(sim_async_sdk, chat, ChatStatus.REQUIRES_ACTION)
    assert waiting.required_action is not None
    call = waiting.required_action.submit_tool_outputs.tool_calls[0]
    assert call.type == "reply_message"
    with pytest.raises(CozeAPIError, match="4104"):
        await sim_async_sdk.chat.cancel(**ids)
    await sim_async_sdk.chat.submit_tool_outputs(
        **ids, tool_outputs=[ToolOutput(tool_call_id=call.id, output="Hangzhou")]
    )
    await status_reached(sim_async_sdk, chat, ChatStatus.COMPLETED)
    messages = await sim_async_sdk.chat.messages.list(**ids)
    assert any("Hangzhou" in item.content for item in messages if item.type == MessageType.ANSWER)


def test_a_published_bot_says_who_it_is(sim_sdk: Coze) -> None:
    for version in (1, 2):
        bot = sim_sdk.bots.retrieve(bot_id=BOT, use_api_version=version)
        assert bot.bot_id == BOT
        assert bot.name
        assert bot.onboarding_info is not None
        assert bot.onboarding_info.prologue
        assert len(bot.onboarding_info.suggested_questions or []) == 3
    with pytest.raises(CozeAPIError) as refused:
        sim_sdk.bots.retrieve(bot_id=UNPUBLISHED_BOT_ID)
    assert refused.value.code == 4015


def test_feedback_is_kept_with_an_answer_and_taken_back(sim_sdk: Coze, sim_cloud: SimClient) -> None:
    done = sim_sdk.chat.create_and_poll(bot_id=BOT, user_id="u", additional_messages=ask("hello"))
    conversation = done.chat.conversation_id
    answer = next(message for message in done.messages or [] if message.type == MessageType.ANSWER)
    feedback = sim_sdk.conversations.messages.feedback
    feedback.create(
        conversation_id=conversation,
        message_id=answer.id,
        feedback_type=FeedbackType.UNLIKE,
        reason_types=["wrong"],
        comment="no",
    )
    stored = sim_cloud.sim.app.core.store.conversations[conversation].messages
    [kept] = [message.feedback for message in stored if message.id == answer.id]
    assert kept == {"feedback_type": "unlike", "reason_types": ["wrong"], "comment": "no"}
    feedback.delete(conversation_id=conversation, message_id=answer.id)
    assert not [message.feedback for message in stored if message.feedback]
    question = next(message for message in stored if message.role == "user")
    for message_id in (question.id, "7380000000000000001"):
        with pytest.raises(CozeAPIError) as refused:
            feedback.create(
                conversation_id=conversation, message_id=message_id, feedback_type=FeedbackType.LIKE
            )
        assert refused.value.code == 4005


def test_a_deleted_conversation_is_unknown(sim_sdk: Coze) -> None:
    conversation = sim_sdk.conversations.create().id
    sim_sdk.conversations.delete(conversation_id=conversation)
    with pytest.raises(CozeAPIError) as refused:
        sim_sdk.conversations.retrieve(conversation_id=conversation)
    assert refused.value.code == 4002
