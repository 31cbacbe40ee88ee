"""The JavaScript that the pages show, in Node: the web page, the app, the mini-program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support import RunningApp

from .pages import PAGES, ROOT, SERVICE, blocks, name_of

DOM = """
const elements = new Map();
globalThis.document = { getElementById(id) {
  if (!elements.has(id)) elements.set(id, { textContent: "" });
  return elements.get(id);
} };
globalThis.location = { hostname: "localhost" };
process.on("exit", () => { for (const each of elements.values()) console.log(each.textContent); });
"""
OPENED = """
import { open } from "./wx.mjs";
const page = await open("./pages/chat/chat.js");
await page.loaded;
console.log(page.data.answer);
"""


def node(folder: Path, files: dict[str, str]) -> str:
    """What ``main.mjs`` prints."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on PATH (Debian: apt-get install nodejs)")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run([found, "main.mjs"], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def modules(place: str = "") -> dict[str, str]:
    names = ("coze-client.js", "coze-stream.js")
    found = {place + name: (ROOT / "app/routes/pages" / name).read_text(encoding="utf-8") for name in names}
    return found | {"package.json": '{"type": "module"}'}


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
def test_the_web_page_of_the_first_page_shows_the_answer(
    name: str, open_service: RunningApp, tmp_path: Path
) -> None:
    [shown] = blocks(ROOT / name, "html")
    assert shown.text.count("\n") <= 15
    scripts = re.findall(r'<script type="module">\n(.*?)</script>', shown.text, re.DOTALL)
    assert len(scripts) == 1
    code = scripts[0].replace(SERVICE, open_service.base_url)
    told = node(tmp_path, modules() | {"dom.js": DOM, "main.mjs": f'import "./dom.js";\n{code}'})
    assert told == f"{stored_answer(open_service)}\n"


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
def test_the_mini_program_of_the_first_page_shows_the_answer(
    name: str, open_service: RunningApp, tmp_path: Path
) -> None:
    [shown] = blocks(ROOT / name, "js")
    assert shown.text.count("\n") <= 15
    tools = {
        "wx.mjs": ROOT / "tests/examples/node/wx.mjs",
        "coze/wx-adapter.js": ROOT / "examples/miniprogram/coze/wx-adapter.js",
    }
    files = modules("coze/") | {place: file.read_text(encoding="utf-8") for place, file in tools.items()}
    files["pages/chat/chat.js"] = shown.text.replace(SERVICE, open_service.base_url)
    told = node(tmp_path, files | {"main.mjs": OPENED})
    assert told == f"{stored_answer(open_service)}\n"


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
    head, _, code = shown.text.partition("\n")
    assert head == 'import { CozeClient } from "./coze-client.js";'
    assert 'baseUrl: ""' in code
    used = f"""{head}
      const token = "t", output = document.getElementById("output"), notice = {{}};
      {code.replace('baseUrl: ""', f'baseUrl: "{open_service.base_url}"')}
      if (notice.hidden !== true) throw new Error("the connection was lost");
    """
    told = node(tmp_path, modules() | {"dom.js": DOM, "main.mjs": f'import "./dom.js";\n{used}'})
    assert told.startswith("completed [")
    assert told.endswith(f"\n{stored_answer(open_service)}\n")


def test_the_code_of_the_package_prints_the_answer(open_service: RunningApp, tmp_path: Path) -> None:
    [shown] = blocks(ROOT / "client-js/README.md", "js")
    place = "node_modules/coze-fastapi-client/"
    package = {f"{place}package.json": (ROOT / "client-js/package.json").read_text(encoding="utf-8")}
    main = {"main.mjs": shown.text.replace(SERVICE, open_service.base_url)}
    told = node(tmp_path, modules(place) | package | main)
    assert "7" in told.splitlines()[0]
    assert told.splitlines()[-1].startswith("completed [")


def test_no_block_of_javascript_is_run_nowhere() -> None:
    found = {name_of(page) for page in PAGES for block in blocks(page, "js", "html") if block.runs}
    ours = {"README.md", "README.en.md", "docs/zh/clients.md", "docs/en/clients.md", "client-js/README.md"}
    assert found == ours
