"""The client's calls, on the running service with the simulator."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from coze_fastapi_client import (
    ChatNotFound,
    ChatStateConflict,
    CozeError,
    CozeServiceError,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    SessionBusy,
    SessionGone,
    SessionNotFound,
    UnexpectedAnswer,
    UpstreamError,
    WaitTimeout,
)
from coze_fastapi_client._errors import error_class

from app.exceptions import ERROR_CLASSES
from tests.support import SimControl, wait_until

from .support import leading, make_client

SLOW = "[[sim:deltas=20;gap=0.05;reasoning=0]]"


async def test_a_session_is_opened_looked_at_listed_and_ended(coze: Any) -> None:
    session = await coze.sessions.create("u/1 你好", meta_data={"app": "web"})
    assert (session.user_id, session.status, session.metadata) == ("u/1 你好", "active", {"app": "web"})
    assert session.expires_at - datetime.now(UTC) > timedelta(minutes=30)
    assert session.bot_id
    await coze.chats.send(session.session_id, "hello")
    again = await coze.sessions.get(session.session_id)
    assert [chat.user_message for chat in again.chat_history] == ["hello"]
    assert again.chat_history[0].status == "completed"
    assert [each.session_id for each in await coze.sessions.list("u/1 你好")] == [session.session_id]
    ended = await coze.sessions.delete(session.session_id)
    assert ended.status == "terminated"
    assert (await coze.sessions.delete(session.session_id)).status == "terminated"
    with pytest.raises(SessionGone) as gone:
        await coze.sessions.get(session.session_id)
    assert gone.value.code == "COZE_SESSION_TERMINATED"


async def test_a_message_is_answered_whole(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    chat = await coze.chats.send(session.session_id, "3 + 4", custom_variables={"a": "b"})
    assert chat.status == "completed"
    assert "7" in chat.content
    assert chat.usage.token_count == chat.usage.input_count + chat.usage.output_count > 0
    assert len(chat.follow_up_questions) == 3
    assert chat.completed_at >= chat.created_at
    assert chat.raw["content"] == chat.content
    assert await coze.chats.result(chat.chat_id) == chat
    page = await coze.chats.list(session.session_id, limit=1)
    assert (page.chats, page.has_more) == ((chat,), False)


async def test_an_answer_that_takes_long_is_waited_for_later(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    chat = await coze.chats.send(session.session_id, f"slow {SLOW}", wait=0)
    assert (chat.status, chat.settled) == ("processing", False)
    with pytest.raises(WaitTimeout) as waited:
        await coze.chats.wait(chat.chat_id, timeout=0.1)
    assert waited.value.chat.chat_id == chat.chat_id
    assert isinstance(waited.value, TimeoutError)
    assert (await coze.chats.wait(chat.chat_id, timeout=20)).status == "completed"


async def test_a_chat_is_cancelled(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    chat = await coze.chats.send(session.session_id, f"slow {SLOW}", wait=0)
    assert (await coze.chats.cancel(chat.chat_id)).status == "cancelled"
    assert (await coze.chats.cancel(chat.chat_id)).status == "cancelled"


async def test_a_chat_goes_on_with_the_outputs_of_its_tools(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    asked = await coze.chats.send(session.session_id, "[[sim:requires_action=function]] weather")
    assert (asked.status, asked.settled) == ("requires_action", True)
    [call] = asked.tool_calls
    assert (call.name, "weather" in call.arguments) == ("f", True)
    chat = await coze.chats.submit_tool_outputs(asked.chat_id, {call.id: '{"t": 21}'})
    assert (chat.chat_id, chat.status) == (asked.chat_id, "completed")
    assert '{"t": 21}' in chat.content
    with pytest.raises(ChatStateConflict):
        await coze.chats.submit_tool_outputs(asked.chat_id, {call.id: "again"})


async def test_one_key_is_one_chat(coze: Any, simulator: SimControl) -> None:
    session = await coze.sessions.create("u-1")
    first, second = await asyncio.gather(
        coze.chats.send(session.session_id, "once", idempotency_key="k-1"),
        coze.chats.send(session.session_id, "once", idempotency_key="k-1"),
    )
    assert first.chat_id == second.chat_id
    assert len(simulator.requests(contains="once", path="/v3/chat")) == 1
    with pytest.raises(IdempotencyKeyReused):
        await coze.chats.send(session.session_id, "other words", idempotency_key="k-1")
    # Without a key of the caller's each call has its own.
    third = await coze.chats.send(session.session_id, "once")
    assert third.chat_id != first.chat_id


async def test_refusals_are_classes(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    running = await coze.chats.send(session.session_id, f"slow {SLOW}", wait=0)
    with pytest.raises(SessionBusy) as busy:
        await coze.chats.send(session.session_id, "impatient")
    assert busy.value.chat_id == running.chat_id
    assert (busy.value.status, busy.value.retryable, busy.value.retry_after) == (409, True, 1)
    assert busy.value.request_id in str(busy.value)
    queued = await coze.chats.send(session.session_id, "patient", wait=0, on_busy="enqueue")
    await coze.chats.cancel(queued.chat_id)
    await coze.chats.cancel(running.chat_id)
    with pytest.raises(InvalidRequest) as invalid:
        await coze.chats.send(session.session_id, "x" * 5000)
    assert [fault["field"] for fault in invalid.value.fields] == ["message"]
    with pytest.raises(SessionNotFound):
        await coze.sessions.get("nope")
    with pytest.raises(ChatNotFound):
        async with coze.chats.follow("nope"):
            pass
    with pytest.raises(NotFound):
        async with coze.chats.stream("nope", "hello"):
            pass


async def test_a_chat_that_failed_raises_what_coze_said(coze: Any, simulator: SimControl) -> None:
    session = await coze.sessions.create("u-1")
    simulator.knob(path="/v3/chat", match="broken", fail=4101)
    with pytest.raises(UpstreamError) as failed:
        await coze.chats.send(session.session_id, "broken")
    error = failed.value
    assert (error.code, error.status, error.coze_code) == ("COZE_API_ERROR", 502, 4101)
    assert error.logid
    assert error.hint
    chat = await coze.chats.result(error.chat_id or "")
    assert (chat.status, chat.error.coze_code) == ("failed", 4101)
    with pytest.raises(UpstreamError) as same:
        chat.raise_for_error()
    assert (same.value.details, same.value.message) == (error.details, error.message)


async def test_all_of_a_user_is_erased_however_many_calls_it_takes(coze: Any) -> None:
    sessions = [await coze.sessions.create("gone") for _ in range(3)]
    chat = await coze.chats.send(sessions[0].session_id, "remember me")
    erased = await coze.users.erase("gone")
    assert (erased.erased_sessions, erased.erased_chats, erased.remaining_sessions) == (3, 1, 0)
    with pytest.raises(ChatNotFound):
        await coze.chats.result(chat.chat_id)


async def test_health_is_told(coze: Any) -> None:
    health = await coze.health()
    assert (health.status, health.redis, health.redis_mode) == ("healthy", "connected", "server")


async def test_a_misspelt_option_is_not_swallowed(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    with pytest.raises(TypeError, match="on_bussy"):
        await coze.chats.send(session.session_id, "hello", on_bussy="enqueue")


@pytest.mark.parametrize("code", sorted(ERROR_CLASSES))
def test_every_code_of_the_service_has_a_class(code: str) -> None:
    status = ERROR_CLASSES[code].status
    found = error_class(code, status)
    assert found is not CozeServiceError
    # A code that the client does not know falls back to what its status means: they must agree.
    assert issubclass(found, error_class("", status))


def test_an_unknown_code_is_the_class_of_its_status() -> None:
    assert error_class("NEW_IN_2030", 429) is error_class("RATE_LIMITED", 429)
    assert error_class("NEW_IN_2030", 418) is CozeServiceError
    assert issubclass(CozeServiceError, CozeError)


# -- files, history, usage --------------------------------------------------------------------------------

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100)


async def test_a_file_is_uploaded_sent_along_and_forgotten(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    file = await coze.files.upload("点.png", PICTURE, session_id=session.session_id)
    assert (file.file_name, file.bytes, file.type) == ("点.png", len(PICTURE), "image")
    assert file.expires_at > file.created_at
    assert await coze.files.get(file.file_id) == file
    chat = await coze.chats.send(session.session_id, "look", attachments=[{"file_id": file.file_id}])
    assert chat.raw["user_message"]["attachments"][0]["file_id"] == file.file_id
    await coze.files.delete(file.file_id)
    with pytest.raises(NotFound) as unknown:
        await coze.files.get(file.file_id)
    assert unknown.value.code == "COZE_FILE_NOT_FOUND"


async def test_a_conversations_messages_are_paged_and_its_context_cleared(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    for word in ("one", "two"):
        await coze.chats.send(session.session_id, word)
    first = await coze.sessions.history(session.session_id, limit=3, order="asc")
    assert (first.messages[0].role, first.messages[0].content) == ("user", "one")
    assert first.has_more
    rest = await coze.sessions.history(session.session_id, order="asc", after=first.last_id)
    seen = [message.message_id for message in (*first.messages, *rest.messages)]
    assert len(seen) == len(set(seen))
    assert "two" in [message.content for message in (*first.messages, *rest.messages)]
    cleared = await coze.sessions.clear(session.session_id)
    assert (cleared.conversation_id, bool(cleared.section_id)) == (first.conversation_id, True)


async def test_what_was_used_is_told(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    chat = await coze.chats.send(session.session_id, "3 + 4")
    report = await coze.usage(group_by="day,user")
    [row] = report.rows
    assert (row.user_id, row.chats, row.tokens) == ("u-1", 1, chat.usage.token_count)
    assert (report.total.tokens, report.since <= row.day <= report.to) == (row.tokens, True)
    day = datetime.now(UTC).date()
    ago = await coze.usage(since=str(day - timedelta(days=3)), to=str(day - timedelta(days=2)))
    assert (ago.rows, ago.total.chats) == ((), 0)


# -- titles, past conversations, bots, feedback ------------------------------------------------------------


async def test_a_session_has_a_title_and_takes_another_and_other_metadata(coze: Any) -> None:
    session = await coze.sessions.create("u-1", meta_data={"app": "web"})
    assert session.title is None
    await coze.chats.send(session.session_id, "a trip to Hangzhou")
    assert (await coze.sessions.get(session.session_id)).title == "a trip to Hangzhou"
    renamed = await coze.sessions.update(session.session_id, title="周末", metadata={"page": "2"})
    assert (renamed.title, renamed.metadata) == ("周末", {"page": "2"})
    with pytest.raises(InvalidRequest):
        await coze.sessions.update(session.session_id)


async def test_past_conversations_are_listed_gone_on_with_renamed_and_deleted(coze: Any) -> None:
    user = f"u-{uuid.uuid4()}"
    for word in ("one", "two"):
        session = await coze.sessions.create(user)
        await coze.chats.send(session.session_id, word)

    async def both() -> Any:
        page = await coze.conversations.list(user)
        return page if len(page.conversations) == 2 else None

    page = await wait_until(both)
    assert {each.title for each in page.conversations} == {"one", "two"}
    first = await coze.conversations.list(user, limit=1)
    assert (first.has_more, first.next_before) == (True, first.conversations[0].conversation_id)
    rest = await coze.conversations.list(user, before=first.next_before)
    assert first.conversations + rest.conversations == page.conversations
    past = page.conversations[1]
    assert past.last_used_at >= past.created_at
    renamed = await coze.conversations.rename(user, past.conversation_id, "first")
    assert renamed.title == "first"
    again = await coze.sessions.create(user, conversation_id=past.conversation_id)
    assert (again.conversation_id, again.title) == (past.conversation_id, "first")
    await coze.conversations.delete(user, past.conversation_id)
    assert len((await coze.conversations.list(user)).conversations) == 1
    with pytest.raises(NotFound):
        await coze.conversations.delete(user, past.conversation_id)


async def test_bots_say_who_they_are(coze: Any) -> None:
    [bot] = await coze.bots.list()
    assert bot.name
    assert bot.opening_text
    assert len(bot.suggested_questions) == 3
    assert await coze.bots.get(bot.bot_id) == bot
    with pytest.raises(NotFound):
        await coze.bots.get("7380000000000000011")


async def test_feedback_is_given_and_taken_back(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    chat = await coze.chats.send(session.session_id, "hello")
    given = await coze.chats.give_feedback(chat.chat_id, "unlike", reason_types=["wrong"], comment="no")
    assert (given.feedback_type, given.reason_types, given.comment) == ("unlike", ("wrong",), "no")
    assert (await coze.chats.take_feedback_back(chat.chat_id)).feedback_type is None
    with pytest.raises(InvalidRequest):
        await coze.chats.give_feedback(chat.chat_id, "meh")


async def test_the_last_message_is_asked_once_more_whole_or_streamed(coze: Any) -> None:
    session = await coze.sessions.create("u-1")
    first = await coze.chats.send(session.session_id, "3 + 4")
    second = await coze.chats.regenerate(first.chat_id, custom_variables={"mood": "calm"})
    assert second.content == first.content
    assert second.metadata["regenerates"] == first.chat_id
    async with coze.chats.stream_regenerated(second.chat_id) as stream:
        third = await stream.result()
    assert (third.content, third.metadata["regenerates"]) == (first.content, second.chat_id)
    with pytest.raises(ChatStateConflict):
        await coze.chats.regenerate(first.chat_id)
    with pytest.raises(TypeError):
        await coze.chats.regenerate(third.chat_id, mesage="typo")


async def test_no_token_goes_to_where_a_service_redirects(kind: str, tmp_path: Path) -> None:
    """Not even where the program's own httpx client follows."""
    own = (httpx.AsyncClient if kind == "async" else httpx.Client)(follow_redirects=True)
    with leading(str(tmp_path)) as (address, arrived):
        client = make_client(kind, address, token="secret", host="h", http=own)
        with pytest.raises(UnexpectedAnswer):
            await client.sessions.create("u-1")
        with pytest.raises(UnexpectedAnswer):
            async with client.chats.stream("s", "hi"):
                pass
        await (own.aclose() if isinstance(own, httpx.AsyncClient) else asyncio.to_thread(own.close))
    assert arrived == []
