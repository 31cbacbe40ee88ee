"""Coze's files and bots: /v1/files and /v1/bots."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.doors.coze.answers import described
from app.doors.coze.views import answer, passed
from app.exceptions import BEGINS, COZE, BodyTooLarge, BotNotFound, FileNotFound, UnsupportedMediaType
from app.http.dependencies import CozeContextDep
from app.http.direct import DirectRoute
from app.http.uploads import UPLOAD_BODY, open_upload
from app.tasks.files import coze_file_view

router = APIRouter(prefix="/coze/api/v1", tags=["coze"], route_class=DirectRoute)

_TOO_LARGE = 4302
_WRONG_KIND = 4303


@router.post(
    "/files/upload",
    **described(
        "Upload a file for messages; it is passed on to Coze while it arrives",
        *BEGINS,
        *COZE,
        openapi_extra=UPLOAD_BODY,
    ),
)
async def upload_file(context: CozeContextDep) -> Response:
    try:
        async with open_upload(context) as upload:
            record = await context.resources.files.upload_for_owner(context.identity, upload)
    except (BodyTooLarge, UnsupportedMediaType) as error:
        code = _TOO_LARGE if isinstance(error, BodyTooLarge) else _WRONG_KIND
        error.details.setdefault("coze_code", code)
        raise
    return answer(coze_file_view(record), record.logid or context.request_id)


@router.get(
    "/files/retrieve", **described("What is known of a file that the caller has uploaded", FileNotFound)
)
async def retrieve_file(
    context: CozeContextDep,
    file_id: Annotated[str, Query(min_length=1, max_length=128, description="Coze's id of the file")],
) -> Response:
    record = await context.resources.files.get_of_owner(context.identity, file_id)
    return answer(coze_file_view(record), context.request_id)


@router.get(
    "/bot/get_online_info", **described("A bot of this service, as it was published", *COZE, BotNotFound)
)
async def online_info(
    context: CozeContextDep,
    bot_id: Annotated[str, Query(min_length=1, max_length=64, description="A bot of this service")],
) -> Response:
    return passed(await context.resources.bots.for_coze_clients(bot_id), context.request_id)


@router.get("/bots/{bot_id}", **described("A bot of this service", *COZE, BotNotFound))
async def get_bot(
    context: CozeContextDep, bot_id: Annotated[str, Path(description="A bot of this service")]
) -> Response:
    """``is_published`` is not read: told is what was published."""
    return passed(await context.resources.bots.for_coze_clients(bot_id), context.request_id)
