"""Routes whose parameters may hold a slash: an escaped one belongs to the parameter, a plain one ends it."""

from urllib.parse import unquote

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope


class RawPathRoute(APIRoute):
    """``scope["path"]`` is unescaped before routes see it: ``/users/u%2Fsessions`` and ``/users/u/sessions``
    look the same there, so that the one would erase or list what belongs to the other. Matched is the path as
    it was sent, unescaped but for slashes (and the percent sign that marks them)."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" not in raw.lower():
            return super().matches(scope)
        segments = raw.decode("ascii", "replace").split("/")
        match, child = super().matches({**scope, "path": "/".join(map(_keep_slashes, segments))})
        if match is not Match.NONE:
            child["path_params"] = {
                name: unquote(value) if isinstance(value, str) else value
                for name, value in child["path_params"].items()
            }
        return match, child


def _keep_slashes(segment: str) -> str:
    return unquote(segment).replace("%", "%25").replace("/", "%2F")
