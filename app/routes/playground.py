"""The playground: static files of ``app/routes/pages``; off unless ENABLE_PLAYGROUND asks for it.

The page holds nothing and needs no authentication; the calls that it makes do. Its policy allows it to load
and to call this service alone, and no text to become a script.
"""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from app.exceptions import RouteNotFound
from app.http.dependencies import ResourcesDep
from app.routes.static_files import PageFiles

_FILES: Final = PageFiles(
    Path(__file__).resolve().parent / "pages",
    {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "font-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "dompurify",
    },
)


async def playground_enabled(resources: ResourcesDep) -> None:
    if not resources.settings.enable_playground:
        raise RouteNotFound


router = APIRouter(
    prefix="/coze/playground", include_in_schema=False, dependencies=[Depends(playground_enabled)]
)


@router.get("")
async def page(request: Request) -> Response:
    return await _FILES.response("index.html", request)


@router.get("/")
async def page_with_a_slash() -> Response:
    """Its files are found relative to the address without one."""
    return RedirectResponse("../playground")


@router.get("/{name:path}")
async def file(name: str, request: Request) -> Response:
    return await _FILES.response(name, request)
