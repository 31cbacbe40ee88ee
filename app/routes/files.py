"""Files: passed on to Coze under an id of ours, to go along with messages."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.dependencies import FilesDep, IdentityDep
from app.exceptions import (
    BodyTooLarge,
    CozeApiError,
    CozeQuotaExhausted,
    CozeRateLimited,
    CozeTimeout,
    FileNotFound,
    RateLimited,
    SessionExpired,
    SessionNotFound,
    SessionTerminated,
    ShuttingDown,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.models import USER_ID_PATTERN, StoredFile, SuccessEnvelope
from app.openapi import errors
from app.routes.answers import success
from app.tasks.files import file_view
from app.uploads import UploadDep, upload_body

router = APIRouter(prefix="/coze/files", tags=["files"])


@router.post(
    "",
    summary="Upload a file for messages; it is passed on to Coze while it arrives",
    response_model=SuccessEnvelope[StoredFile],
    responses=errors(
        *(ValidationFailed, BodyTooLarge, UnsupportedMediaType, RateLimited, ShuttingDown),
        *(SessionNotFound, SessionTerminated, SessionExpired),
        *(CozeRateLimited, CozeApiError, CozeQuotaExhausted, CozeTimeout),
    ),
    openapi_extra=upload_body(),
)
async def upload_file(
    identity: IdentityDep,
    files: FilesDep,
    upload: UploadDep,
    session_id: Annotated[
        str | None,
        Query(description="The session that the file is for: needed with several Coze credentials"),
    ] = None,
    user_id: Annotated[
        str | None,
        Query(min_length=1, max_length=128, pattern=USER_ID_PATTERN, description="Whose file it is"),
    ] = None,
) -> Response:
    record = await files.upload(identity, upload, session_id=session_id, user_id=user_id)
    return success(file_view(record), message="file uploaded", logid=record.logid)


@router.get(
    "/{file_id}",
    summary="What is known of a file",
    response_model=SuccessEnvelope[StoredFile],
    responses=errors(FileNotFound),
)
async def get_file(file_id: str, identity: IdentityDep, files: FilesDep) -> Response:
    return success(file_view(await files.get(identity, file_id)), message="file found")


@router.delete(
    "/{file_id}",
    summary="Forget a file; Coze itself deletes it when its time is up",
    response_model=SuccessEnvelope[StoredFile],
    responses=errors(FileNotFound),
)
async def forget_file(file_id: str, identity: IdentityDep, files: FilesDep) -> Response:
    return success(file_view(await files.forget(identity, file_id)), message="file forgotten")
