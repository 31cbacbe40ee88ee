"""The calls beside the stream: what they send, and what they make of the answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import respx

from app.coze.client import POLL_FAILURES, SEARCHED_CHATS, SEARCHED_PAGES, CozeClient
from app.coze.transport import PooledClient
from app.exceptions import CozeApiError, CozeTimeout

from .mocks import CANCEL, CREATE, LIST, PAGE, RETRIEVE, chat_data, ok, refusal
from .support import Sleeps, make_client


async def test_polling_slows_down_to_a_bound(
    respx_mock: respx.MockRouter, coze: CozeClient, sleeps: Sleeps
) -> None:
    states = [ok(chat_data("in_progress"))] * 30 + [ok(chat_data("canceled"))]
    respx_mock.get(RETRIEVE).mock(side_effect=states)

    assert (await coze.poll_chat("5", "6")).status == "canceled"
    # jitter at its slowest: 1.1 times; first sooner than the interval, then at least that
    assert sleeps.taken[:3] == pytest.approx([0.33, 1.1, 1.32])
    assert sleeps.taken == sorted(sleeps.taken)
    assert sleeps.taken[-1] == pytest.approx(3.3)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "requires_action"])
async def test_polling_stops_at_every_end(
    respx_mock: respx.MockRouter, coze: CozeClient, status: str
) -> None:
    route = respx_mock.get(RETRIEVE).mock(side_effect=[ok(chat_data("odd")), ok(chat_data(status))])

    await coze.poll_chat("5", "6")

    assert route.call_count == 2


async def test_polling_bears_failures_that_pass_and_counts_only_those_in_a_row(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    failures: list[Any] = [httpx.ReadError("x"), httpx.Response(502), httpx.ConnectError("x"), refusal(4009)]
    states = [*failures, ok(chat_data("in_progress")), *failures, ok(chat_data("completed"))]
    respx_mock.get(RETRIEVE).mock(side_effect=states)

    assert (await coze.poll_chat("5", "6")).status == "completed"


async def test_polling_gives_up_on_a_coze_that_stays_away(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    route = respx_mock.get(RETRIEVE).mock(side_effect=httpx.ConnectError("x"))

    with pytest.raises(CozeApiError, match="No connection") as caught:
        await coze.poll_chat("5", "6")

    assert route.call_count == POLL_FAILURES + 1
    assert caught.value.maybe_started, "the chat exists, whatever retrieve says"


async def test_polling_stops_at_a_refusal(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    route = respx_mock.get(RETRIEVE).mock(refusal(4101))

    with pytest.raises(CozeApiError):
        await coze.poll_chat("5", "6")

    assert route.call_count == 1


async def test_a_chat_has_a_deadline_that_is_named(http: PooledClient) -> None:
    coze = make_client(http)

    with pytest.raises(CozeTimeout, match=r"longer than 0.01 s \(COZE_CHAT_TIMEOUT\)"):
        async with coze.chat_deadline(0.01):
            await asyncio.Event().wait()


async def test_safe_calls_are_tried_again_after_a_break(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    broken: list[Any] = [httpx.ReadError("x"), httpx.RemoteProtocolError("x"), httpx.Response(504)]
    route = respx_mock.get(RETRIEVE).mock(side_effect=[*broken, ok(chat_data("completed"))])

    assert (await coze.retrieve_chat("5", "6")).status == "completed"
    assert route.call_count == 4


async def test_a_list_without_data_is_empty_and_asked_for_three_times_after_completion(
    respx_mock: respx.MockRouter, coze: CozeClient, sleeps: Sleeps
) -> None:
    route = respx_mock.get(LIST).mock(ok())

    assert await coze.list_messages("5", "6") == []
    assert await coze.stored_answer("5", "6") == []
    assert route.call_count == 4
    assert sleeps.taken == [0.5, 1.0]


async def test_a_list_that_lags_is_waited_for(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    verbose = {"id": "8", "type": "verbose", "role": "assistant"}
    answer = {"id": "7", "type": "answer", "role": "assistant", "content": "hi"}
    respx_mock.get(LIST).mock(side_effect=[ok([]), ok([verbose]), ok([verbose, answer])])

    assert [found.id for found in await coze.stored_answer("5", "6")] == ["8", "7"]


async def test_the_number_of_messages_and_the_size_of_an_answer_are_bounded(
    respx_mock: respx.MockRouter, http: PooledClient
) -> None:
    respx_mock.get(LIST).mock(ok([{"id": str(number)} for number in range(11)]))

    with pytest.raises(CozeApiError, match="more than 10 messages"):
        await make_client(http, max_messages=10).list_messages("5", "6")
    with pytest.raises(CozeApiError, match="larger than 100 bytes"):
        await make_client(http, max_json_bytes=100).list_messages("5", "6")


async def test_a_huge_error_page_is_an_error_of_its_status(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    respx_mock.get(LIST).mock(httpx.Response(404, content=b"<html>" + b"x" * 1_000_000))

    with pytest.raises(CozeApiError, match="HTTP status 404"):
        await coze.list_messages("5", "6")


class Endless(httpx.AsyncByteStream):
    """A body without an end, that says when it is let go."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"<html>" * 1000

    async def aclose(self) -> None:
        self.closed = True


