"""A bot that asks the app to run a function, and goes on with its output.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/tools.py
"""

import json
import os

from coze_fastapi_client import CozeClient, ToolCall


def run_tool(call: ToolCall) -> str:
    print(f"the bot calls {call.name}({call.arguments})")
    return json.dumps({"temperature": 21})


with CozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
    session = client.sessions.create("u-1")
    # The part in brackets asks the simulator to play such a bot.
    chat = client.chats.send(session.session_id, "[[sim:requires_action=function]] 上海天气")
    while chat.status == "requires_action":
        outputs = {call.id: run_tool(call) for call in chat.tool_calls}
        chat = client.chats.submit_tool_outputs(chat.chat_id, outputs)
    print(chat.content)
    client.sessions.delete(session.session_id)
