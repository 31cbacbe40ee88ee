"""The JavaScript that the pages show, in Node: the web page, the app, the mini-program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support import RunningApp

from .pages import ROOT, SERVICE, blocks

DOM = """
const elements = new Map();
globalThis.document = { getElementById(id) {
  if (!elements.has(id)) elements.set(id, { textContent: "" });
  return elements.get(id);
} };
globalThis.location = { hostname: "localhost" };
process.on("exit", () => { for (const each of elements.values()) console.log(each.textContent); });
"""
WX = """
import { request } from "node:http";
const missing = ["TextDecoder", "TextEncoder", "AbortController", "fetch", "crypto", "document", "Buffer"];
for (const name of missing) delete globalThis[name];      // a mini-program has none of these
globalThis.wx = { request({ url, method, header, data, success, enableChunked }) {
  const listeners = [];
  const call = request(url, { method, headers: header }, (response) => {
    const whole = [];
    response.on("data", (chunk) => {
      whole.push(chunk);
      for (const byte of enableChunked ? chunk : [])      // cut inside characters and inside frames
        for (const listener of listeners) listener({ data: Uint8Array.of(byte).buffer });
    });
    response.on("end", () => {
      const text = whole.map((chunk) => chunk.toString("latin1")).join("");
      if (!enableChunked) success({ statusCode: response.statusCode, data: JSON.parse(text) });
    });
  });
  call.end(JSON.stringify(data));
  return { onChunkReceived: (listener) => listeners.push(listener) };
} };
"""


def node(folder: Path, files: dict[str, str]) -> str:
    """What ``main.mjs`` prints."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run([found, "main.mjs"], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def stream_module() -> dict[str, str]:
    text = (ROOT / "app/routes/pages/coze-stream.js").read_text(encoding="utf-8")
    return {"coze-stream.js": text, "package.json": '{"type": "module"}'}


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
def test_the_web_page_of_the_first_page_shows_the_answer(
    name: str, open_service: RunningApp, tmp_path: Path
) -> None:
    [shown] = blocks(ROOT / name, "html")
    assert shown.text.count("\n") <= 15
    scripts = re.findall(r'<script type="module">\n(.*?)</script>', shown.text, re.DOTALL)
    assert len(scripts) == 1
    code = scripts[0].replace(SERVICE, open_service.base_url)
    told = node(tmp_path, stream_module() | {"dom.js": DOM, "main.mjs": f'import "./dom.js";\n{code}'})
    assert told == f"{stored_answer(open_service)}\n"


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
def test_the_mini_program_of_the_first_page_shows_the_answer(
    name: str, open_service: RunningApp, tmp_path: Path
) -> None:
    [shown] = blocks(ROOT / name, "js")
    assert shown.text.count("\n") <= 20
    code = shown.text.replace(SERVICE, open_service.base_url)
    told = node(tmp_path, {"wx.mjs": WX, "main.mjs": f'import "./wx.mjs";\n{code}'})
    assert told.endswith(f"\n{stored_answer(open_service)}\n")


def stored_answer(service: RunningApp) -> str:
    """What the only chat of the user u-1 answered."""
    with httpx.Client(base_url=service.base_url, trust_env=False) as client:
        listed = client.get("/coze/users/u-1/sessions").json()["data"]["task_result"]["data"]["sessions"]
        session = client.get(f"/coze/sessions/{listed[0]['session_id']}").json()
    [chat] = session["data"]["task_result"]["data"]["chat_history"]
    assert chat["status"] == "completed"
    content: str = chat["content"]
    return content


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_code_for_an_app_shows_the_answer(
    language: str, open_service: RunningApp, tmp_path: Path
) -> None:
    [shown] = blocks(ROOT / f"docs/{language}/clients.md", "js")
    assert 'baseUrl: ""' in shown.text
    code = f"""
      const made = await fetch("{open_service.base_url}/coze/sessions", {{ method: "POST",
        headers: {{ "Content-Type": "application/json" }}, body: '{{"user_id": "u-1"}}' }});
      const sessionId = (await made.json()).data.task_result.data.session_id, token = "t";
      const output = document.getElementById("output"), notice = {{}};
      {shown.text.partition(chr(10))[2].replace('baseUrl: ""', f'baseUrl: "{open_service.base_url}"')}
      if (notice.hidden !== true) throw new Error("the connection was lost");
    """
    assert shown.text.startswith('import { streamChat } from "./coze-stream.js";\n')
    told = node(
        tmp_path,
        stream_module()
        | {
            "dom.js": DOM,
            "main.mjs": f'import "./dom.js";\nimport {{ streamChat }} from "./coze-stream.js";\n{code}',
        },
    )
    assert told.startswith("completed [")
    assert told.endswith(f"\n{stored_answer(open_service)}\n")
