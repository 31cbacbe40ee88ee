"""The client against the local Coze, over both transports and in all dialects."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.coze.client import CozeClient
from app.coze.fold import Fold
from app.coze.transport import PooledClient, TransportName
from app.coze.wire import ChatRequest, ChatState, EnterMessage
from app.exceptions import CozeApiError, CozeBusy, CozeQuotaExhausted, UpstreamError
from coze_simulator import SIMULATOR_BOT_ID, SIMULATOR_TOKEN, SimulatorOptions, running_simulator
from coze_simulator.server import RunningSimulator

from .support import OVER_BOTH_TRANSPORTS, http_client, make_client, one_token


@pytest.fixture(scope="module", params=["cloud", "studio", "spaced"])
def simulator(request: pytest.FixtureRequest) -> Iterator[RunningSimulator]:
    with running_simulator(SimulatorOptions(dialect=request.param, speed=math.inf)) as running:
        yield running


@pytest.fixture(scope="module")
def cloud() -> Iterator[RunningSimulator]:
    with running_simulator(SimulatorOptions(speed=math.inf)) as running:
        yield running


pytestmark = OVER_BOTH_TRANSPORTS


def client_of(http: PooledClient, simulator: RunningSimulator, **options: Any) -> CozeClient:
    credentials = one_token(SIMULATOR_TOKEN)
    return make_client(http, base=simulator.base_url, credentials=credentials, poll_interval=0.01, **options)


def ask(text: str, conversation_id: str | None = None, **more: object) -> ChatRequest:
    return ChatRequest(
        bot_id=SIMULATOR_BOT_ID,
        user_id="u-1",
        messages=[EnterMessage("user", text)],
        conversation_id=conversation_id,
        **more,  # type: ignore[arg-type]
    )


async def hear(coze: CozeClient, request: ChatRequest, fold: Fold | None = None) -> Fold:
    """Streams one chat until it says that it is over."""
    fold = fold or Fold()
    async with coze.stream_chat(request) as stream:
        fold.logid = stream.logid
        async for events in stream:
            for event in events:
                fold.feed(event)
            if fold.done:
                break
    return fold


async def repair(coze: CozeClient, fold: Fold) -> ChatState:
    """What a caller does after a cut."""
    assert fold.conversation_id is not None
    assert fold.coze_chat_id is not None
    chat = await coze.poll_chat(fold.conversation_id, fold.coze_chat_id)
    fold.adopt(await coze.stored_answer(fold.conversation_id, fold.coze_chat_id), chat)
    return chat


@asynccontextmanager
async def upstream_mode(simulator: RunningSimulator, mode: str) -> AsyncIterator[None]:
    async with httpx.AsyncClient(trust_env=False) as plain:
        url = f"{simulator.root_url}/_sim/upstream"
        (await plain.post(url, json={"mode": mode})).raise_for_status()
        try:
            yield
        finally:
            await plain.post(url, json={"mode": "ok"})


async def test_a_conversation_is_kept_over_two_streamed_chats(
    http: PooledClient, simulator: RunningSimulator
) -> None:
    coze = client_of(http, simulator)
    conversation_id = await coze.create_conversation(bot_id=SIMULATOR_BOT_ID)

    first = await hear(coze, ask("My name is Ada", conversation_id))
    second = await hear(coze, ask("What is my name?", conversation_id))

    assert (first.status, second.status) == ("completed", "completed")
    assert first.conversation_id == second.conversation_id == conversation_id
    assert "Ada" in second.content()
    assert second.logid
    assert len(first.follow_ups()) == 3


async def test_without_a_conversation_coze_makes_one(http: PooledClient, simulator: RunningSimulator) -> None:
    fold = await hear(client_of(http, simulator), ask("hello"))

    assert fold.conversation_id
    assert fold.coze_chat_id
    assert fold.content()


async def test_polling_gives_the_same_answer_as_streaming(
    http: PooledClient, simulator: RunningSimulator
) -> None:
    coze = client_of(http, simulator)
    streamed = await hear(coze, ask("Tell me about tea"))

    created = await coze.create_chat(ask("Tell me about tea"))
    state = await coze.poll_chat(created.conversation_id, created.id)
    polled = Fold()
    polled.adopt(await coze.stored_answer(created.conversation_id, created.id), state)

    assert polled.status == "completed"
    assert polled.content() == streamed.content()
    assert polled.follow_ups() == streamed.follow_ups()
    assert polled.usage is not None
    assert polled.usage.token_count > 0


@pytest.mark.parametrize("cut", [600, 1500, 2600])
async def test_a_cut_stream_is_repaired_to_the_same_answer(
    http: PooledClient, simulator: RunningSimulator, cut: int
) -> None:
    coze = client_of(http, simulator)
    whole = await hear(coze, ask("Tell me about rivers"))
    fold = Fold()

    with pytest.raises(CozeApiError, match="broke") as caught:
        await hear(coze, ask(f"Tell me about rivers[[sim:cut={cut}]]"), fold)
    assert caught.value.maybe_started
    assert fold.status == "in_progress"
    await repair(coze, fold)

    assert (fold.status, fold.content()) == ("completed", whole.content())


async def test_a_stream_that_ends_without_an_end_is_repaired(
    http: PooledClient, simulator: RunningSimulator
) -> None:
    coze = client_of(http, simulator)
    fold = await hear(coze, ask("hello[[sim:no_terminal]]"))

    assert (fold.status, fold.done) == ("in_progress", False)
    assert (await repair(coze, fold)).status == "completed"
    assert (fold.status, fold.error) == ("completed", None)


@pytest.mark.parametrize(
    "knobs", ["chunk=1", "no_done", "verbose=knowledge", "plugin", "card", "multi=3", "audio", "shell_action"]
)
async def test_every_shape_of_an_answer_completes(
    http: PooledClient, cloud: RunningSimulator, knobs: str
) -> None:
    fold = await hear(client_of(http, cloud), ask(f"hello[[sim:{knobs}]]"))

    assert (fold.status, fold.error) == ("completed", None)
    assert fold.content()
    assert "msg_type" not in fold.content()
    assert len(fold.answers()) == (3 if knobs == "multi=3" else 1)


async def test_a_huge_event_comes_through(http: PooledClient, cloud: RunningSimulator) -> None:
    fold = await hear(client_of(http, cloud), ask("hello[[sim:huge=1000000]]"))

    assert fold.status == "completed"
    assert len(fold.content().encode()) >= 1_000_000


@pytest.mark.parametrize("knobs", ["fail_at=2", "fail_at=2;fail_shape=bare", "fail_at=2;fail_shape=string"])
async def test_a_chat_that_fails_midway_keeps_what_it_said(
    http: PooledClient, cloud: RunningSimulator, knobs: str
) -> None:
    fold = await hear(client_of(http, cloud), ask(f"hello there[[sim:{knobs};fail_code=4011]]"))

    assert fold.status == "failed"
    assert isinstance(fold.error, CozeQuotaExhausted)
    assert fold.error.logid


async def test_an_error_event_fails_the_chat_whatever_follows(
    http: PooledClient, simulator: RunningSimulator
) -> None:
    fold = await hear(client_of(http, simulator), ask("hello[[sim:error_at=1;done_after_error]]"))

    assert fold.status == "failed"
    assert fold.error is not None


async def test_credits_that_ran_out_after_the_start_are_reported(
    http: PooledClient, cloud: RunningSimulator
) -> None:
    coze = client_of(http, cloud)
    created = await coze.create_chat(ask("hello[[sim:last_error=4028]]"))
    state = await coze.poll_chat(created.conversation_id, created.id)

    assert state.status == "failed"
    assert isinstance(state.failure(), CozeQuotaExhausted)
    assert await coze.list_messages(created.conversation_id, created.id) == []


async def test_tool_outputs_continue_the_chat_streamed_and_polled(
    http: PooledClient, cloud: RunningSimulator
) -> None:
    coze = client_of(http, cloud)
    fold = await hear(coze, ask("weather?[[sim:requires_action=function;rounds=2]]"))
    assert fold.status == "requires_action"
    assert fold.required_action is not None
    chat_id, conversation_id = fold.coze_chat_id, fold.conversation_id
    assert chat_id is not None
    assert conversation_id is not None
    calls = fold.required_action["submit_tool_outputs"]["tool_calls"]
    outputs = json.dumps([{"tool_call_id": call["id"], "output": '{"t":21}'} for call in calls]).encode()

    async with coze.stream_tool_outputs(conversation_id, chat_id, outputs) as stream:
        await anext(stream)  # begun, and then lost
    state = await coze.poll_chat(conversation_id, chat_id)
    assert state.status == "requires_action"
    assert state.required_action is not None
    calls = state.required_action["submit_tool_outputs"]["tool_calls"]
    outputs = json.dumps([{"tool_call_id": call["id"], "output": '{"t":21}'} for call in calls]).encode()

    fold.reopen()
    async with coze.stream_tool_outputs(conversation_id, chat_id, outputs) as stream:
        async for events in stream:
            for event in events:
                fold.feed(event)
    assert (fold.status, fold.coze_chat_id) == ("completed", chat_id)
    assert fold.content()


async def test_a_running_chat_makes_its_conversation_busy_until_it_is_cancelled(
    http: PooledClient, cloud: RunningSimulator
) -> None:
    coze = client_of(http, cloud)
    running = await coze.create_chat(ask("hello[[sim:stall=1:60]]"))

    with pytest.raises(CozeBusy) as caught:
        await hear(coze, ask("again", running.conversation_id))
    assert (caught.value.coze_code, caught.value.maybe_started) == (4016, False)
    assert (await coze.cancel_chat(running.conversation_id, running.id)).status == "canceled"
    assert (await coze.cancel_chat(running.conversation_id, running.id)).status == "canceled"
    assert (await hear(coze, ask("again", running.conversation_id))).status == "completed"


async def test_a_chat_is_found_by_our_own_id(http: PooledClient, simulator: RunningSimulator) -> None:
    coze = client_of(http, simulator)
    conversation_id = await coze.create_conversation(bot_id=SIMULATOR_BOT_ID)
    for number in range(3):
        await hear(coze, ask("hello", conversation_id, meta_data={"chat": f"c{number}"}))

    found = await coze.find_chat(conversation_id, meta_key="chat", meta_value="c1")
    assert found is not None
    assert found.meta_data["chat"] == "c1"
    assert found.status == "completed"
    assert await coze.find_chat(conversation_id, meta_key="chat", meta_value="c9") is None


async def test_a_cleared_conversation_is_forgotten_but_listed(
    http: PooledClient, simulator: RunningSimulator
) -> None:
    coze = client_of(http, simulator)
    conversation_id = await coze.create_conversation(bot_id=SIMULATOR_BOT_ID)
    await hear(coze, ask("My name is Ada", conversation_id))
    assert await coze.clear_conversation(conversation_id)

    assert "Ada" not in (await hear(coze, ask("What is my name?", conversation_id))).content()
    page = await coze.list_conversation_messages(conversation_id, limit=1)
    assert len(page.messages) == 1
    assert page.has_more


async def test_a_wrong_token_is_an_error_with_a_hint(http: PooledClient, cloud: RunningSimulator) -> None:
    coze = make_client(http, base=cloud.base_url, credentials=one_token("pat_wrong"))

    with pytest.raises(CozeApiError) as caught:
        await hear(coze, ask("hello"))
    assert (caught.value.coze_code, caught.value.maybe_started) == (4100, False)
    assert caught.value.hint is not None
    assert caught.value.logid


@pytest.mark.parametrize("knobs", ["http=503", "http=429", "fail=4013", "fail=4009", "http=502"])
async def test_what_passes_is_tried_again_and_starts_one_chat(
    http: PooledClient, cloud: RunningSimulator, knobs: str, request: pytest.FixtureRequest
) -> None:
    # The name makes the message, under which the simulator counts, unique.
    coze = client_of(http, cloud)
    conversation_id = await coze.create_conversation(bot_id=SIMULATOR_BOT_ID)
    text = f"{request.node.name}[[sim:{knobs};times=2]]"
    fold = await hear(coze, ask(text, conversation_id))

    assert fold.status == "completed"
    listed = await coze.list_conversation_messages(conversation_id)
    assert sum(message.is_question for message in listed.messages) == 1


async def test_an_answer_that_is_lost_is_never_asked_for_twice(
    http: PooledClient, cloud: RunningSimulator, request: pytest.FixtureRequest
) -> None:
    coze = client_of(http, cloud)

    with pytest.raises(UpstreamError) as caught:
        await hear(coze, ask(f"{request.node.name}[[sim:drop;times=1]]"))
    assert caught.value.maybe_started


async def test_a_bad_gateway_shows_no_html(http: PooledClient, cloud: RunningSimulator) -> None:
    async with upstream_mode(cloud, "html502"):
        with pytest.raises(CozeApiError) as caught:
            await hear(client_of(http, cloud, max_retries=1), ask("hello"))
    assert caught.value.message == "Coze answered with HTTP status 502"


async def test_many_chats_share_a_pool(cloud: RunningSimulator, transport: TransportName) -> None:
    async with http_client(transport, pool_size=20) as http:
        coze = client_of(http, cloud)
        folds = await asyncio.gather(*(hear(coze, ask(f"hello {number}")) for number in range(60)))

    assert [fold.status for fold in folds] == ["completed"] * 60
    assert len({fold.coze_chat_id for fold in folds}) == 60
