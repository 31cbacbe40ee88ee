"""API keys: which doors they open, whose what they make is, and what does not pass for one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.auth.api_keys import ApiKeys, KeySetting
from app.config import SettingsError
from coze_simulator.auth_server import RunningAuth
from tests.auth.hostile import HOSTILE_HOSTS, forged_tokens, malformed_tokens, signed
from tests.support import Client, RunningApp, data_of, error_of, make_settings, open_client

WIDE, OTHER, NARROW = "ck-wide-0123456789abcdef", "ck-other-0123456789abcdef", "sk-narrow-0123456789abcdef"
HOST = {"HtyHost": "music.moicen.com"}
KEY = "the key of the auth service, of a good length"
GOOD = signed({"alg": "HS256", "typ": "JWT"}, {"sub": '{"hty_id":"u-1"}', "exp": time.time() + 36_000}, KEY)
MODELS = "/coze/openai/v1/models"
MINE = "/coze/users/u-1/sessions"
Start = Callable[..., RunningApp]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(start_secured: Start) -> RunningApp:
    """Two keys for all doors, one for OpenAI's clients, and one that stands in both settings."""
    return start_secured(
        COZE_API_KEYS=f"shop:{WIDE},crm:{OTHER}", COZE_OPENAI_API_KEYS=f"webui:{NARROW},crm:{OTHER}"
    )


async def status(service: RunningApp, path: str, headers: Any, method: str = "GET") -> int:
    async with httpx.AsyncClient(base_url=service.base_url, trust_env=False) as http:
        answer = await http.request(method, path, headers=headers)
        return answer.status_code


def is_sendable(value: bytes) -> bool:
    """Whether an HTTP client can be brought to send it as it is; the rest is tried on the wire elsewhere."""
    return len(value) < 60_000 and all(byte >= 0x20 and byte != 0x7F for byte in value)


# -- what they open ---------------------------------------------------------------------------------------


async def test_a_key_for_all_doors_opens_sessions_chats_and_the_openai_routes(guarded: RunningApp) -> None:
    async with open_client(guarded.base_url, headers=bearer(WIDE)) as client:
        session_id = await client.open_session("u-1")
        answered = data_of(await client.send(session_id, "hello"))
        assert answered["status"] == "completed"
        chat = data_of(await client.result(answered["chat_id"]))
        assert chat["content"] == answered["content"]
        assert [s["session_id"] for s in data_of(await client.get(MINE))["sessions"]] == [session_id]
        assert (await client.get("/coze/usage")).status_code == 200
        assert (await client.get(MODELS)).status_code == 200


async def test_a_key_is_a_tenant_of_its_own_and_nobodys_admin(guarded: RunningApp, auth: RunningAuth) -> None:
    async with open_client(guarded.base_url, headers=bearer(WIDE)) as client:
        session_id = await client.open_session("u-1")
        for path in ("/coze/admin/stats",):
            refused = await client.get(path)
            assert (refused.status_code, error_of(refused)["code"]) == (403, "AUTH_FORBIDDEN")
    token = auth.app.issue("root", "ROOT")
    for headers in (bearer(OTHER), {"HtySudoerToken": token, **HOST}):
        async with open_client(guarded.base_url, headers=headers) as stranger:
            assert (await stranger.get(f"/coze/sessions/{session_id}")).status_code == 404
            assert data_of(await stranger.get(MINE))["sessions"] == []


async def test_a_key_of_openais_clients_opens_theirs_alone_and_the_one_in_both_settings_all(
    guarded: RunningApp,
) -> None:
    for key, opened in ((NARROW, 401), (OTHER, 200), (WIDE, 200)):
        assert await status(guarded, MODELS, bearer(key)) == 200
        assert await status(guarded, MINE, bearer(key)) == opened
        assert await status(guarded, "/coze/users/u-1", bearer(key), "DELETE") == 200


async def test_what_a_key_makes_at_one_door_is_its_own_at_the_other(guarded: RunningApp) -> None:
    async with open_client(guarded.base_url, headers=bearer(WIDE)) as client:
        body = {"model": "coze", "messages": [{"role": "user", "content": "hi"}]}
        done = (await client.post("/coze/openai/v1/chat/completions", json=body)).json()
        chat_id = done["id"].removeprefix("chatcmpl-")
        assert data_of(await client.result(chat_id))["content"] == done["choices"][0]["message"]["content"]


