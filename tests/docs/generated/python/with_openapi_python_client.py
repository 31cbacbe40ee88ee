"""A conversation through the client that openapi-python-client makes."""

import json
import os
from http import HTTPStatus
from io import BytesIO
from typing import Any

from made_client import AuthenticatedClient, Client
from made_client.api.admin import get_stats
from made_client.api.chats import get_events, get_result
from made_client.api.files import upload_file
from made_client.api.health import get_health
from made_client.api.messages import send_message
from made_client.api.openai import openai_create_chat_completion
from made_client.api.sessions import create_session, get_session, list_chats
from made_client.models import (
    ChatCompletion,
    ChatCompletionRequest,
    ChatPageSuccessEnvelope,
    ChatSuccessEnvelope,
    CreateSession,
    CreateSessionMetaDataType0,
    DialogMessage,
    DialogMessageRole,
    ErrorEnvelope,
    HealthPlainEnvelope,
    SendMessage,
    SessionSuccessEnvelope,
    StatsSuccessEnvelope,
    StoredFileSuccessEnvelope,
    UploadFileBody,
)
from made_client.types import File, Response

HOST = os.environ["SERVICE"]
key = AuthenticatedClient(base_url=HOST, token=os.environ["API_KEY"])
headers = {"HtySudoerToken": os.environ["TOKEN"], "HtyHost": os.environ["HTY_HOST"]}
admin = AuthenticatedClient(
    base_url=HOST,
    token=headers["HtySudoerToken"],
    auth_header_name="HtySudoerToken",
    prefix="",
    headers={"HtyHost": headers["HtyHost"]},
)

pairs = CreateSessionMetaDataType0.from_dict({"app": "made"})
opened = create_session.sync(client=key, body=CreateSession(user_id="u-1", meta_data=pairs))
assert isinstance(opened, SessionSuccessEnvelope)
session = opened.data.task_result.data
sent = send_message.sync(
    session.session_id, client=key, body=SendMessage(message="3 + 4"), idempotency_key="made-1"
)
assert isinstance(sent, ChatSuccessEnvelope)
chat = sent.data.task_result.data
result = get_result.sync(chat.chat_id, client=key, wait=5)
assert isinstance(result, ChatSuccessEnvelope)
read = result.data.task_result.data
events = get_events.sync(chat.chat_id, client=key)
assert isinstance(events, str)
page = list_chats.sync(session.session_id, client=key, limit=1)
assert isinstance(page, ChatPageSuccessEnvelope)
form = UploadFileBody(file=File(payload=BytesIO(b"words"), file_name="a.txt"))
file = upload_file.sync(client=key, body=form, session_id=session.session_id)
assert isinstance(file, StoredFileSuccessEnvelope)
question = DialogMessage(role=DialogMessageRole.USER, content="5 + 6")
completion = openai_create_chat_completion.sync(
    client=key, body=ChatCompletionRequest(model="coze", messages=[question])
)
assert isinstance(completion, ChatCompletion)
stats = get_stats.sync(client=admin)
assert isinstance(stats, StatsSuccessEnvelope)
health = get_health.sync(client=Client(base_url=HOST))
assert isinstance(health, HealthPlainEnvelope)


def refusal(status: HTTPStatus, response: Response[Any]) -> list[object]:
    assert isinstance(response.parsed, ErrorEnvelope)
    assert response.status_code is status
    return [int(status), response.parsed.error.code, response.parsed.error.retryable]


blank = SendMessage(message=" ")
nobody = AuthenticatedClient(base_url=HOST, token="", auth_header_name="HtyHost", prefix="")
refused = [
    refusal(HTTPStatus.NOT_FOUND, get_session.sync_detailed("unknown", client=key)),
    refusal(HTTPStatus.BAD_REQUEST, send_message.sync_detailed(session.session_id, client=key, body=blank)),
    refusal(HTTPStatus.UNAUTHORIZED, get_stats.sync_detailed(client=nobody)),
]

print(
    json.dumps(
        {
            "app": session.metadata["app"],
            "status": chat.status,
            "sent": chat.content,
            "read": read.content,
            "tokens": read.usage.token_count if read.usage else 0,
            "error": read.error,
            "last_event": events.strip().rsplit("\n", 1)[-1],
            "page": [each.chat_id == chat.chat_id for each in page.data.task_result.data.chats],
            "file": file.data.task_result.data.type_,
            "completion": completion.choices[0].message.content,
            "draining": stats.data.task_result.data.process.draining,
            "health": health.data.status,
            "refused": refused,
        }
    )
)
