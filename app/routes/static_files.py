"""Files of the service's own pages, with their types and a policy."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from app.config import Settings
from app.exceptions import RouteNotFound
from app.http.dependencies import ResourcesDep
from app.http.direct import DirectRoute

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""What is served at all. Named here because a machine's own table of types may say something else."""


_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""Of all pages: nothing foreign is loaded or called, and no other page shows them."""


class _KeptFiles(StaticFiles):
    """Sends files from memory. Each client that does not read what it has asked for would otherwise hold an
    open file, and a piece of it for itself."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory)
        self._kept: dict[str, tuple[str, bytes]] = {}
        """By path: its ETag, and what it holds."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        found = super().file_response(full_path, stat_result, scope, status_code)
        if not isinstance(found, FileResponse):  # a 304
            return found
        path, etag = str(full_path), found.headers["etag"]
        kept, body = self._kept.get(path, ("", b""))
        if kept != etag:
            body = Path(path).read_bytes()
            self._kept[path] = etag, body
        del found.headers["accept-ranges"]
        found.headers["content-length"] = str(len(body))
        return Response(body, status_code, dict(found.headers))


class PageFiles:
    """``policy``: what the Content-Security-Policy of all files of ``directory`` says beside, or in place of,
    that of all pages."""

    def __init__(self, directory: Path, policy: Mapping[str, str]) -> None:
        self._files = _KeptFiles(directory)
        rules = "; ".join(f"{name} {value}" for name, value in {**_POLICY, **policy}.items())
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


_PAGES: Final = PageFiles(
    Path(__file__).resolve().parent / "pages",
    {"font-src": "'self'", "require-trusted-types-for": "'script'", "trusted-types": "dompurify"},
)


def page_router(name: str, index: str, enabled: Callable[[Settings], bool]) -> APIRouter:
    """``/coze/<name>``: the file ``index`` of ``app/routes/pages``, and below it all files there, which pages
    share.

    A page holds nothing and needs no authentication; the calls that it makes do. The policy allows it to load
    and to call this service alone, and no text to become a script.
    """

    async def only_if_enabled(resources: ResourcesDep) -> None:
        if not enabled(resources.settings):
            raise RouteNotFound

    router = APIRouter(
        route_class=DirectRoute,
        prefix=f"/coze/{name}",
        include_in_schema=False,
        dependencies=[Depends(only_if_enabled)],
    )

    @router.get("")
    async def page(request: Request) -> Response:
        return await _PAGES.response(index, request)

    @router.get("/")
    async def page_with_a_slash() -> Response:
        """Its files are found relative to the address without one."""
        return RedirectResponse(f"../{name}")

    @router.get("/{name:path}")
    async def file(name: str, request: Request) -> Response:
        return await _PAGES.response(name, request)

    return router