# -- what counts before what ------------------------------------------------------------------------------


async def test_an_hty_token_counts_before_any_bearer(guarded: RunningApp, auth: RunningAuth) -> None:
    """Proxies put bearers of their own in there."""
    token = auth.app.issue("alice")
    hers = {"HtySudoerToken": token, **HOST}
    async with open_client(guarded.base_url, headers=hers) as client:
        session_id = await client.open_session("u-1")
    for authorization in (f"Bearer {WIDE}", "Bearer nonsense", "Basic cHJveHk6eA==", "", "Bearer"):
        both = {**hers, "Authorization": authorization}
        async with open_client(guarded.base_url, headers=both) as client:
            assert (await client.get(f"/coze/sessions/{session_id}")).status_code == 200
            assert (await client.get(MODELS)).status_code == 200
    for wrong in (
        {"HtySudoerToken": "x.y.z", **HOST},
        {"HtySudoerToken": "", **HOST},
        {"HtySudoerToken": token},
    ):
        for path in (MINE, MODELS):
            assert await status(guarded, path, {**wrong, **bearer(WIDE)}) == 401


async def test_a_wrong_key_is_told_apart_from_none(guarded: RunningApp) -> None:
    async with httpx.AsyncClient(base_url=guarded.base_url, trust_env=False) as http:
        for path, challenge in ((MINE, "HtySudoerToken"), (MODELS, "Bearer")):
            none, wrong = await http.get(path), await http.get(path, headers=bearer("nobody-0123456789abc"))
            codes = [
                answer.json()["error"]["code"].lower().replace("invalid_api_key", "auth_invalid")
                for answer in (none, wrong)
            ]
            assert codes == ["auth_missing", "auth_invalid"]
            assert [answer.status_code for answer in (none, wrong)] == [401, 401]
            for answer in (none, wrong):
                assert answer.headers["www-authenticate"].startswith(f"{challenge} ")
        assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
        assert "error" not in none.headers["www-authenticate"]


# -- what does not pass for one ---------------------------------------------------------------------------

NO_KEYS: list[list[tuple[str, str]]] = [
    [("Authorization", f"Bearer {key}")]
    for key in (
        WIDE[:-1],
        WIDE + "x",
        WIDE.upper(),
        f"{WIDE},{OTHER}",
        f"{WIDE} {OTHER}",
        f"shop:{WIDE}",
        "shop",
        "*",
        "null",
        "x" * 60_000,
    )
] + [
    [("Authorization", WIDE)],
    [("Authorization", "Bearer")],
    [("Authorization", f"Basic {WIDE}")],
    [("Authorization", f"Bearer:{WIDE}")],
    [("Authorization", f"Bearer Bearer {WIDE}")],
    [("Authorization", f"Bearer {WIDE}"), ("Authorization", f"Bearer {OTHER}")],
    [("Authorization", f"Bearer {WIDE}"), ("Authorization", f"Bearer {WIDE}")],
    [("X-Api-Key", WIDE)],
    [("Api-Key", WIDE)],
    [("HtySudoerToken", WIDE)],
    [("Cookie", f"Authorization=Bearer {WIDE}")],
]


@pytest.mark.parametrize("host", [{}, HOST], ids=["no host", "host"])
async def test_what_is_nearly_a_key_opens_no_door(
    host: dict[str, str], guarded: RunningApp, auth: RunningAuth
) -> None:
    async with httpx.AsyncClient(base_url=guarded.base_url, trust_env=False) as http:
        for lines in NO_KEYS:
            for path in (MINE, MODELS, "/coze/admin/stats"):
                answer = await http.get(path, headers=[*lines, *host.items()])
                assert answer.status_code == 401, (lines, path)
                assert WIDE not in answer.text
        assert (await http.get(f"{MINE}?api_key={WIDE}", headers=host)).status_code == 401
    assert auth.app.calls == 0


async def test_the_hostile_tables_open_no_door_as_bearers(guarded: RunningApp, auth: RunningAuth) -> None:
    values = [*malformed_tokens(GOOD, KEY).values(), *(t.encode() for t in forged_tokens(GOOD, KEY).values())]
    sendable = [value for value in values if is_sendable(value)]
    assert len(sendable) > 40
    async with httpx.AsyncClient(base_url=guarded.base_url, trust_env=False) as http:
        for value in sendable:
            for path in (MINE, MODELS):
                lines = [(b"Authorization", b"Bearer " + value), (b"HtyHost", b"music.moicen.com")]
                answer = await http.get(path, headers=lines)
                assert answer.status_code in (400, 401), (value[:80], path)
            if path == MINE:
                assert auth.app.calls == 0


