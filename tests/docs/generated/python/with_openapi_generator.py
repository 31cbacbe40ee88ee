"""A conversation through the client that openapi-generator makes for Python."""

import json
import os

import openapi_client as made
from openapi_client import exceptions

HOST = os.environ["SERVICE"]
key = made.ApiClient(made.Configuration(host=HOST, access_token=os.environ["API_KEY"]))
admin = made.ApiClient(
    made.Configuration(
        host=HOST, api_key={"HtySudoerToken": os.environ["TOKEN"], "HtyHost": os.environ["HTY_HOST"]}
    )
)
sessions, messages, chats = made.SessionsApi(key), made.MessagesApi(key), made.ChatsApi(key)

opened = sessions.create_session(made.CreateSession(user_id="u-1", meta_data={"app": "made"}))
session = opened.data.task_result.data
sent = messages.send_message(session.session_id, made.SendMessage(message="3 + 4"), idempotency_key="made-1")
chat = sent.data.task_result.data
read = chats.get_result(chat.chat_id, wait=5).data.task_result.data
events = chats.get_events(chat.chat_id)
page = sessions.list_chats(session.session_id, limit=1).data.task_result.data
file = made.FilesApi(key).upload_file(("a.txt", b"words"), session_id=session.session_id)
completion = made.OpenaiApi(key).openai_create_chat_completion(
    made.ChatCompletionRequest(
        model="coze",
        messages=[made.DialogMessage(role="user", content=made.DialogMessageContent("5 + 6"))],
    )
)
stats = made.AdminApi(admin).get_stats().data.task_result.data


def refusal(status: int, error: exceptions.ApiException) -> list[object]:
    told = made.ErrorEnvelope.from_json(error.body or "")
    assert told is not None
    assert error.status == status
    return [status, told.error.code, told.error.retryable]


refused = []
try:
    sessions.get_session("unknown")
except exceptions.NotFoundException as error:
    refused.append(refusal(404, error))
try:
    messages.send_message(session.session_id, made.SendMessage(message=" "))
except exceptions.BadRequestException as error:
    refused.append(refusal(400, error))
try:
    made.AdminApi(made.ApiClient(made.Configuration(host=HOST))).get_stats()
except exceptions.UnauthorizedException as error:
    refused.append(refusal(401, error))

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
            "page": [each.chat_id == chat.chat_id for each in page.chats],
            "file": file.data.task_result.data.type,
            "completion": completion.choices[0].message.content,
            "draining": stats.process.draining,
            "health": made.HealthApi(key).get_health().data.status,
            "refused": refused,
        }
    )
)
