"""One question, one answer.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/quickstart.py
"""

import os

from coze_fastapi_client import CozeClient

with CozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
    session = client.sessions.create("u-1")
    chat = client.chats.send(session.session_id, "你好，3 + 4 等于几？")
    print(chat.content)
    print("tokens:", chat.usage.token_count if chat.usage else "unknown")
    for question in chat.follow_up_questions:
        print("-", question)
    client.sessions.delete(session.session_id)
