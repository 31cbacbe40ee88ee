"""The published OpenAPI and its pages: off in remote mode unless ENABLE_DOCS asks for them."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import JSONResponse

from app.exceptions import RouteNotFound
from app.http.dependencies import ResourcesDep


async def docs_enabled(resources: ResourcesDep) -> None:
    settings = resources.settings
    if settings.app_mode == "remote" and not settings.enable_docs:
        raise RouteNotFound


router = APIRouter(include_in_schema=False, dependencies=[Depends(docs_enabled)])

_TITLE = "coze-fastapi"


@router.get("/openapi.json")
def openapi_json(request: Request) -> Response:
    """In a thread: making the document takes a while."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def swagger() -> Response:
    return get_swagger_ui_html(openapi_url="/openapi.json", title=_TITLE)


@router.get("/redoc")
async def redoc() -> Response:
    return get_redoc_html(openapi_url="/openapi.json", title=_TITLE)
