"""The mini-program and the web page of the examples, with the running service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser.support import ARGUMENTS, find_browser
from tests.support import RedisServer, RunningApp, SimControl, make_settings, running_app

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NODE = Path(__file__).parent / "node"
PRINTED = "http://127.0.0.1:6001"
"""Where the examples expect the service."""


def with_modules(folder: Path) -> None:
    for name in ("coze-client.js", "coze-stream.js"):
        shutil.copy(ROOT / "app/routes/pages" / name, folder)


def pointed_at(file: Path, service: RunningApp) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(PRINTED) == 1
    file.write_text(text.replace(PRINTED, service.base_url), encoding="utf-8")


def test_the_mini_program_talks_resumes_and_stops(service: RunningApp, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    shutil.copytree(EXAMPLES / "miniprogram", tmp_path, dirs_exist_ok=True)
    with_modules(tmp_path / "coze")
    pointed_at(tmp_path / "pages/chat/chat.js", service)
    for name in ("wx.mjs", "miniprogram.mjs"):
        shutil.copy(NODE / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    done = subprocess.run(
        [node, "miniprogram.mjs"],
        cwd=tmp_path,
        env=os.environ | {"SERVICE": service.base_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    first = told.pop("first")
    assert first["question"].startswith("你好😀")
    assert first["status"] == "completed"
    assert "你好😀" in first["answer"]
    assert "�" not in first["answer"]
    assert told == {
        "wrong": [],
        "pieces": True,
        "requests": [
            "POST /coze/sessions",
            "POST /coze/sessions/…/messages",
            *["GET /coze/chats/…/events"] * 2,
        ],
        "after": [False, "", ""],
        "stopped": "cancelled",
        "failed": ["failed", True],
        "file": [True, True],
        "noFile": "HTTP 404",
        "gone": ["还在吗", "", True, False],
        "renewed": "completed",
        "redirected": ["UNEXPECTED_ANSWER", "UNEXPECTED_ANSWER"],
        "left": "not told",
    }


def test_the_markup_of_the_mini_program_names_what_its_page_has() -> None:
    folder = EXAMPLES / "miniprogram"
    app = json.loads((folder / "app.json").read_text(encoding="utf-8"))
    json.loads((folder / "project.config.json").read_text(encoding="utf-8"))
    for page in app["pages"]:
        files = {ending: (folder / f"{page}.{ending}").read_text(encoding="utf-8") for ending in ENDINGS}
        json.loads(files["json"])
        handlers = set(re.findall(r'bind\w+="(\w+)"', files["wxml"]))
        assert handlers <= set(re.findall(r"^  (?:async )?(\w+)\(", files["js"], re.MULTILINE))
        [data] = re.findall(r"^  data: \{ (.*) \},$", files["js"], re.MULTILINE)
        shown = set(re.findall(r"\{\{(\w+)", files["wxml"])) - {"item", "index"}
        assert shown == set(re.findall(r"(\w+):", data))
        used = set(re.findall(r'class="([\w-]+)"', files["wxml"]))
        assert used == set(re.findall(r"\.([a-z]+)\b(?=[^{}]*\{)", files["wxss"]))


ENDINGS = ("js", "json", "wxml", "wxss")

DOM = """
const made = new Map();
globalThis.document = { getElementById(id) {
  const button = {};
  if (!made.has(id)) made.set(id, { id, value: "", textContent: "", querySelector: () => button });
  return made.get(id);
} };
"""
USE = """
{
const { message, form, answer, notice, stop } = Object.fromEntries(
  ["message", "form", "answer", "notice", "stop"].map((id) => [id, document.getElementById(id)]));
const say = (text) => { message.value = text; return form.onsubmit({ preventDefault() {} }); };
const told = {};
stop.hidden = true;
await say("3 + 4");
told.first = answer.textContent;
const slow = say("[[sim:delay=100]] story");
while (stop.hidden) await new Promise((wake) => setTimeout(wake, 5));
await stop.onclick();
await slow;
told.stopped = [notice.textContent, stop.hidden];
await say("5 + 6");
told.again = [answer.textContent, notice.textContent];
console.log(JSON.stringify(told));
}
"""


def test_the_web_page_answers_and_stops(service: RunningApp, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    with_modules(tmp_path)
    page = (EXAMPLES / "web/index.html").read_text(encoding="utf-8")
    assert page.count("\n") <= 35
    [script] = re.findall(r'<script type="module">\n(.*?)</script>', page, re.DOTALL)
    (tmp_path / "dom.js").write_text(DOM, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    code = f'import "./dom.js";\n{script.replace(PRINTED, service.base_url)}{USE}'
    (tmp_path / "main.js").write_text(code, encoding="utf-8")
    done = subprocess.run([node, "main.js"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert "7" in told["first"]
    assert told["stopped"] == ["cancelled", True]
    assert "11" in told["again"][0]
    assert told["again"][1] == ""


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: the output belongs to the tests."""


@pytest.mark.full
async def test_the_web_page_in_a_browser(redis: RedisServer, simulator: SimControl, tmp_path: Path) -> None:
    chromium = find_browser()
    if chromium is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    from playwright.async_api import async_playwright

    folder: Any = tmp_path / "web"
    shutil.copytree(EXAMPLES / "web", folder)
    with_modules(folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(folder))) as files:
        threading.Thread(target=files.serve_forever, name="files of the page").start()
        origin = f"http://127.0.0.1:{files.server_port}"
        values = {"COZE_API_URL": simulator.chat_url, "REDIS_URL": redis.url, "CORS_ALLOW_ORIGINS": origin}
        with running_app(make_settings(**values)) as service:
            pointed_at(folder / "index.html", service)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
                page = await browser.new_page()
                await page.goto(origin)
                await page.fill("#message", "3 + 4")
                await page.press("#message", "Enter")
                await page.wait_for_function("document.querySelector('#answer').textContent.includes('= 7')")
                await page.wait_for_selector("#stop", state="hidden")
                assert await page.text_content("#notice") == ""
                await page.fill("#message", "[[sim:delay=100]] story")
                await page.press("#message", "Enter")
                await page.wait_for_selector("#stop:visible")
                await page.click("#stop")
                await page.wait_for_function("document.querySelector('#notice').textContent === 'cancelled'")
                await browser.close()
        files.shutdown()
