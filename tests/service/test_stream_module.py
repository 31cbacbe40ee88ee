"""coze-stream.js folds as the rule says, on scripted streams and on the service's own: in Node."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import Client
from tests.support.folding import Folded, FrameEvent

MODULE = Path(__file__).resolve().parents[2] / "app/routes/pages/coze-stream.js"

FOLD = """
import { AnswerFold } from "./coze-stream.mjs";
let given = "";
for await (const chunk of process.stdin) given += chunk;
const told = JSON.parse(given).map((events) => {
  const answer = new AnswerFold();
  return events.map(([event, json]) => {
    answer.apply({ event, json });
    const messages = [...answer.messages.values()].map((m) => [m.id, m.content, m.reasoning, m.contentType]);
    return [answer.text, answer.reasoning, messages, [...answer.followUps]];
  });
});
console.log(JSON.stringify(told));
"""

Events = list[tuple[str, Any]]


def told_by_the_module(streams: list[Events], folder: Path) -> list[list[Any]]:
    """What AnswerFold has after each event of each stream."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    (folder / "coze-stream.mjs").write_text(MODULE.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "fold.mjs").write_text(FOLD, encoding="utf-8")
    ran = subprocess.run(
        [node, "fold.mjs"], cwd=folder, input=json.dumps(streams), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    found: list[list[Any]] = json.loads(ran.stdout)
    return found


def told_by_the_rule(events: Events) -> list[Any]:
    reader, told = Folded(), []
    for name, data in events:
        reader.feed(FrameEvent(name, json.dumps(data)))
        messages = [
            [key, one.content, one.reasoning, one.content_type] for key, one in reader.answers.items()
        ]
        told.append([reader.content, reader.reasoning, messages, list(reader.follow_ups)])
    return told


def random_stream(dice: random.Random) -> Events:
    events: Events = []
    for _ in range(dice.randrange(1, 15)):
        message: dict[str, Any] = {
            "id": dice.choice(["1", "2", "3", 4, "", None]),
            "type": dice.choice(["answer", "answer", "answer", "", None, "follow_up", "function_call"]),
            "content": dice.choice(["", "a", "汉🙂", None]),
            "reasoning_content": dice.choice(["", "hm", None]),
            "content_type": dice.choice(["text", "card", None]),
        }
        for name in dice.sample(sorted(message), dice.randrange(2)):
            del message[name]
        kind = dice.random()
        if kind < 0.6:
            events.append(("conversation.message.delta", message))
        elif kind < 0.85:
            events.append(("conversation.message.completed", message))
        else:
            texts = [dice.choice(["", "a", "b"]) for _ in range(dice.randrange(3))]
            messages = [
                {
                    "id": str(number),
                    "type": "answer",
                    "content": text,
                    "content_type": "text",
                    "reasoning_content": dice.choice(["", "hm"]),
                }
                for number, text in enumerate(texts, 1)
            ]
            events.append(
                ("snapshot", {"messages": messages, "follow_up_questions": ["next?"][: len(texts)]})
            )
    return events


def test_the_module_folds_as_the_rule_says(tmp_path: Path) -> None:
    dice = random.Random(11)
    streams = [random_stream(dice) for _ in range(500)]
    found = told_by_the_module(streams, tmp_path)
    for events, told in zip(streams, found, strict=True):
        assert told == told_by_the_rule(events), events


async def test_the_module_has_the_answer_before_the_terminal_frame(client: Client, tmp_path: Path) -> None:
    shapes = ["", "card=1", "multi=3", "cut=1500", "cut=0", "completed_text=other", "fail_at=2", "plugin=1"]
    streams, chats = [], []
    for shape in shapes:
        session_id = await client.open_session()
        async with client.stream(session_id, f"[[sim:deltas=4;{shape}]] hello") as reader:
            events = await reader.all()
        ends = [place for place, event in enumerate(events) if event.event.startswith("conversation.chat.")]
        streams.append([(event.event, event.json()) for event in events[: ends[-1]]])
        chats.append(reader.result())
    for told, chat in zip(told_by_the_module(streams, tmp_path), chats, strict=True):
        assert told[-1][:2] == [chat["content"], chat["reasoning_content"]]


MINI_PROGRAM = """
import { streamChat } from "./coze-stream.mjs";
import { miniProgram } from "./wx-adapter.mjs";
const bytes = new TextEncoder().encode(process.argv[2]);
const wx = {
  request({ success }) {
    const heard = {};
    setTimeout(() => {
      const header = { "Content-Type": "text/event-stream", "X-Coze-Chat-Id": "c-1" };
      heard.headers({ statusCode: 200, header });
      for (const each of bytes) heard.chunk({ data: Uint8Array.of(each).buffer });
      success({ statusCode: 200 });
    });
    return {
      onHeadersReceived: (call) => (heard.headers = call),
      onChunkReceived: (call) => (heard.chunk = call),
      abort() {},
    };
  },
};
for (const name of ["fetch", "TextDecoder", "AbortController", "crypto"]) {
  Object.defineProperty(globalThis, name, { value: undefined, configurable: true, writable: true });
}
const options = { baseUrl: "http://x", sessionId: "s", body: { message: "hi" } };
const refused = await streamChat(options).catch((error) => error.message);
const answer = await streamChat({ ...options, ...miniProgram(wx) });
console.log(JSON.stringify([refused, answer.text, answer.status]));
"""


def test_a_mini_program_reads_a_stream_whose_characters_are_cut_anywhere(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    adapter = MODULE.parents[3] / "examples/miniprogram/coze/wx-adapter.js"
    for source, name in ((MODULE, "coze-stream.mjs"), (adapter, "wx-adapter.mjs")):
        (tmp_path / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "run.mjs").write_text(MINI_PROGRAM, encoding="utf-8")
    text = "é中文😀 done"
    delta = json.dumps({"id": "1", "type": "answer", "content": text}, ensure_ascii=False)
    data: dict[str, Any] = {"chat_id": "c-1", "status": "completed", "usage": None, "recovered": False}
    result = json.dumps({"data": {"task_result": {"data": data}}})
    stream = (
        f"id: 1-1\nevent: conversation.message.delta\ndata: {delta}\n\n"
        f'id: 1-1\nevent: result\ndata: {result}\n\nid: 1-2\nevent: done\ndata: "[DONE]"\n\n'
    )
    ran = subprocess.run([node, "run.mjs", stream], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    refused, read, status = json.loads(ran.stdout)
    assert (read, status) == (text, "completed")
    assert "fetch, no TextDecoder, no AbortController" in refused
