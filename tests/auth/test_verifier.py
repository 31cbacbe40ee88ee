"""Who gets in, as whom, and what the auth service is asked for it."""

from __future__ import annotations

import hashlib
import json
import time

import httpx
import jwt
import pytest
from loguru import logger
from pydantic import SecretStr

from app.auth.verifier import LOCAL_ADMIN, NoVerifier
from app.exceptions import AuthInvalid, AuthMissing
from app.models import Identity
from app.observing.metrics import Metrics
from coze_simulator.auth import VERIFY_PATH
from coze_simulator.auth_server import RunningAuth
from coze_simulator.auth_tokens import claims_of, is_valid, sign
from tests.coze.support import raw_server, sending

from .helpers import HOST, ROOTS, Asked, Clock, counted, forged, pretending, sub, token_for, verifying

KEY = SecretStr("the key of the auth service, sixty-four bytes, as HS512 would have it")


# -- the call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("scheme", ["https://", "http://"])
async def test_the_root_decides_where_a_token_is_verified(root: str, scheme: str) -> None:
    asked = Asked()
    async with pretending(asked, scheme=scheme) as verifier:
        identity = await verifier.identify([token_for()], [f"Music.{root.upper()}:8443"])
    assert identity.root == root
    (request,) = asked.requests
    assert (request.method, str(request.url)) == (
        "POST",
        f"{scheme}admin.{root}/api/v1/uc/verify_jwt_token",
    )
    assert request.headers["HtyHost"] == f"admin.{root}"


async def test_the_token_goes_as_it_came_and_the_address_can_be_replaced(
    auth: RunningAuth, clock: Clock
) -> None:
    token = auth.app.issue("u-1")
    async with verifying(clock, verify_url=auth.verify_url) as verifier:
        assert await verifier.identify([token], [HOST]) == Identity("moicen.com", "u-1")
    (record,) = auth.app.records
    assert record["path"] == VERIFY_PATH
    assert record["host"] == f"127.0.0.1:{auth.port}"
    assert record["hty_host"] == "admin.moicen.com"
    assert record["authorization_sha256"] == hashlib.sha256(token.encode()).hexdigest()


async def test_the_call_carries_nothing_else_of_the_caller_and_keeps_no_cookie(clock: Clock) -> None:
    reply = b"HTTP/1.1 200 OK\r\nSet-Cookie: who=first; Path=/\r\nContent-Length: 10\r\n\r\n" + b'{"r":true}'
    async with raw_server(sending(reply)) as server, verifying(clock, verify_url=server.base) as verifier:
        await verifier.identify([token_for("a")], [HOST])
        await verifier.identify([token_for("b")], [HOST])
    names = "host accept accept-encoding connection user-agent authorization htyhost content-length"
    for request in server.requests:
        lines = request.lower().decode().split("\r\n")[1:]
        assert {line.partition(":")[0] for line in lines if line} == set(names.split())


# -- identities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "admin"),
    [
        ([], False),
        (["TESTER"], False),
        (["ADMIN"], True),
        (["ROOT"], True),
        (["TESTER", "ADMIN"], True),
        (["admin"], False),
        (["ADMIN "], False),
        (["ADMINISTRATOR"], False),
    ],
)
async def test_roles_make_an_admin(auth: RunningAuth, clock: Clock, roles: list[str], admin: bool) -> None:
    async with verifying(clock, verify_url=auth.verify_url) as verifier:
        identity = await verifier.identify([auth.app.issue("u-1", roles)], [HOST])
    assert identity == Identity("moicen.com", "u-1", admin)


async def test_which_roles_make_an_admin_is_a_setting() -> None:
    async with pretending(Asked(), admin_roles=frozenset({"TESTER"})) as verifier:
        assert (await verifier.identify([token_for("a", "TESTER")], [HOST])).admin
        assert not (await verifier.identify([token_for("a", "ROOT", "ADMIN")], [HOST])).admin
    async with pretending(Asked(), admin_roles=frozenset()) as verifier:
        assert not (await verifier.identify([token_for("a", "ROOT")], [HOST])).admin


@pytest.mark.parametrize(
    "roles", ["ADMIN", {"role_key": "ADMIN"}, ["ADMIN"], [None], [{"role_key": ["ADMIN"]}], [{}], 7, True]
)
async def test_roles_that_cannot_be_read_give_no_rights(roles: object) -> None:
    claims = {"sub": sub(roles=roles), "exp": time.time() + 60}
    async with pretending(Asked()) as verifier:
        assert await verifier.identify([forged(claims)], [HOST]) == Identity("moicen.com", "u-1")