async def test_a_key_means_the_same_beside_every_hostile_host(guarded: RunningApp, auth: RunningAuth) -> None:
    """It has its own root: no host makes its owner anybody else."""
    async with open_client(guarded.base_url, headers=bearer(WIDE)) as client:
        session_id = await client.open_session("u-1")
    async with httpx.AsyncClient(base_url=guarded.base_url, trust_env=False) as http:
        for value in HOSTILE_HOSTS.values():
            if not is_sendable(value):
                continue
            lines = [(b"Authorization", f"Bearer {WIDE}".encode()), (b"HtyHost", value)]
            answer = await http.get(f"/coze/sessions/{session_id}", headers=lines)
            assert answer.status_code in (200, 400), value
    assert auth.app.calls == 0


# -- settings ---------------------------------------------------------------------------------------------


def keys(everywhere: str = "", openai: str = "") -> ApiKeys:
    return ApiKeys(KeySetting("COZE_API_KEYS", everywhere), KeySetting("COZE_OPENAI_API_KEYS", openai))


def test_the_union_of_both_settings_counts_and_an_equal_pair_once() -> None:
    both = keys(f"a:{WIDE},b:{OTHER}", f"b:{OTHER},c:{NARROW}")
    names = {
        door: [found.root if (found := both.identify(key, door)) else None for key in (WIDE, OTHER, NARROW)]
        for door in ("all", "openai")
    }  # type: ignore[arg-type]
    assert names == {
        "all": ["api_key:a", "api_key:b", None],
        "openai": ["api_key:a", "api_key:b", "api_key:c"],
    }
    assert (both.any, keys(openai=f"c:{NARROW}").any) == (True, False)


@pytest.mark.parametrize("openai", [f"a:{NARROW}", f"b:{WIDE}"])
def test_a_name_or_a_key_that_stands_for_two_things_stops_the_start(openai: str) -> None:
    with pytest.raises(ValueError, match="COZE_API_KEYS and COZE_OPENAI_API_KEYS") as caught:
        keys(f"a:{WIDE}", openai)
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize("listed", ["a", "a:short", f"a {WIDE}", f"a:{WIDE},a:{OTHER}"])
def test_keys_that_make_no_sense_stop_the_start_and_are_not_shown(listed: str) -> None:
    with pytest.raises(SettingsError, match="COZE_API_KEYS") as caught:
        make_settings(COZE_API_KEYS=listed)
    assert "0123456789" not in str(caught.value)


def test_a_file_is_read_again_when_it_changes_and_a_bad_moment_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"a:{WIDE}\n")
    held = ApiKeys(KeySetting("COZE_API_KEYS", "", file), KeySetting("COZE_OPENAI_API_KEYS", f"c:{NARROW}"))

    def roots(door: Any = "openai") -> list[str | None]:
        return [f.root if (f := held.identify(key, door)) else None for key in (WIDE, OTHER, NARROW)]

    assert roots() == ["api_key:a", None, "api_key:c"]
    file.write_text(f"a:{OTHER}\nb:{WIDE}x\n")
    assert roots() == [None, "api_key:a", "api_key:c"]
    file.write_text("broken")
    assert roots() == [None, "api_key:a", "api_key:c"]
    file.write_text(f"d:{NARROW}\n")  # the same key under another name
    assert roots() == [None, "api_key:a", "api_key:c"]
    assert roots("all") == [None, "api_key:a", None]
    file.write_text(f"c:{NARROW}\n")
    assert roots("all") == [None, None, "api_key:c"]


async def test_nothing_of_a_key_is_logged(guarded: RunningApp, capfd: pytest.CaptureFixture[str]) -> None:
    async with open_client(guarded.base_url, headers=bearer(WIDE)) as client:
        await _use(client)
    told = capfd.readouterr()
    assert WIDE not in told.out + told.err


async def _use(client: Client) -> None:
    session_id = await client.open_session("u-1")
    await client.send(session_id, "hello")
