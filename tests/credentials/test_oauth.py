"""The OAuth JWT flow: what is signed, when a token is replaced, and what happens when that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.coze.credentials import OAuthApp, OAuthToken
from app.exceptions import CozeApiError

NOW = 1_800_000_000.0
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Clock:
    """Wall clock and ticks that a test moves."""

    def __init__(self) -> None:
        self.passed = 0.0

    def ticks(self) -> float:
        return self.passed

    def wall(self) -> float:
        return NOW + self.passed


class Office:
    """A token endpoint. ``ahead``: its clock before ours, in seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ahead = 0.0
        self.asked: list[httpx.Request] = []
        self.answer: Callable[[dict[str, Any]], httpx.Response] = self.issue
        self.hold: asyncio.Event | None = None

    @property
    def now(self) -> float:
        return self.clock.wall() + self.ahead

    def claims(self, request: httpx.Request) -> dict[str, Any]:
        token = request.headers["authorization"].removeprefix("Bearer ")
        claims: dict[str, Any] = jwt.decode(
            token,
            KEY.public_key(),
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_iat": False, "verify_aud": False},
        )
        return claims

    def issue(self, claims: dict[str, Any]) -> httpx.Response:
        body = {
            "access_token": f"czs_{len(self.asked)}",
            "expires_in": int(self.now) + 900,
            "token_type": "Bearer",
        }
        return httpx.Response(200, json=body)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answer(self.claims(request))
        answer.headers["date"] = formatdate(self.now, usegmt=True)
        return answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def office(clock: Clock) -> Office:
    return Office(clock)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(
        KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@pytest.fixture
def token(office: Office, clock: Clock, key_file: Path) -> OAuthToken:
    http = httpx.AsyncClient(transport=httpx.MockTransport(office.handle))
    app = OAuthApp("app-1", "kid-1", key_file, "https://api.coze.cn/api/permission/oauth2/token")
    return OAuthToken(app, http, clock=clock.wall, ticks=clock.ticks)


async def test_a_request_carries_a_jwt_as_coze_wants_it(token: OAuthToken, office: Office) -> None:
    assert await token.bearer() == "czs_1"
    [request] = office.asked
    claims = office.claims(request)
    assert jwt.get_unverified_header(request.headers["authorization"][7:]) == {
        "alg": "RS256",
        "kid": "kid-1",
        "typ": "JWT",
    }
    assert (claims["iss"], claims["aud"], claims["iat"]) == ("app-1", "api.coze.cn", int(NOW))
    assert 600 <= claims["exp"] - claims["iat"] <= 3600
    assert len(claims["jti"]) >= 32
    assert json.loads(request.content) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "duration_seconds": 900,
    }


async def test_a_token_is_replaced_before_its_end_with_a_jwt_of_its_own(
    token: OAuthToken, office: Office, clock: Clock
) -> None:
    assert await token.bearer() == "czs_1"
    clock.passed = 830
    assert await token.bearer() == "czs_1"
    clock.passed = 850
    assert await token.bearer() == "czs_2"
    assert len({office.claims(request)["jti"] for request in office.asked}) == 2
    assert token.expires_at == int(NOW + 850 + 900)


async def test_many_callers_at_once_make_one_request(token: OAuthToken, office: Office) -> None:
    office.hold = asyncio.Event()
    callers = [asyncio.create_task(token.bearer()) for _ in range(50)]
    while not office.asked:
        await asyncio.sleep(0)
    office.hold.set()
    assert set(await asyncio.gather(*callers)) == {"czs_1"}
    assert len(office.asked) == 1


async def test_while_a_token_is_replaced_the_old_one_serves(
    token: OAuthToken, office: Office, clock: Clock
) -> None:
    await token.bearer()
    clock.passed = 860
    office.hold = asyncio.Event()
    replacing = asyncio.create_task(token.bearer())
    while len(office.asked) < 2:
        await asyncio.sleep(0)
    assert await token.bearer() == "czs_1"
    office.hold.set()
    assert await replacing == "czs_2"


async def test_a_replacement_that_fails_leaves_the_old_one_until_its_end(
    token: OAuthToken, office: Office, clock: Clock
) -> None:
    await token.bearer()
    office.answer = lambda claims: httpx.Response(500, text="no")
    clock.passed = 860
    assert await token.bearer() == "czs_1"
    asked = len(office.asked)
    assert await token.bearer() == "czs_1"
    assert len(office.asked) == asked, "not asked again at each call"
    clock.passed = 901
    with pytest.raises(CozeApiError) as failed:
        await token.bearer()
    assert (failed.value.maybe_started, failed.value.retryable) == (False, True)
    office.answer = office.issue
    clock.passed = 904
    assert (await token.bearer()).startswith("czs_")


async def test_a_refused_token_is_replaced_once_for_all(
    token: OAuthToken, office: Office, clock: Clock
) -> None:
    old = await token.bearer()
    assert await asyncio.gather(*(token.renew(old) for _ in range(20))) == [True] * 20
    assert len(office.asked) == 2
    new = await token.bearer()
    assert new == "czs_2"
    # Refused again at once: the token is not the reason.
    assert await token.renew(new) is False
    clock.passed = 2
    assert await token.renew(new) is True


