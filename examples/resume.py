"""An app is closed in mid-answer; later it goes on behind the last event that it had, on any replica.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/resume.py
"""

import os

from coze_fastapi_client import CozeClient

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:6000")
text = ""

with CozeClient(BASE_URL) as client:
    session = client.sessions.create("u-1")
    with client.chats.stream(session.session_id, "你好，介绍一下你自己") as stream:
        for piece in stream.text_deltas():
            text += piece
            if len(text) > 10:
                break  # the chat goes on without us
    chat_id, last_event_id = stream.chat_id or "", stream.last_event_id
print(f"read {text!r}, left at event {last_event_id}")

with CozeClient(BASE_URL) as client:  # another process, another day (half an hour, by default)
    with client.chats.follow(chat_id, after=last_event_id) as stream:
        text += "".join(stream.text_deltas())
    client.sessions.delete(session.session_id)
print(text)
print("same as the stored answer:", stream.chat is not None and text == stream.chat.content)
