"""Files: passed on to Coze under an id of ours, to go along with messages."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.exceptions import BEGINS, COZE, SESSION, FileNotFound
from app.http.dependencies import ContextDep
from app.http.openapi import errors
from app.http.raw_path import RawPathRoute
from app.http.uploads import UPLOAD_BODY, open_upload
from app.models.answers import StoredFile
from app.models.bodies import USER_ID_PATTERN
from app.models.envelope import SuccessEnvelope
from app.routes.answers import success
from app.tasks.files import file_view

router = APIRouter(prefix="/coze/files", tags=["files"], route_class=RawPathRoute)


@router.post(
    "",
    summary="Upload a file for messages; it is passed on to Coze while it arrives",
    response_model=SuccessEnvelope[StoredFile],
    responses=errors(*BEGINS, *SESSION, *COZE),
    openapi_extra=UPLOAD_BODY,
)
async def upload_file(
    context: ContextDep,
    session_id: Annotated[
        str | None,
        Query(description="The session that the file is for: needed with several Coze credentials"),
    ] = None,
    user_id: Annotated[
        str | None,
        Query(min_length=1, max_length=128, pattern=USER_ID_PATTERN, description="Whose file it is"),
    ] = None,
) -> Response:
    """Its first bytes tell what it is, not its name. Programs, HTML, SVG and the unknown are refused."""
    async with open_upload(context) as upload:
        record = await context.resources.files.upload(
            context.identity, upload, session_id=session_id, user_id=user_id
        )
    return success(file_view(record), message="file uploaded", logid=record.logid)


@router.get(
    "/{file_id}",
    summary="What is known of a file",
    response_model=SuccessEnvelope[StoredFile],
    responses=errors(FileNotFound),
)
async def get_file(file_id: str, context: ContextDep) -> Response:
    """Its name, size and type; not its content."""
    record = await context.resources.files.get(context.identity, file_id)
    return success(file_view(record), message="file found")


@router.delete(
    "/{file_id}",
    summary="Forget a file; Coze itself deletes it when its time is up",
    response_model=SuccessEnvelope[StoredFile],
    responses=errors(FileNotFound),
)
async def forget_file(file_id: str, context: ContextDep) -> Response:
    """It cannot go along with messages any more."""
    record = await context.resources.files.forget(context.identity, file_id)
    return success(file_view(record), message="file forgotten")
