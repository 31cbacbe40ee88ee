"""Files of the service's own pages, with their types and a policy."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from fastapi import Request, Response
from fastapi.staticfiles import StaticFiles

from app.exceptions import RouteNotFound

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""What is served at all. Named here because a machine's own table of types may say something else."""


class PageFiles:
    """``policy``: the Content-Security-Policy of all files of ``directory``."""

    def __init__(self, directory: Path, policy: Mapping[str, str]) -> None:
        self._files = StaticFiles(directory=directory)
        rules = "; ".join(f"{name} {value}" for name, value in policy.items())
        self._headers = {
            "Content-Security-Policy": rules,
            "Cache-Control": "no-cache",  # kept, but asked for each time: the ETag makes that cheap
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    async def response(self, name: str, request: Request) -> Response:
        """The file of that name. Raises ``RouteNotFound`` for what is not served."""
        media_type = _TYPES.get(PurePosixPath(name).suffix)
        if media_type is None:
            raise RouteNotFound
        response = await self._files.get_response(name, request.scope)
        response.headers.update(self._headers)
        if "content-type" in response.headers:  # a 304 has none
            response.headers["content-type"] = media_type
        return response
