"""The playground: static files of ``app/routes/pages``; off unless ENABLE_PLAYGROUND asks for it.

The page holds nothing and needs no authentication; the calls that it makes do. Its policy allows it to load
and to call this service alone, and no text to become a script.
"""

from pathlib import Path, PurePosixPath
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from app.exceptions import RouteNotFound
from app.http.dependencies import ResourcesDep

_FILES: Final = Path(__file__).resolve().parent / "pages"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served at all. Named here because a machine's own table of types may say something else."""
_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-cache",  # kept, but asked for each time: the ETag makes that cheap
    "Cross-Origin-Opener-Policy": "same-origin",
}


async def playground_enabled(resources: ResourcesDep) -> None:
    if not resources.settings.enable_playground:
        raise RouteNotFound


router = APIRouter(
    prefix="/coze/playground", include_in_schema=False, dependencies=[Depends(playground_enabled)]
)


async def _file(name: str, request: Request) -> Response:
    media_type = _TYPES.get(PurePosixPath(name).suffix)
    if media_type is None:
        raise RouteNotFound
    response = await StaticFiles(directory=_FILES).get_response(name, request.scope)
    response.headers.update(_HEADERS)
    if "content-type" in response.headers:  # a 304 has none
        response.headers["content-type"] = media_type
    return response


@router.get("")
async def page(request: Request) -> Response:
    return await _file("index.html", request)


@router.get("/")
async def page_with_a_slash() -> Response:
    """Its files are found relative to the address without one."""
    return RedirectResponse("../playground")


@router.get("/{name:path}")
async def file(name: str, request: Request) -> Response:
    return await _file(name, request)
