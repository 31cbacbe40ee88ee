"""Several credentials: which is chosen, which rests, and what a conversation's mark leads to."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.config import SettingsError
from app.coze.credentials import Accounts, build_accounts
from app.coze.credentials.accounts import fingerprint
from app.coze.credentials.sources import FileToken, StaticToken
from app.exceptions import CozeApiError, CozeQuotaExhausted, CozeRateLimited
from tests.support import make_settings


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def accounts_of(*tokens: str, ticks: Ticks) -> Accounts:
    return Accounts([(token, StaticToken(token)) for token in tokens], ticks=ticks)


def limited(code: int | None = 4013, retry_after: int | None = None) -> CozeRateLimited:
    return CozeRateLimited(coze_code=code, maybe_started=False, retry_after=retry_after)


async def test_new_conversations_are_spread(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", "c", ticks=ticks)
    assert [await accounts.named("").bearer(None) for _ in range(6)] == ["a", "b", "c"] * 2


async def test_a_conversation_stays_with_its_credential(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    mine = accounts.named("")
    assert await mine.bearer(None) == "a"
    for _ in range(3):
        assert await accounts.named(mine.name).bearer("7") == "a"
    # Another process, with the same settings.
    assert await accounts_of("a", "b", ticks=ticks).named(mine.name).bearer("7") == "a"


async def test_a_mark_survives_reordering_and_a_new_token_in_the_same_place(ticks: Ticks) -> None:
    before = accounts_of("a", "b", ticks=ticks).named("")
    second = accounts_of("a", "b", ticks=ticks)
    await before.bearer(None)
    names = [state["name"] for state in second.states()]
    assert await accounts_of("b", "a", ticks=ticks).named(names[1]).bearer("7") == "b"
    assert await accounts_of("a", "b2", ticks=ticks).named(names[1]).bearer("7") == "b2"
    assert await accounts_of("a", ticks=ticks).named(names[1]).bearer("7") == "a"
    assert await accounts_of("a", "b", ticks=ticks).named("nonsense").bearer("7") == "a"


@pytest.mark.parametrize(
    "error",
    [
        limited(4013),
        limited(None, retry_after=30),
        limited(777123456),
        CozeQuotaExhausted(coze_code=4028, maybe_started=False),
    ],
)
async def test_after_a_limit_new_conversations_go_elsewhere_and_old_ones_stay(
    error: CozeRateLimited, ticks: Ticks
) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    running = accounts.named("")
    assert await running.bearer(None) == "a"
    assert await running.bearer("7") == "a"
    assert running.call_failed(error) is False, "a running conversation belongs to its identity"
    assert await running.bearer("7") == "a"
    assert [await accounts.named("").bearer(None) for _ in range(3)] == ["b"] * 3
    assert [state["state"] for state in accounts.states()] == ["cooling", "ready"]
    ticks.now = 601
    assert "a" in [await accounts.named("").bearer(None) for _ in range(2)]


async def test_the_limit_of_a_bot_is_no_limit_of_the_credential(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    mine = accounts.named("")
    assert await mine.bearer(None) == "a"
    assert mine.call_failed(limited(4008)) is False
    assert [state["state"] for state in accounts.states()] == ["ready", "ready"]


async def test_what_is_not_begun_yet_moves_at_once(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    mine = accounts.named("")
    assert await mine.bearer(None) == "a"
    assert mine.call_failed(limited()) is True
    assert await mine.bearer(None) == "b"
    assert mine.call_failed(limited()) is False, "nobody is left"
    assert mine.name == accounts.states()[1]["name"]


async def test_with_all_resting_the_one_that_is_back_first_is_taken(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    for seconds in (50, 20):
        mine = accounts.named("")
        await mine.bearer(None)
        mine.call_failed(limited(retry_after=seconds))
    assert await accounts.named("").bearer(None) == "b"


async def test_a_users_own_limit_is_no_reason_to_rest(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    mine = accounts.named("")
    await mine.bearer(None)
    for error in (limited(4008), CozeApiError(coze_code=4015)):
        assert mine.call_failed(error) is False
    assert {state["state"] for state in accounts.states()} == {"ready"}


async def test_a_refused_token_rests_and_another_takes_over_what_is_new(ticks: Ticks) -> None:
    accounts = accounts_of("a", "b", ticks=ticks)
    mine = accounts.named("")
    assert await mine.token_refused(await mine.bearer(None)) is True
    assert await mine.bearer(None) == "b"
    assert accounts.states()[0] | {"name": ""} == {
        "name": "",
        "kind": "token",
        "state": "refused",
        "cool_down_seconds": 60,
        "last_code": 4100,
        "opened": 1,
        "expires_at": None,
    }


async def test_states_show_no_token(ticks: Ticks) -> None:
    shown = repr(accounts_of("pat_secret", ticks=ticks).states()) + repr(
        accounts_of("pat_secret", ticks=ticks)
    )
    assert "pat_secret" not in shown


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = FileToken(path)
    with pytest.raises(CozeApiError):
        await source.bearer()
    path.write_text("Bearer one\n")
    assert await source.bearer() == "one"
    path.write_text("three\n")
    assert await source.bearer() == "three"
    path.unlink()
    assert await source.bearer() == "three", "a bad moment is outlived"
    replaced = tmp_path / "new"
    replaced.write_text("seven\n")
    replaced.rename(path)
    assert await source.renew("three") is True
    assert await source.renew("seven") is False


async def test_everything_that_is_set_is_used(tmp_path: Path) -> None:
    http = httpx.AsyncClient()
    settings = make_settings(
        COZE_API_TOKEN="pat_1",
        COZE_API_TOKENS="pat_2, pat_1,\n pat_3,",
        COZE_OAUTH_APP_ID="app",
        COZE_OAUTH_KEY_ID="kid",
        COZE_OAUTH_PRIVATE_KEY_FILE=str(tmp_path / "key.pem"),
    )
    states = build_accounts(settings, http).states()
    names = [f"{n}-{fingerprint(text)}" for n, text in enumerate(["pat_1", "pat_2", "pat_3", "app"])]
    assert [state["name"] for state in states] == names
    assert [state["kind"] for state in states] == ["token", "token", "token", "oauth"]
    assert "pat_2" not in repr(settings)
    only = make_settings(COZE_API_TOKEN="", COZE_API_TOKENS="pat_9")
    assert [state["name"] for state in build_accounts(only, http).states()] == [f"0-{fingerprint('pat_9')}"]


@pytest.mark.parametrize("name", ["COZE_OAUTH_APP_ID", "COZE_OAUTH_KEY_ID", "COZE_OAUTH_PRIVATE_KEY_FILE"])
def test_half_an_oauth_app_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="COZE_OAUTH_APP_ID"):
        make_settings(**{name: "x"})
