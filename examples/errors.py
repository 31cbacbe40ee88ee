"""What can go wrong, and what to do: a busy session, a chat that Coze refused, a chat that takes too long.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/errors.py
"""

import os

from coze_fastapi_client import CozeClient, CozeServiceError, SessionBusy, WaitTimeout

with CozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
    session = client.sessions.create("u-1")

    # The parts in brackets ask the simulator to be slow, or to refuse.
    slow = client.chats.send(session.session_id, "[[sim:delay=30]] think hard", wait=0)
    try:
        client.chats.wait(slow.chat_id, timeout=0.5)
    except WaitTimeout as still:
        print("it takes long, and goes on:", still.chat.status)

    try:
        client.chats.send(session.session_id, "and another thing")
    except SessionBusy as busy:
        print("busy with the first:", busy.chat_id == slow.chat_id)
    chat = client.chats.send(session.session_id, "forget that; 3 + 4", on_busy="interrupt")
    print("interrupted and answered:", chat.status)

    try:
        client.chats.send(session.session_id, "[[sim:fail=4101]] hello")
    except CozeServiceError as error:
        print(f"{type(error).__name__} {error.status} {error.code}: {error.message}")
        print("for Coze's support:", error.logid)
    client.sessions.delete(session.session_id)
