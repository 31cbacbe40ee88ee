"""Streams as Coze sends them, and as proxies, standards and self-hosted servers may.

A vector is a list of network reads; the comment says what a reader must make of it. Ids are shortened.
"""

import json
from typing import Any


def event(name: bytes, data: bytes) -> bytes:
    """One event in Coze's own bytes: no space after the colons."""
    return b"event:" + name + b"\ndata:" + data + b"\n\n"


def message(kind: str, content: str, **more: Any) -> bytes:
    fields = {
        "id": "71",
        "conversation_id": "5",
        "bot_id": "9",
        "chat_id": "6",
        "role": "assistant",
        "type": kind,
        "content": content,
        "content_type": "text",
        **more,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def chat(status: bytes, more: bytes = b"") -> bytes:
    return b'{"id":"6","conversation_id":"5","bot_id":"9","status":"' + status + b'"' + more + b"}"


DELTA = b"conversation.message.delta"
MESSAGE = b"conversation.message.completed"
CHAT = b"conversation.chat."
BEG = event(CHAT + b"created", chat(b"created")) + event(CHAT + b"in_progress", chat(b"in_progress"))
END = event(
    CHAT + b"completed",
    chat(
        b"completed",
        b',"last_error":{"code":0,"msg":""},"usage":{"token_count":3,"output_count":2,"input_count":1}',
    ),
) + event(b"done", b'"[DONE]"')
FINISH = message(
    "verbose",
    '{"msg_type":"generate_answer_finish","data":"{\\"finish_reason\\":0,\\"FinData\\":\\"\\"}","from_module":null}',
)

VECTORS: dict[str, list[bytes]] = {}
# text 你好, usage 3, ok
VECTORS["01_plain"] = [
    BEG,
    event(DELTA, message("answer", "你")),
    event(DELTA, message("answer", "好")),
    event(MESSAGE, message("answer", "你好")),
    event(MESSAGE, FINISH),
    END,
]

# text keeps its own space: " a"; colon-space stripped; unquoted DONE
VECTORS["02_space"] = [
    b"event: conversation.message.delta\ndata: " + message("answer", " a") + b"\n\n",
    b"event: done\ndata: [DONE]\n\n",
]

# as plain; also split between \r and \n
VECTORS["03_crlf"] = [(BEG + event(DELTA, message("answer", "ok")) + END).replace(b"\n", b"\r\n")]

# spec-legal; same result
VECTORS["04_lone_cr"] = [(event(DELTA, message("answer", "ok")) + END).replace(b"\n", b"\r")]

# join with \n -> valid JSON, error 103100001
VECTORS["05_multiline_data"] = [b'event:error\ndata:{"code":103100001,\ndata:"msg":"boom"}\n\n']

# text x
VECTORS["06_noise"] = [
    b":ka\n\nretry: 3000\n\n",
    b'event: PING\ndata: {"content":"{}"}\n\n',
    b"id:7\n",
    event(DELTA, message("answer", "x")),
    b": ka\n",
    END,
]

# BOM dropped, created seen
VECTORS["07_bom"] = [b"\xef\xbb\xbf", BEG + event(DELTA, message("answer", "x")) + END]

# text 你; the cut falls between E4 and BD A0
VECTORS["08_utf8_split"] = [
    BEG + b"event:conversation.message.delta\ndata:" + message("answer", "你")[:-26],
    message("answer", "你")[-26:] + b"\n\n",
    END,
]

# one event, 7 characters (splitlines breaks it)
VECTORS["09_u2028"] = [event(DELTA, message("answer", "a\u2028b\u0085c\u2029d")), END]

# reasoning "think" kept
VECTORS["10_reasoning"] = [
    BEG,
    event(DELTA, message("answer", "", reasoning_content="think")),
    event(DELTA, message("answer", "\n\nhi")),
    event(MESSAGE, message("answer", "\n\nhi")),
    event(MESSAGE, FINISH),
    END,
]

# text z, no completed event
VECTORS["11_empty_deltas"] = [
    BEG,
    event(DELTA, message("answer", "")),
    event(DELTA, message("answer", "", reasoning_content="")),
    event(DELTA, message("answer", "z")),
    END,
]

# answers [one,two]; follow_ups [next?]
VECTORS["12_multi_answer"] = [
    BEG,
    event(MESSAGE, message("answer", "one", id="71")),
    event(DELTA, message("answer", "two", id="72")),
    event(MESSAGE, message("answer", "two", id="72")),
    event(MESSAGE, FINISH),
    event(MESSAGE, message("follow_up", "next?")),
    END,
]

# text sun only
VECTORS["13_plugin"] = [
    BEG,
    event(MESSAGE, message("function_call", '{"name":"w-q","arguments":{"q":"x"}}')),
    event(MESSAGE, message("tool_response", '{"r":1}')),
    event(MESSAGE, message("verbose", '{"msg_type":"knowledge_recall","data":"{\\"chunks\\":[]}"}')),
    event(DELTA, message("answer", "sun")),
    event(MESSAGE, message("answer", "sun")),
    END,
]

# 1 tool call, EOF without done is fine
VECTORS["14_requires_action"] = [
    BEG,
    event(
        CHAT + b"requires_action",
        chat(
            b"requires_action",
            b',"required_action":{"type":"submit_tool_outputs","submit_tool_outputs":{"tool_calls":[{"id":"Q0Q=","type":"function","function":{"name":"f","arguments":"{\\"a\\":1}"}}]}}',
        ),
    ),
]

# error 5000, partial "par"
VECTORS["16_failed_chat"] = [
    BEG,
    event(DELTA, message("answer", "par")),
    event(
        CHAT + b"failed",
        chat(b"failed", b',"failed_at":1,"last_error":{"code":5000,"msg":"event interval error"}'),
    ),
]

# error int 720702204
VECTORS["17_failed_bare"] = [
    event(CHAT + b"failed", b'{"code":"720702204","msg":"no"}'),
    event(b"done", b'"[DONE]"'),
]

# error, code unknown; no crash
VECTORS["18_error_empty"] = [event(b"error", b"{}")]

# incomplete; partial "half"; tail not dispatched
VECTORS["20_cut"] = [
    BEG + event(DELTA, message("answer", "half")),
    b'event:conversation.message.delta\ndata:{"id":"71","con',
]

# success: chat.completed seen
VECTORS["21_no_done"] = [
    BEG,
    event(DELTA, message("answer", "x")),
    event(MESSAGE, message("answer", "x")),
    END.split(b"event:done")[0],
]

# HTTP 200 application/json, stream=true -> error 4016 + logid
VECTORS["22_json200"] = [b'{"code":4016,"msg":"busy","detail":{"logid":"20250101ABC"}}']

# HTTP 502 text/html -> transport error, no HTML to caller
VECTORS["23_html502"] = [b"<html><body><center><h1>502 Bad Gateway</h1></center></body></html>"]

# 1.05 MB event: delivered or clean "too large"; linear time
VECTORS["24_1mb"] = [event(DELTA, message("answer", "汉" * 350000)), END]

# stops at the FIRST
VECTORS["27_done_forms"] = [
    event(b"done", b""),
    event(b"done", b"[DONE]"),
    event(b"done", b'{"debug_url":"u?a=1\\u0026b=2"}'),
]
