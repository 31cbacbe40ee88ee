"""Without a token: addresses that cost more to look at than to send."""

from __future__ import annotations

from typing import Any

import pytest

from app.http import raw_path
from app.main import create_app


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
