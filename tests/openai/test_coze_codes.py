"""All of Coze's codes as OpenAI's clients are told them, and how many calls reach Coze for one of theirs."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from app.coze.codes import CODES, coze_error
from app.doors.openai.errors import COZE_CODES, OPENAI_ERRORS, openai_error
from app.exceptions import QuotaExceeded, RateLimited, ServiceError
from tests.support import RunningApp, SimControl

from .coze_codes import EVERY_CODE, QUOTA, SDK_TRIES, STAYS, TOLD, ours, without_pauses
from .support import MODEL, said, sync_client


def seen(error: ServiceError) -> tuple[int, str, str, str, int | None]:
    body = openai_error(error)["error"]
    retry = OPENAI_ERRORS.headers(error)["X-Should-Retry"]
    return OPENAI_ERRORS.status(error), body["type"], body["code"], retry, OPENAI_ERRORS.retry_after(error)


@pytest.mark.parametrize("code", EVERY_CODE)
def test_every_code_has_one_meaning_for_these_clients(code: int) -> None:
    assert seen(coze_error(code, maybe_started=False)) == TOLD.get(code, STAYS)


def test_the_table_names_codes_of_coze_alone() -> None:
    assert set(COZE_CODES) <= set(CODES)


@pytest.mark.parametrize("seconds", [1, 60, 61, 3600, 86_400])
def test_nobody_is_told_to_repeat_a_call_after_more_than_a_minute(seconds: int) -> None:
    for error in (RateLimited(retry_after=seconds), QuotaExceeded(retry_after=seconds)):
        status, _, _, retry, after = seen(error)
        assert status == 429
        assert after == (seconds if seconds <= 60 and isinstance(error, RateLimited) else None)
        assert (retry == "true") == (seconds <= 60 and isinstance(error, RateLimited))
    for code in EVERY_CODE:
        asked = coze_error(code, maybe_started=False, retry_after=seconds)
        assert seen(asked)[4] in (None, min(seconds, 60))


def test_the_quota_of_a_day_is_told_as_coze_s_own() -> None:
    assert seen(QuotaExceeded()) == QUOTA


def test_an_http_status_429_without_a_code_is_a_limit_that_we_have_waited_for() -> None:
    error = coze_error(None, http_status=429, maybe_started=False)
    assert seen(error) == (429, "rate_limit_error", "rate_limit_exceeded", "false", 60)


# -- the calls that reach Coze ----------------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits: neither we between our tries, nor the SDK between its own. What it would have waited."""
    waited: list[float] = []

    def at_once(client: Any, remaining: int, options: Any, headers: Any = None) -> float:
        waited.append(calculate(client, remaining, options, headers))
        return 0.0

    calculate = OpenAI._calculate_retry_timeout
    monkeypatch.setattr(OpenAI, "_calculate_retry_timeout", at_once)
    without_pauses(monkeypatch)
    return waited


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("code", EVERY_CODE)
def test_a_refusal_has_its_status_streamed_or_not_and_is_not_multiplied(
    code: int, streamed: bool, door: RunningApp, simulator: SimControl, waits: list[float]
) -> None:
    question = [said(f"[[sim:fail={code}]] heron")]
    client = sync_client(door.base_url, max_retries=SDK_TRIES - 1)
    with client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=question, stream=streamed)
    response = caught.value.response
    told = TOLD.get(code, STAYS)
    body = response.json()["error"]
    after = response.headers.get("retry-after")
    got = (response.status_code, body["type"], body["code"], response.headers["x-should-retry"])
    assert (*got, after and int(after)) == told
    assert str(code) in body["message"]
    assert response.headers["x-coze-logid"] in body["message"]
    assert response.headers["x-coze-chat-id"]
    calls = len(simulator.requests(path="/v3/chat", contains="heron"))
    assert calls == ours(code) * (SDK_TRIES if told[3] == "true" else 1)
    assert waits == ([60.0, 60.0] if told[3] == "true" else [])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("directive", "status", "code"),
    [
        ("last_error=4028", 429, "insufficient_quota"),
        ("last_error=4013", 400, "rate_limit_exceeded"),
        ("last_error=5000", 400, "coze_api_error"),
        ("fail_at=0;fail_code=4010", 400, "context_length_exceeded"),
        ("fail_at=0;fail_code=4009", 400, "overloaded"),
        ("error_at=0;error_code=4105", 400, "content_policy_violation"),
    ],
)
def test_what_fails_after_the_chat_was_made_and_before_its_first_word_has_a_status(
    directive: str,
    status: int,
    code: str,
    streamed: bool,
    door: RunningApp,
    simulator: SimControl,
    waits: list[float],
) -> None:
    with sync_client(door.base_url, max_retries=2) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[said(f"[[sim:reasoning=0;{directive}]] heron")], stream=streamed
        )
    assert caught.value.status_code == status
    assert caught.value.response.json()["error"]["code"] == code
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(simulator.requests(path="/v3/chat", contains="heron")) == 1
    assert waits == []


def test_an_answer_that_failed_midway_is_paid_for_once(
    door: RunningApp, simulator: SimControl, waits: list[float]
) -> None:
    question = [said("[[sim:fail_at=3]] heron")]
    with sync_client(door.base_url, max_retries=2) as client:
        with pytest.raises(openai.BadRequestError) as whole:
            client.chat.completions.create(model=MODEL, messages=question)
        assert (whole.value.code, whole.value.type) == ("coze_api_error", "server_error")
        with pytest.raises(openai.APIError) as streamed:
            list(client.chat.completions.create(model=MODEL, messages=question, stream=True))
        assert streamed.value.code == "coze_api_error"
    assert len(simulator.requests(path="/v3/chat", contains="heron")) == 2
    assert waits == []