@pytest.mark.parametrize("text", [sub(hty_id=None), '{"token_id":"t"}', "{}"])
async def test_a_token_without_hty_id_owns_by_root(text: str) -> None:
    claims = {"sub": text, "exp": time.time() + 60}
    async with pretending(Asked()) as verifier:
        identity = await verifier.identify([forged(claims)], [HOST])
    assert (identity.hty_id, identity.owner) == (None, "moicen.com|")


async def test_one_token_at_two_roots_is_asked_about_twice_and_is_two_owners() -> None:
    def only_moicen(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"r": request.url.host == "admin.moicen.com"})

    asked = Asked(only_moicen)
    token = token_for()
    async with pretending(asked) as verifier:
        assert (await verifier.identify([token], ["moicen.com"])).owner == "moicen.com|u-1"
        assert (await verifier.identify([token], ["a.b.moicen.com"])).owner == "moicen.com|u-1"
        with pytest.raises(AuthInvalid):
            await verifier.identify([token], ["huiwings.cn"])
    assert [request.url.host for request in asked.requests] == ["admin.moicen.com", "admin.huiwings.cn"]


async def test_without_authentication_everyone_is_the_local_admin() -> None:
    assert await NoVerifier().identify([], ["evil.io"]) is LOCAL_ADMIN


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(
            200, json={"r": False, "d": None, "e": "x", "hty_err": {"code": "AuthenticationFailed"}}
        ),
        httpx.Response(200, json={"r": False}),
        httpx.Response(401, json={"r": False}),
        httpx.Response(401, text="<html>"),
    ],
    ids=["envelope", "bare", "401", "401 of HTML"],
)
async def test_no_is_no(answer: httpx.Response) -> None:
    async with pretending(Asked(lambda _: answer)) as verifier:
        with pytest.raises(AuthInvalid):
            await verifier.identify([token_for()], [HOST])


# -- the check without a call -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_with_the_key_signatures_are_checked_here(clock: Clock, algorithm: str) -> None:
    asked = Asked()
    token = sign(claims_of("u-1", ["ADMIN"]), KEY.get_secret_value(), algorithm=algorithm)
    async with pretending(asked, clock, jwt_key=KEY) as verifier:
        assert await verifier.identify([token], [HOST]) == Identity("moicen.com", "u-1", admin=True)
        with pytest.raises(AuthInvalid):
            await verifier.identify([sign(claims_of("u-1"), "another", algorithm=algorithm)], [HOST])
        clock.advance(10_001 * 3600)
        with pytest.raises(AuthInvalid, match="expired"):
            await verifier.identify([token], [HOST])
    assert asked.requests == []


@pytest.mark.parametrize(
    "key", ["", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----", "ssh-rsa AAAA"]
)
async def test_a_key_that_is_no_shared_secret_stops_the_start(key: str) -> None:
    """An empty one would let everybody sign."""
    with pytest.raises(ValueError, match="HTY_JWT_KEY"):
        async with pretending(Asked(), jwt_key=SecretStr(key)):
            pass


async def test_a_short_key_works_and_is_warned_of_once() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    async with pretending(Asked(), jwt_key=SecretStr("hunter2")) as verifier:
        for algorithm in ("HS256", "HS512"):
            token = sign(claims_of("u-1"), "hunter2", algorithm=algorithm)
            await verifier.identify([token], [HOST])
    logger.remove(sink)
    assert len(lines) == 1
    assert "HTY_JWT_KEY" in lines[0]
    assert "hunter2" not in lines[0]


def test_the_stand_in_and_the_library_read_each_others_tokens() -> None:
    key = KEY.get_secret_value()
    claims = claims_of("u-1", ["ADMIN"])
    assert json.loads(claims["sub"])["roles"] == [{"role_key": "ADMIN"}]
    assert is_valid(jwt.encode(claims, key, "HS512"), key)
    assert jwt.decode(sign(claims, key), key, ["HS256"]) == claims
    with pytest.raises(ValueError, match="algorithm"):
        sign(claims, key, algorithm="none")


# -- counting ---------------------------------------------------------------------------------------------


async def test_what_happens_is_counted() -> None:
    token, metrics = token_for(), Metrics()
    async with pretending(Asked(), metrics=metrics) as verifier:
        with pytest.raises(AuthMissing):
            await verifier.identify([], [])
        with pytest.raises(AuthInvalid):
            await verifier.identify(["x"], [HOST])
        for _ in range(2):
            await verifier.identify([token], [HOST])
    assert counted(metrics, "coze_auth_total") == {"AUTH_MISSING": 1, "AUTH_INVALID": 1, "OK": 2}
    assert counted(metrics, "coze_auth_cache_total") == {"miss": 1, "hit": 1}
