"""The published OpenAPI and its pages: off in remote mode unless ENABLE_DOCS asks for them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import JSONResponse

from app.dependencies import ResourcesDep
from app.exceptions import RouteNotFound


def docs_enabled(resources: ResourcesDep) -> None:
    settings = resources.settings
    if settings.app_mode == "remote" and not settings.enable_docs:
        raise RouteNotFound


router = APIRouter(include_in_schema=False, dependencies=[Depends(docs_enabled)])

_TITLE = "coze-fastapi"


def get_schema(request: Request) -> dict[str, object]:
    schema: dict[str, object] = request.app.openapi()
    return schema


@router.get("/openapi.json")
async def openapi_json(schema: Annotated[dict[str, object], Depends(get_schema)]) -> Response:
    return JSONResponse(schema)


@router.get("/docs")
async def swagger() -> Response:
    return get_swagger_ui_html(openapi_url="/openapi.json", title=_TITLE)


@router.get("/redoc")
async def redoc() -> Response:
    return get_redoc_html(openapi_url="/openapi.json", title=_TITLE)