async def test_callers_of_a_dead_endpoint_share_one_attempt_and_its_failure(
    token: OAuthToken, office: Office, clock: Clock
) -> None:
    """None waits for the attempts of those before it; nor do those who come a moment later ask again."""
    office.hold = asyncio.Event()
    office.answer = lambda claims: httpx.Response(502, text="no")
    callers = [asyncio.create_task(token.bearer()) for _ in range(10)]
    while not office.asked:
        await asyncio.sleep(0)
    office.hold.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {CozeApiError}
    assert len({id(outcome) for outcome in outcomes}) == 10, "each its own: a traceback belongs to one"
    attempt = len(office.asked)
    assert attempt <= 2, "asked for all of them once, and once more"
    clock.passed = 1.9
    with pytest.raises(CozeApiError) as failed:
        await token.bearer()
    assert (failed.value.maybe_started, failed.value.retryable) == (False, True)
    assert len(office.asked) == attempt
    office.answer = office.issue
    clock.passed = 2.1
    assert (await token.bearer()).startswith("czs_")


async def test_a_caller_that_gives_up_takes_the_token_from_nobody(token: OAuthToken, office: Office) -> None:
    office.hold = asyncio.Event()
    callers = [asyncio.create_task(token.bearer()) for _ in range(3)]
    while not office.asked:
        await asyncio.sleep(0)
    callers[0].cancel()
    office.hold.set()
    first, *others = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert set(others) == {"czs_1"}
    assert len(office.asked) == 1


async def test_whoever_waits_at_the_end_is_told_that_there_is_no_token(
    token: OAuthToken, office: Office
) -> None:
    office.hold = asyncio.Event()
    callers = [asyncio.create_task(token.bearer()) for _ in range(3)]
    while not office.asked:
        await asyncio.sleep(0)
    await token.aclose()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {CozeApiError}


@pytest.mark.parametrize(("expires_in", "lives"), [(900, 900), (int(NOW) + 600, 600), (60, 60), (None, 900)])
async def test_an_instant_is_told_from_a_duration(
    expires_in: int | None, lives: int, token: OAuthToken, office: Office, clock: Clock
) -> None:
    def issue(claims: dict[str, Any]) -> httpx.Response:
        return httpx.Response(
            200, json={"access_token": f"czs_{len(office.asked)}", "expires_in": expires_in}
        )

    office.answer = issue
    await token.bearer()
    assert token.expires_at == int(NOW + lives)
    clock.passed = lives * 0.85
    assert await token.bearer() == "czs_1"
    clock.passed = lives
    assert await token.bearer() == "czs_2"


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_a_wrong_clock_is_found_out_and_allowed_for(
    ahead: float, token: OAuthToken, office: Office, clock: Clock
) -> None:
    office.ahead = ahead

    def strict(claims: dict[str, Any]) -> httpx.Response:
        if not claims["iat"] - 30 <= office.now < claims["exp"]:
            return httpx.Response(401, json={"error_code": "invalid_client", "error_message": "x"})
        return office.issue(claims)

    office.answer = strict
    assert await token.bearer() == "czs_2"
    # By our own clock the token would have ended, or never end.
    clock.passed = 800
    assert await token.bearer() == "czs_2"
    clock.passed = 860
    assert await token.bearer() == "czs_3"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"error_code": "invalid_client", "error_message": "secret text"}, "invalid_client"),
        (401, {"error_code": "access_deny"}, "access_deny"),
        (400, {"error_code": "<script>"}, "HTTP 400"),
        (200, ["czs"], "HTTP 200"),
    ],
)
async def test_a_refusal_is_said_in_our_words(
    status: int, body: Any, said: str, token: OAuthToken, office: Office
) -> None:
    office.answer = lambda claims: httpx.Response(status, json=body)
    with pytest.raises(CozeApiError) as failed:
        await token.bearer()
    assert said in failed.value.message
    assert "secret text" not in failed.value.message
    assert failed.value.maybe_started is False
    assert len(office.asked) == 1


@pytest.mark.parametrize("content", [None, b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
async def test_a_key_that_cannot_be_used_names_its_setting(
    content: bytes | None, token: OAuthToken, key_file: Path
) -> None:
    good = key_file.read_bytes()
    if content is None:
        key_file.unlink()
    else:
        key_file.write_bytes(content)
    with pytest.raises(CozeApiError) as failed:
        await token.bearer()
    assert "COZE_OAUTH_PRIVATE_KEY_FILE" in str(failed.value.hint)
    assert failed.value.__cause__ is None
    key_file.write_bytes(good)
    assert await token.bearer() == "czs_1"


class Endless(httpx.AsyncByteStream):
    given = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.given += 1
            yield b" " * 16_384


@pytest.mark.parametrize("packed", [False, True])
async def test_of_an_answer_without_end_little_is_read(
    office: Office, token: OAuthToken, packed: bool
) -> None:
    body = Endless()
    headers = {"content-encoding": "gzip"} if packed else {}
    office.answer = lambda _: httpx.Response(200, headers=headers, stream=body)
    with pytest.raises(CozeApiError):
        await token.bearer()
    assert "gzip" not in office.asked[0].headers["accept-encoding"]
    assert body.given <= (0 if packed else 5)
