"""Hostile values of HtyHost and HtySudoerToken, through an app: none gets in, none leads a call astray."""

from __future__ import annotations

import time

import httpx
import pytest
from pydantic import SecretStr

from coze_simulator.auth_server import RunningAuth
from coze_simulator.auth_tokens import is_valid

from .helpers import HOST, Asked, Clock, calling, exchange, listening, make_options, pretending, verifying
from .helpers import token_for as unsigned
from .hostile import HOSTILE_HOSTS, SHOWN_BY_SHAPE, forged_tokens, malformed_tokens, signed, unusable_claims

KEY = "the key of the auth service, of a good length"
NOW = time.time()
GOOD = signed({"alg": "HS256", "typ": "JWT"}, {"sub": '{"hty_id":"u-1"}', "exp": NOW + 36_000}, KEY)
MALFORMED = malformed_tokens(GOOD, KEY)
FORGED = forged_tokens(GOOD, KEY)


def refused(answer: httpx.Response) -> bool:
    code = answer.json()["error"]["code"]
    return answer.status_code == 401 and code == "AUTH_INVALID"


def test_the_tables_are_long_enough() -> None:
    assert len(HOSTILE_HOSTS) >= 60
    assert len(MALFORMED) + len(FORGED) + len(unusable_claims(NOW)) >= 60


@pytest.mark.parametrize("name", HOSTILE_HOSTS)
async def test_a_hostile_host_is_refused_and_nobody_is_called(name: str) -> None:
    asked = Asked()
    async with pretending(asked) as verifier, calling(verifier) as client:
        answer = await client.get(
            "/who", headers=[(b"HtySudoerToken", unsigned().encode()), (b"HtyHost", HOSTILE_HOSTS[name])]
        )
    assert refused(answer)
    assert asked.urls == []


@pytest.mark.parametrize("local", [False, True], ids=["asking", "local"])
@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_token_is_refused_and_nobody_is_called(name: str, local: bool) -> None:
    asked = Asked()
    key = SecretStr(KEY) if local else None
    async with pretending(asked, jwt_key=key) as verifier, calling(verifier) as client:
        answer = await client.get(
            "/who", headers=[(b"HtySudoerToken", MALFORMED[name]), (b"HtyHost", HOST.encode())]
        )
    assert refused(answer)
    assert asked.urls == []


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused_by_the_auth_service_and_here(name: str, clock: Clock) -> None:
    def judge(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"r": is_valid(request.headers["authorization"], KEY)})

    asked = Asked(judge)
    headers = {"HtySudoerToken": FORGED[name], "HtyHost": HOST}
    async with pretending(asked, clock) as verifier, calling(verifier) as client:
        assert refused(await client.get("/who", headers=headers))
    question = ["https://admin.moicen.com/api/v1/uc/verify_jwt_token"]
    assert asked.urls == ([] if name in SHOWN_BY_SHAPE else question)

    nobody = Asked()
    async with pretending(nobody, clock, jwt_key=SecretStr(KEY)) as verifier, calling(verifier) as client:
        assert refused(await client.get("/who", headers=headers))
    assert nobody.urls == []


@pytest.mark.parametrize("local", [False, True], ids=["asking", "local"])
@pytest.mark.parametrize("name", unusable_claims(NOW))
async def test_a_genuine_token_that_names_no_owner_or_has_expired_is_refused(name: str, local: bool) -> None:
    clock = Clock()
    token = signed({"alg": "HS256"}, unusable_claims(clock())[name], KEY)
    key = SecretStr(KEY) if local else None
    async with pretending(Asked(), clock, jwt_key=key) as verifier, calling(verifier) as client:
        assert refused(await client.get("/who", headers={"HtySudoerToken": token, "HtyHost": HOST}))


@pytest.mark.parametrize("local", [False, True], ids=["asking", "local"])
async def test_the_token_that_the_tables_are_made_of_gets_in(local: bool) -> None:
    key = SecretStr(KEY) if local else None
    async with pretending(Asked(), jwt_key=key) as verifier, calling(verifier) as client:
        answer = await client.get("/who", headers={"HtySudoerToken": GOOD, "HtyHost": HOST})
    assert answer.json() == {"root": "moicen.com", "hty_id": "u-1", "admin": False}


# -- on the wire ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        (b"HtyHost: moicen.com", b"HtyHost: moicen.com"),
        (b"HtyHost: moicen.com", b"HtyHost: evil.io"),
        (b"HtyHost: evil.io", b"HTYHOST: moicen.com"),
        (b"HtyHost: moicen.com", b"htyhost:"),
        (b"HtyHost: moicen.com", b"HtySudoerToken: x"),
        (b"HtyHost: moicen.com", b"HtySudoerToken:"),
        (b"HtyHost: moicen.com,evil.io",),
        (b"HtyHost: moicen.com\r\n .evil.io",),
        ("HtyHost: mоicen.com".encode(),),
    ],
)
async def test_header_lines_that_are_doubled_or_folded_do_not_get_in(lines: tuple[bytes, ...]) -> None:
    asked = Asked()
    async with pretending(asked) as verifier, listening(verifier) as port:
        answer = await exchange(port, b"HtySudoerToken: " + GOOD.encode(), *lines)
    assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 "))
    assert asked.urls == []


async def test_white_space_around_a_value_is_none_of_the_value() -> None:
    """RFC 9110, 5.5; the HTTP parser takes it away."""
    async with pretending(Asked()) as verifier, listening(verifier) as port:
        answer = await exchange(
            port, b"HtySudoerToken:\t " + GOOD.encode() + b" ", b"htyhost:   music.moicen.com:443 \t"
        )
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_token_of_64_kib_does_not_get_in_on_the_wire(auth: RunningAuth, clock: Clock) -> None:
    async with verifying(clock, verify_url=auth.verify_url) as verifier, listening(verifier) as port:
        answer = await exchange(port, b"HtySudoerToken: " + b"A" * 65_536, b"HtyHost: moicen.com")
    assert answer.split(b" ")[1].startswith(b"4")
    assert auth.app.calls == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"HtyHost": HOST},
        {"HtySudoerToken": GOOD},
        {"HtySudoerToken": "", "HtyHost": HOST},
        {"HtySudoerToken": GOOD, "HtyHost": ""},
        {"Authorization": f"Bearer {GOOD}", "Host": "moicen.com"},
    ],
)
async def test_a_missing_header_is_told_apart_from_a_wrong_one(headers: dict[str, str]) -> None:
    asked = Asked()
    async with pretending(asked) as verifier, calling(verifier) as client:
        answer = await client.get("/who", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "AUTH_MISSING")
    assert asked.urls == []


@pytest.mark.parametrize(
    "values",
    [
        {"scheme": "ftp://"},
        {"scheme": "https"},
        {"roots": ()},
        {"roots": ("moicen.com", "")},
        {"roots": ("moicen.com:443",)},
        {"roots": ("evil.io/moicen.com",)},
        {"verify_url": "ftp://auth.test/"},
        {"verify_url": "http://"},
        {"verify_url": "//auth.test/"},
        {"verify_url": "https://user:hunter2@auth.test/"},
        {"verify_url": "https://auth.test/#hunter2"},
        {"verify_url": "https://[hunter2"},
    ],
)
def test_settings_that_would_send_tokens_astray_stop_the_start(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"HTTP_SCHEME|_HOST|HTY_VERIFY_URL") as caught:
        make_options(**values)
    assert "hunter2" not in str(caught.value)
