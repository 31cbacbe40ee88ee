"""The answer as it is written. Lost connections are made anew, and nothing is asked twice.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/stream.py "How do I learn Go?"
"""

import os
import sys

from coze_fastapi_client import CozeClient

question = sys.argv[1] if len(sys.argv) > 1 else "你好，介绍一下你自己"

with CozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
    session = client.sessions.create("u-1")
    with client.chats.stream(session.session_id, question) as stream:
        for piece in stream.text_deltas():
            print(piece, end="", flush=True)
    print(f"\n[{stream.chat.status if stream.chat else 'open'}, {stream.connections} connection(s)]")
    client.sessions.delete(session.session_id)
