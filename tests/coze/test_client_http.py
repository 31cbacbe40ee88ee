"""What the client makes of answers that only a mock gives at will."""

import json
from typing import Any

import httpx
import pytest
import respx
from loguru import logger

from app.coze.client import CozeClient
from app.coze.credentials import Accounts
from app.coze.credentials.accounts import Credentials
from app.coze.credentials.sources import StaticToken
from app.coze.retry import BURST, RATIO, RetryBudget
from app.coze.stream import StreamTooLarge
from app.coze.transport import PooledClient
from app.exceptions import CozeApiError, CozeBusy, CozeOverloaded, CozeRateLimited, CozeTimeout, UpstreamError

from .mocks import CHAT, RETRIEVE, SSE, STREAM, chat_data, ok, refusal
from .support import REQUEST, TOKEN, Sleeps, make_client, read, stream_error
from .vectors import BEG, DELTA, END, VECTORS, event


async def test_a_chat_is_streamed(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    route = respx_mock.post(CHAT).mock(httpx.Response(200, headers=SSE, content=STREAM))

    async with coze.stream_chat(REQUEST) as stream:
        names = [found.name for found in await read(stream)]
        assert (stream.logid, stream.chat) == ("L1", None)

    assert names[0] == "conversation.chat.created"
    assert names[-1] == "done"
    request = route.calls.last.request
    assert request.url.query == b"conversation_id=5"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["content-type"] == "application/json"
    sent = json.loads(request.content)
    assert sent["stream"] is True
    assert "conversation_id" not in sent


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", ""])
async def test_a_json_error_instead_of_a_stream_is_that_error(
    respx_mock: respx.MockRouter, coze: CozeClient, content_type: str
) -> None:
    """Vector 22, under every content type it may come with."""
    headers = {"content-type": content_type} if content_type else {}
    answer = httpx.Response(200, content=b" \n" + VECTORS["22_json200"][0], headers=headers)
    route = respx_mock.post(CHAT).mock(answer)

    error, _ = await stream_error(coze)

    assert isinstance(error, CozeBusy)
    assert (error.coze_code, error.logid, error.maybe_started) == (4016, "20250101ABC", False)
    assert route.call_count == 1


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n"])
async def test_a_json_error_inside_an_event_stream_is_that_error(
    respx_mock: respx.MockRouter, coze: CozeClient, ending: bytes
) -> None:
    body = VECTORS["22_json200"][0] + ending
    respx_mock.post(CHAT).mock(httpx.Response(200, headers=SSE, content=body))

    error, _ = await stream_error(coze)

    assert (error.coze_code, error.maybe_started) == (4016, False)


async def test_a_json_error_after_events_does_not_claim_that_nothing_began(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    body = BEG + VECTORS["22_json200"][0]
    respx_mock.post(CHAT).mock(httpx.Response(200, headers=SSE, content=body))

    assert (await stream_error(coze))[0].maybe_started is True


async def test_a_stream_without_a_content_type_is_read(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    respx_mock.post(CHAT).mock(httpx.Response(200, content=STREAM))

    async with coze.stream_chat(REQUEST) as stream:
        assert len(await read(stream)) == 5


async def test_a_server_that_ignores_stream_gives_a_chat_to_poll(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    respx_mock.post(CHAT).mock(ok(chat_data("in_progress")))

    async with coze.stream_chat(REQUEST) as stream:
        assert stream.chat is not None
        assert (stream.chat.id, stream.chat.status) == ("6", "in_progress")
        assert await read(stream) == []


@pytest.mark.parametrize("body", [b'{"code":0,"data":{}}', b'{"code":0}', b"<html>portal</html>", b"[]"])
async def test_a_success_that_is_neither_stream_nor_chat_may_have_started_one(
    respx_mock: respx.MockRouter, coze: CozeClient, body: bytes
) -> None:
    route = respx_mock.post(CHAT).mock(httpx.Response(200, content=body))

    error, _ = await stream_error(coze)

    assert isinstance(error, CozeApiError)
    assert error.maybe_started
    assert "portal" not in error.message
    assert route.call_count == 1


async def test_an_empty_stream_just_ends(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    """coze-studio, when it fails before it has a record of the run."""
    respx_mock.post(CHAT).mock(httpx.Response(200, headers=SSE, content=b""))

    async with coze.stream_chat(REQUEST) as stream:
        assert await read(stream) == []


async def test_an_oversized_event_ends_the_stream_after_what_was_complete(
    respx_mock: respx.MockRouter, http: PooledClient
) -> None:
    coze = make_client(http, max_event_bytes=1000)
    body = BEG + event(DELTA, b"x" * 1001) + END
    respx_mock.post(CHAT).mock(httpx.Response(200, headers=SSE, content=body))

    async with coze.stream_chat(REQUEST) as stream:
        names = [found.name for found in await anext(stream)]
        with pytest.raises(StreamTooLarge) as caught:
            await anext(stream)

    assert names == ["conversation.chat.created", "conversation.chat.in_progress"]
    assert (caught.value.logid, caught.value.details["logid"]) == ("L1", "L1")


# -- retries ----------------------------------------------------------------------------------------------

RETRIED = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("late"),
    httpx.PoolTimeout("full"),
    httpx.Response(500, text="boom"),
    refusal(5000),
]


@pytest.mark.parametrize("failure", RETRIED, ids=repr)
async def test_what_cannot_have_started_a_chat_is_tried_again(
    respx_mock: respx.MockRouter, coze: CozeClient, failure: Any
) -> None:
    good = httpx.Response(200, headers=SSE, content=STREAM)
    route = respx_mock.post(CHAT).mock(side_effect=[failure, failure, good])

    async with coze.stream_chat(REQUEST) as stream:
        assert len(await read(stream)) == 5

    assert route.call_count == 3


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ReadTimeout("late"), CozeTimeout),
        (httpx.WriteTimeout("late"), CozeTimeout),
        (httpx.ReadError("reset"), CozeApiError),
        (httpx.WriteError("reset"), CozeApiError),
        (httpx.RemoteProtocolError("server disconnected"), CozeApiError),
        (OSError("reset"), CozeApiError),
        (httpx.Response(504, html="<h1>Gateway Timeout</h1>"), CozeApiError),
        (httpx.Response(408), CozeApiError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_may_have_started_a_chat_is_never_tried_again(
    respx_mock: respx.MockRouter, coze: CozeClient, failure: Any, kind: type[UpstreamError], stream: bool
) -> None:
    route = respx_mock.post(CHAT).mock(side_effect=[failure, ok(chat_data("created"))])

    if stream:
        error, _ = await stream_error(coze)
    else:
        with pytest.raises(UpstreamError) as caught:
            await coze.create_chat(REQUEST)
        error = caught.value

    assert type(error) is kind
    assert error.maybe_started
    assert route.call_count == 1


@pytest.mark.parametrize("code", [4000, 4008, 4016, 4020, 4028, 4100, 4101])
async def test_a_refusal_that_will_not_pass_is_not_tried_again(
    respx_mock: respx.MockRouter, coze: CozeClient, code: int
) -> None:
    route = respx_mock.post(CHAT).mock(refusal(code))

    error, _ = await stream_error(coze)

    assert (error.coze_code, error.logid, error.maybe_started) == (code, "L9", False)
    assert "goroutine" not in error.message
    assert route.call_count == 1


async def test_retries_end_at_the_configured_number_with_growing_pauses(
    respx_mock: respx.MockRouter, http: PooledClient, sleeps: Sleeps
) -> None:
    route = respx_mock.post(CHAT).mock(refusal(4009))

    error, _ = await stream_error(make_client(http, sleep=sleeps, max_retries=4))

    assert isinstance(error, CozeOverloaded)
    assert route.call_count == 5
    assert sleeps.taken == [0.5, 1, 2, 4]


async def test_a_code_may_allow_fewer_retries_than_the_setting(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    route = respx_mock.post(CHAT).mock(refusal(5000))

    await stream_error(coze)

    assert route.call_count == 3


async def test_no_retries_when_the_setting_says_none(
    respx_mock: respx.MockRouter, http: PooledClient
) -> None:
    route = respx_mock.post(CHAT).mock(httpx.Response(503))

    await stream_error(make_client(http, max_retries=0))

    assert route.call_count == 1


async def test_a_short_retry_after_is_waited_for(
    respx_mock: respx.MockRouter, coze: CozeClient, sleeps: Sleeps
) -> None:
    good = httpx.Response(200, headers=SSE, content=STREAM)
    respx_mock.post(CHAT).mock(side_effect=[httpx.Response(429, headers={"retry-after": "3"}), good])

    async with coze.stream_chat(REQUEST):
        pass

    assert sleeps.taken == [3]


async def test_a_long_retry_after_is_left_to_the_caller(
    respx_mock: respx.MockRouter, coze: CozeClient, sleeps: Sleeps
) -> None:
    respx_mock.post(CHAT).mock(httpx.Response(429, headers={"retry-after": "30"}))

    error, _ = await stream_error(coze)

    assert isinstance(error, CozeRateLimited)
    assert (error.retry_after, error.maybe_started) == (30, False)
    assert sleeps.taken == []


async def test_a_dead_coze_is_not_hit_max_retries_times_as_often(
    respx_mock: respx.MockRouter, coze: CozeClient
) -> None:
    route = respx_mock.post(CHAT).mock(httpx.Response(503))

    for _ in range(100):
        await stream_error(coze)

    assert route.call_count <= 100 + BURST + 100 * RATIO + 1


class Ticks:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bounds(owner: str) -> list[tuple[str, int]]:
    return [(owner, 4), (owner.partition("|")[0], 6), ("", 8)]


def taken(budget: RetryBudget, owner: str) -> int:
    """How many there were."""
    return next(count for count in range(100) if not budget.take(owner))


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def budget(ticks: Ticks) -> RetryBudget:
    return RetryBudget(bounds, ticks=ticks)


def test_five_requests_bring_a_retry(budget: RetryBudget) -> None:
    assert taken(budget, "a|x") == 4
    for _ in range(4):
        budget.deposit("a|x")
        assert not budget.take("a|x")
    budget.deposit("a|x")
    assert taken(budget, "a|x") == 1


def test_a_minute_brings_all_retries_again(budget: RetryBudget, ticks: Ticks) -> None:
    assert taken(budget, "a|x") == 4
    ticks.now += 14
    assert not budget.take("a|x")
    ticks.now += 1
    assert taken(budget, "a|x") == 1
    ticks.now += 600
    assert taken(budget, "a|x") == 4


def test_an_owner_and_a_root_leave_retries_to_the_others(budget: RetryBudget) -> None:
    assert [taken(budget, owner) for owner in ("a|x", "a|y", "a|z", "b|x", "c|x")] == [4, 2, 0, 2, 0]


def test_nobody_takes_of_all_more_than_he_may_have_however_long_he_goes_on(
    budget: RetryBudget, ticks: Ticks
) -> None:
    for _ in range(1000):
        budget.deposit("a|x")
        budget.take("a|x")
        ticks.now += 0.5
    assert taken(budget, "b|y") == 4


def test_what_is_refused_in_one_layer_takes_nothing_in_another(budget: RetryBudget) -> None:
    assert taken(budget, "a|x") == 4
    assert not any(budget.take("a|x") for _ in range(10))
    assert taken(budget, "a|y") == 2


def test_calls_of_nobody_have_retries_of_their_own(budget: RetryBudget) -> None:
    assert taken(budget, "") == BURST
    assert [taken(budget, owner) for owner in ("a|x", "b|x")] == [4, 4]


def test_whose_retries_are_complete_is_forgotten(ticks: Ticks) -> None:
    budget = RetryBudget(lambda owner: [(owner, 4), ("", 1_000_000)], ticks=ticks)
    for number in range(1000):
        budget.deposit(f"a|{number}")
    assert len(budget) == 0
    for number in range(1000):
        budget.take(f"a|{number}")
    assert len(budget) == 1001
    ticks.now += 61
    budget.take("a|x")
    assert len(budget) == 2


async def test_a_deadline_of_the_connection_is_named(
    respx_mock: respx.MockRouter, http: PooledClient
) -> None:
    respx_mock.post(CHAT).mock(side_effect=httpx.ConnectTimeout("late"))

    error, _ = await stream_error(make_client(http, connect_timeout=1.5))

    assert isinstance(error, CozeTimeout)
    assert error.message == "No connection to Coze within 1.5 s (COZE_CONNECT_TIMEOUT)"
    assert not error.maybe_started


# -- tokens -----------------------------------------------------------------------------------------------


class Renewable(StaticToken):
    """Gives one token after another, as each is refused."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.refusals: list[str] = []

    async def bearer(self) -> str:
        return self.tokens[0]

    async def renew(self, refused: str) -> bool:
        self.refusals.append(refused)
        if len(self.tokens) > 1:
            self.tokens.pop(0)
        return self.tokens[0] != refused

    @property
    def credentials(self) -> Credentials:
        return Accounts([("one", self)]).named("")


async def test_a_refused_token_is_renewed_once(respx_mock: respx.MockRouter, http: PooledClient) -> None:
    route = respx_mock.get(RETRIEVE).mock(side_effect=[refusal(4100), ok(chat_data("completed"))])
    tokens = Renewable("old", "new")

    assert (
        await make_client(http, credentials=tokens.credentials).retrieve_chat("5", "6")
    ).status == "completed"
    assert [call.request.headers["authorization"] for call in route.calls] == ["Bearer old", "Bearer new"]
    assert tokens.refusals == ["old"]


async def test_a_token_that_stays_refused_is_an_error(
    respx_mock: respx.MockRouter, http: PooledClient
) -> None:
    route = respx_mock.post(CHAT).mock(refusal(700012006))

    error, _ = await stream_error(make_client(http, credentials=Renewable("old", "new", "newer").credentials))

    assert error.coze_code == 700012006
    assert route.call_count == 2


@pytest.mark.parametrize("token", ["", "pat_\nx", "pat_秘密", "pat_\x7f"])
async def test_a_token_that_cannot_be_sent_is_an_error_that_does_not_quote_it(
    http: PooledClient, token: str
) -> None:
    error, _ = await stream_error(make_client(http, credentials=Renewable(token).credentials))

    assert not error.maybe_started
    assert "pat_" not in repr(error)
    assert error.__cause__ is None


async def test_the_token_shows_nowhere(respx_mock: respx.MockRouter, coze: CozeClient) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, diagnose=True, backtrace=True, format="{message}\n{exception}")
    failures: list[Any] = [httpx.ConnectError("refused"), refusal(4013), httpx.ReadError("reset")]
    respx_mock.post(CHAT).mock(side_effect=failures)
    try:
        error, _ = await stream_error(coze)
        logger.opt(exception=error).error("failed")
    finally:
        logger.remove(sink)

    assert len(lines) == 3
    assert TOKEN not in "".join(lines)
    assert TOKEN not in repr(error) + repr(error.__cause__) + repr(error.details) + repr(vars(coze))
