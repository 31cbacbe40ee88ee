"""Requests that give FastAPI nothing to check go past it, and are answered as it would answer them."""

from __future__ import annotations

from typing import Annotated, Any

import fastapi.routing
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.routing import APIRoute

from app.exceptions import ValidationFailed
from app.http.direct import DirectApp, DirectRoute
from app.main import create_app
from tests.support import Client, make_settings


async def _caller(request: Request, prefer: Annotated[str | None, Header(max_length=5)] = None) -> str:
    return f"{request.method} {prefer}"


async def _length(text: Annotated[int, Query(ge=0)] = 7) -> int:
    return text


async def _thing(
    name: str,
    caller: Annotated[str, Depends(_caller)],
    length: Annotated[int, Depends(_length)],
    limit: Annotated[int, Query(ge=1, le=3)] = 2,
    some_key: Annotated[str | None, Header(min_length=1)] = None,
) -> Response:
    return Response(f"{name} {caller} {length} {limit} {some_key}")


async def _number(number: int, caller: Annotated[str, Depends(_caller)]) -> Response:
    return Response(f"{number + 1} {caller}")


async def _model(caller: Annotated[str, Depends(_caller)]) -> dict[str, str]:
    return {"caller": caller}


async def _asking(request: Request, name: str, caller: Annotated[str, Depends(_caller)]) -> Response:
    return Response(f"{request.url.path} {name} {caller}")


async def _failing(caller: Annotated[str, Depends(_caller)]) -> Response:
    raise fastapi.HTTPException(418, caller)


async def _texts(
    caller: Annotated[str, Depends(_caller)],
    needed: Annotated[str, Query(min_length=2)],
    more: Annotated[str | None, Query(max_length=3, alias="more-of-it")] = None,
) -> Response:
    return Response(f"{needed} {more} {caller}")


async def _any(some: str, thing: str, caller: Annotated[str, Depends(_caller)]) -> Response:
    return Response(f"any {some} {thing} {caller}")


def _app(app: FastAPI, kind: type[APIRoute]) -> FastAPI:
    router = APIRouter(route_class=kind)
    for path, endpoint in (
        *(("/things/{name}", _thing), ("/numbers/{number}", _number)),
        *(("/model", _model), ("/failing", _failing), ("/asking/{name}", _asking), ("/texts", _texts)),
        *(("/{some}/of/{thing}", _any), ("/things/of/{name}", _asking), ("/things/of/it/{name}", _asking)),
    ):
        router.add_api_route(path, endpoint, response_model=None)
    app.router.routes.extend(router.routes)
    return app


async def _answer(
    app: FastAPI, path: str, headers: dict[str, str], method: str = "GET"
) -> tuple[int, Any, str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answer = await http.request(method, path, headers=headers)
    return answer.status_code, answer.text, answer.headers.get("content-type", "")


async def test_a_direct_route_answers_every_request_as_fastapi_does() -> None:
    ours, theirs = _app(DirectApp(), DirectRoute), _app(FastAPI(), APIRoute)
    for path in (
        "/things/a",
        "/things/a%20b",
        "/numbers/41",
        "/numbers/x",
        "/model",
        "/failing",
        "/asking/a",
        "/texts",
        "/things/of/a",
        "/things/of/it/a",
        "/other/of/it",
        "/things",
        "/things/",
        "/things/a/b/c/d",
        "/",
        "/nope",
    ):
        assert await _answer(ours, path, {}, "PUT") == await _answer(theirs, path, {}, "PUT"), path
        for query in ("", "?limit=3", "?limit=9", "?text=-1", "?text=4&limit=1", "?other=1"):
            for headers in ({}, {"Prefer": "a"}, {"Prefer": "too long"}, {"Some-Key": "k"}, {"Some-Key": ""}):
                expected = await _answer(theirs, path + query, headers)
                assert await _answer(ours, path + query, headers) == expected, (path, query, headers)
    ways = {route.path: route.app.__module__ for route in ours.router.routes if isinstance(route, APIRoute)}
    assert [path for path, module in ways.items() if module == DirectRoute.__module__] == [
        "/things/{name}",
        "/failing",
        "/asking/{name}",
        "/texts",
        "/{some}/of/{thing}",
        "/things/of/{name}",
        "/things/of/it/{name}",
    ]


async def test_texts_in_a_query_are_checked_as_fastapi_checks_them() -> None:
    ours, theirs = _app(DirectApp(), DirectRoute), _app(FastAPI(), APIRoute)
    for needed in (
        "",
        "needed=ab",
        "needed=a",
        "needed=",
        "needed",
        "needed=%E4%BD%A0+b",
        "needed=%FF%FE%FD",
    ):
        for more in (
            "",
            "more-of-it=",
            "more-of-it=abc",
            "more-of-it=abcd",
            "needed=cd",
            "more=1",
            "x;y&=&&",
        ):
            query = f"/texts?{needed}&{more}"
            assert await _answer(ours, query, {}) == await _answer(theirs, query, {}), query


async def test_what_is_asked_most_goes_past_fastapis_checks_unless_there_is_something_to_check(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await client.open_session()
    chat_id = await client.start(session_id, "hi")
    await client.ended(chat_id)

    async def refuse(**_: object) -> None:
        raise ValidationFailed("asked FastAPI")

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", refuse)
    for path in (f"/coze/sessions/{session_id}", f"/coze/chats/{chat_id}/result"):
        assert (await client.get(path)).status_code == 200, path
    for path in (f"/coze/sessions/{session_id}?history_limit=1", f"/coze/chats/{chat_id}/result?wait=0"):
        assert (await client.get(path)).json()["error"]["message"] == "asked FastAPI", path


def test_every_route_of_the_app_brings_what_fastapi_needs_to_check_it() -> None:
    kinds = {type(route) for route in create_app(make_settings()).router.routes}
    assert kinds
    assert all(issubclass(kind, DirectRoute) for kind in kinds if issubclass(kind, APIRoute))
