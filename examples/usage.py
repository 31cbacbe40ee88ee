"""What was used today, and what Coze has kept of a conversation.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/usage.py
"""

import os

from coze_fastapi_client import CozeClient

with CozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
    session = client.sessions.create("u-1")
    client.chats.send(session.session_id, "3 + 4")
    for message in client.sessions.history(session.session_id, order="asc").messages:
        print(f"{message.role}: {message.content[:60]!r}")
    client.sessions.clear(session.session_id)
    print("context cleared: the next message begins anew")

    report = client.usage(group_by="day,user")
    for row in report.rows:
        print(f"{row.day} {row.user_id}: {row.chats} chats, {row.tokens} tokens")
    print(f"since {report.since}: {report.total.chats} chats, {report.total.tokens} tokens")
    client.sessions.delete(session.session_id)