async def test_an_answer_that_is_not_read_to_its_end_is_closed(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    body = Endless()
    respx_mock.get(LIST).mock(httpx.Response(404, stream=body))

    with pytest.raises(CozeApiError, match="HTTP status 404"):
        await coze.list_messages("5", "6")

    assert body.closed


async def test_cancel_sends_ids_in_the_body(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    route = respx_mock.post(CANCEL).mock(
        httpx.Response(200, json={"ChatV3ChatDetail": {"status": "cancelled"}, "BaseResp": None})
    )

    chat = await coze.cancel_chat("5", "6")

    assert (chat.status, chat.id, chat.conversation_id) == ("canceled", "6", "5")
    assert json.loads(route.calls.last.request.content) == {"conversation_id": "5", "chat_id": "6"}


@pytest.mark.parametrize("code", [4104, 103200005])
async def test_a_chat_that_cannot_be_cancelled_tells_its_state(
    respx_mock: respx.MockRouter, coze: CozeClient, code: int
) -> None:
    respx_mock.post(CANCEL).mock(refusal(code))
    respx_mock.get(RETRIEVE).mock(ok(chat_data("completed")))

    assert (await coze.cancel_chat("5", "6")).status == "completed"


async def test_a_conversation_without_an_id_is_an_error(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    respx_mock.post(CREATE).mock(ok({"created_at": 1}))

    with pytest.raises(CozeApiError, match="no id"):
        await coze.create_conversation(bot_id="9")


async def test_pages_of_a_conversation(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    rows = [{"id": "7", "role": "assistant", "type": "answer", "chat_id": "6"}, "junk"]
    route = respx_mock.post(PAGE).mock(ok(rows, first_id="7", last_id="7", has_more=True))

    page = await coze.list_conversation_messages("5", limit=500, after_id="9")

    assert ([row.id for row in page.messages], page.first_id, page.last_id, page.has_more) == (
        ["7"],
        "7",
        "7",
        True,
    )
    request = route.calls.last.request
    assert request.url.query == b"conversation_id=5"
    assert json.loads(request.content) == {"order": "desc", "limit": 50, "after_id": "9"}


# -- finding a chat ---------------------------------------------------------------------------------------


def rows(*chats: str, created_at: int = 100) -> list[dict[str, Any]]:
    return [{"id": f"m{chat}", "type": "answer", "chat_id": chat, "created_at": created_at} for chat in chats]


def mock_chats(router: respx.MockRouter, **meta: str | None) -> respx.Route:
    """Retrieve knows these chats (``c6="ours"``); None: it does not exist any more."""

    def answer(request: httpx.Request) -> httpx.Response:
        chat_id = request.url.params["chat_id"]
        value = meta[f"c{chat_id}"]
        if value is None:
            return refusal(4001)
        return ok({**chat_data("completed", meta_data={"chat": value}), "id": chat_id})

    return router.get(RETRIEVE).mock(side_effect=answer)


async def test_a_chat_is_found_by_its_meta_data_on_a_later_page(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    pages = [
        ok(rows("9", "9", "8"), last_id="m8", has_more=True),
        ok(rows("7", "6", "5"), last_id="m5", has_more=True),
    ]
    listed = respx_mock.post(PAGE).mock(side_effect=pages)
    asked = mock_chats(respx_mock, c9="x", c8=None, c7="y", c6="ours")

    found = await coze.find_chat("5", meta_key="chat", meta_value="ours")

    assert found is not None
    assert found.id == "6"
    assert asked.call_count == 4
    assert json.loads(listed.calls.last.request.content)["after_id"] == "m8"


async def test_the_search_ends_at_messages_older_than_the_chat(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    listed = rows("9", created_at=100) + rows("8", created_at=49)
    respx_mock.post(PAGE).mock(ok(listed, last_id="m8", has_more=True))
    asked = mock_chats(respx_mock, c9="x")

    assert await coze.find_chat("5", meta_key="chat", meta_value="ours", created_after=50) is None
    assert asked.call_count == 1


async def test_the_search_is_bounded(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    listed = respx_mock.post(PAGE).mock(
        side_effect=[ok(rows("9"), last_id=f"m{number}", has_more=True) for number in range(10)]
    )
    asked = mock_chats(respx_mock, c9="x", **{f"c{number}": "x" for number in range(100, 112)})

    assert await coze.find_chat("5", meta_key="chat", meta_value="ours") is None
    assert (listed.call_count, asked.call_count) == (SEARCHED_PAGES, 1)
    listed.mock(ok(rows(*map(str, range(100, 112))), has_more=True))
    assert await coze.find_chat("5", meta_key="chat", meta_value="ours") is None
    assert asked.call_count == 1 + SEARCHED_CHATS


async def test_a_failing_search_is_an_error_and_not_none(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    respx_mock.post(PAGE).mock(ok(rows("9")))
    respx_mock.get(RETRIEVE).mock(refusal(4101))

    with pytest.raises(CozeApiError):
        await coze.find_chat("5", meta_key="chat", meta_value="ours")
