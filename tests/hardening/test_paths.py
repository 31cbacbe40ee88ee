"""Without a token: addresses that cost more to look at than to send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from app.http import raw_path
from app.main import create_app
from tests.support import ServiceProcess

from .support import ask, worked


def looked_at(monkeypatch: pytest.MonkeyPatch, path: bytes) -> int:
    """How many pieces of ``path`` are unescaped while all routes are tried."""
    pieces: list[str] = []
    keep = raw_path._keep_slashes

    def counted(piece: str) -> str:
        pieces.append(piece)
        return keep(piece)

    monkeypatch.setattr(raw_path, "_keep_slashes", counted)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/x", "raw_path": path}
    scope |= {"root_path": "", "headers": [], "query_string": b""}
    for route in create_app().router.routes:
        route.matches(scope)
    return len(pieces)


@pytest.mark.parametrize("piece", [b"/%2f", b"/%e9", b"/a"])
def test_a_path_of_many_pieces_is_no_route_s(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    assert looked_at(monkeypatch, b"/coze/%2f" + piece * 15_000) == 0


def test_a_path_with_an_escaped_slash_is_unescaped_once_for_all_routes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert looked_at(monkeypatch, b"/coze/users/a%2Fb/sessions") == 5


PLACES = ("/coze/sessions/{}", "/coze/chats/{}/result", "/coze/users/{}/sessions", "/coze/files/{}", "/{}")
PIECES = (
    "redis://:",
    "redis://a@",
    "bearer ",
    "Bearer\t",
    "eyJ",
    "eyJ.",
    "pat_",
    "\u2028",
    "\0",
    "\x85",
    "/",
    "é",
)


def test_no_address_takes_far_longer_than_another(start_process: Callable[..., ServiceProcess]) -> None:
    """What is written into the log is looked through for secrets, before it is known who asks."""
    service = start_process(ENABLE_AUTH="true", HTY_VERIFY_URL="http://127.0.0.1:9/verify")

    def work(path: str, times: int = 8) -> float:
        ask(service, path)
        before = worked(service)
        for _ in range(times):
            assert ask(service, path)[0] in (401, 404)
        return (worked(service) - before) / times

    for place in PLACES:
        usual = work(place.format("b" * 7900))
        for piece in PIECES:
            escaped = quote(piece, safe=":@")
            hostile = work(place.format(escaped * (7900 // len(escaped))))
            assert hostile < 10 * usual, (place, piece, usual, hostile)
