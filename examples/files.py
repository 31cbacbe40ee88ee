"""A picture goes along with a question.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/files.py [PICTURE]
"""

import base64
import os
import sys
from pathlib import Path

from coze_fastapi_client import CozeClient

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A picture of one point."""

picture = Path(sys.argv[1]) if len(sys.argv) > 1 else None
name, content = (picture.name, picture.read_bytes()) if picture else ("dot.png", base64.b64decode(DOT))

with CozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
    session = client.sessions.create("u-1")
    file = client.files.upload(name, content, session_id=session.session_id)
    print(f"{file.file_name}: {file.mime}, {file.bytes} bytes, kept until {file.expires_at:%Y-%m-%d}")
    chat = client.chats.send(
        session.session_id, "What is in the picture?", attachments=[{"file_id": file.file_id}]
    )
    print(chat.content)
    client.files.delete(file.file_id)
    client.sessions.delete(session.session_id)
