"""The published OpenAPI and its page: off in remote mode unless ENABLE_DOCS asks for them.

The page is Swagger UI from this service alone. It styles by attributes, so its policy lets inline styles in;
scripts come from here and from nowhere else.
"""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app.exceptions import RouteNotFound
from app.http.dependencies import ResourcesDep
from app.http.direct import DirectRoute
from app.routes.static_files import PageFiles

_FILES: Final = PageFiles(
    Path(__file__).resolve().parent / "apidocs", {"style-src": "'self' 'unsafe-inline'"}
)


async def docs_enabled(resources: ResourcesDep) -> None:
    settings = resources.settings
    if settings.app_mode == "remote" and not settings.enable_docs:
        raise RouteNotFound


router = APIRouter(include_in_schema=False, dependencies=[Depends(docs_enabled)], route_class=DirectRoute)


@router.get("/openapi.json")
def openapi_json(request: Request) -> Response:
    """In a thread: making the document takes a while."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def page(request: Request) -> Response:
    return await _FILES.response("index.html", request)


@router.get("/docs/{name:path}")
async def file(name: str, request: Request) -> Response:
    return await _FILES.response(name, request)
