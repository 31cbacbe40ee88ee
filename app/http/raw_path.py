"""Routes whose parameters may hold a slash: an escaped one belongs to the parameter, a plain one ends it."""

from typing import Final
from urllib.parse import unquote

from starlette.routing import Match
from starlette.types import Scope

from app.http.direct import DirectRoute

_KEPT: Final = "path_with_kept_slashes"
MOST_SLASHES: Final = 16
"""Far more than any route has. Nobody is known yet, and each piece of a path costs a little."""


class RawPathRoute(DirectRoute):
    """``scope["path"]`` is unescaped before routes see it: ``/users/u%2Fsessions`` and ``/users/u/sessions``
    look the same there, so that the one would erase or list what belongs to the other. Matched is the path as
    it was sent, unescaped but for slashes (and the percent sign that marks them)."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw: bytes = scope.get("raw_path") or b""
        if b"%" not in raw or b"%2f" not in raw.lower():
            return super().matches(scope)
        if (kept := _kept(scope, raw)) is None:
            return Match.NONE, {}
        match, child = super().matches({**scope, "path": kept})
        if match is not Match.NONE:
            child["path_params"] = {
                name: unquote(value) if isinstance(value, str) else value
                for name, value in child["path_params"].items()
            }
        return match, child


def _kept(scope: Scope, raw: bytes) -> str | None:
    """The path as it is matched, made once for all routes; None where no route can be meant."""
    if _KEPT not in scope:
        segments = raw.decode("ascii", "replace").split("/", MOST_SLASHES + 1)
        is_possible = len(segments) <= MOST_SLASHES + 1
        scope[_KEPT] = "/".join(map(_keep_slashes, segments)) if is_possible else None
    kept: str | None = scope[_KEPT]
    return kept


def _keep_slashes(segment: str) -> str:
    return unquote(segment).replace("%", "%25").replace("/", "%2F")
