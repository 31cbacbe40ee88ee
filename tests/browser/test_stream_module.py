"""coze-stream.js in a real browser: the grammar cut anywhere, silence, refusals, credentials."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from coze_simulator.auth_server import running_auth
from tests.client.support import leading
from tests.docs.pages import ROOT, SERVICE, blocks
from tests.support import RedisServer, RunningApp, SimControl

from .conftest import OpenTab
from .support import LONG, Proxy, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARSE = """async ([bytes, step]) => {
  const { SseParser } = await import('/coze/playground/coze-stream.js');
  const parser = new SseParser(), decoder = new TextDecoder(), all = [];
  const data = new Uint8Array(bytes);
  for (let at = 0; at < data.length; at += step)
    all.push(...parser.push(decoder.decode(data.slice(at, at + step), { stream: true })));
  const { lastEventId: last, retry = null, comments } = parser;
  return { events: all.map(e => [e.id, e.event, e.data]), last, retry, comments };
}"""
VECTORS: dict[str, tuple[bytes, list[list[str]]]] = {
    "plain": (b"id: 1-1\nevent: a\ndata: {}\n\n", [["1-1", "a", "{}"]]),
    "CRLF": (
        b"id: 1-1\r\nevent: a\r\ndata: x\r\n\r\ndata: y\r\n\r\n",
        [["1-1", "a", "x"], ["1-1", "message", "y"]],
    ),
    "CR": (b"data: x\r\rdata: y\r\r", [["", "message", "x"], ["", "message", "y"]]),
    "mixed": (b"data: x\r\ndata: y\r\n\ndata: z\n\r", [["", "message", "x\ny"], ["", "message", "z"]]),
    "BOM": (b"\xef\xbb\xbfdata: x\n\n", [["", "message", "x"]]),
    "characters of four bytes": ("data: 你🙂é\n\n".encode(), [["", "message", "你🙂é"]]),
    "no space, one space, two": (b"data:x\ndata: y\ndata:  z\n\n", [["", "message", "x\ny\n z"]]),
    "comments": (b": keep-alive\n\n:\ndata: x\n\n", [["", "message", "x"]]),
    "no data, no event": (b"event: a\n\nid: 7\n\ndata: x\n\n", [["7", "message", "x"]]),
    "a field without colon": (b"data\n\ndata\ndata\n\n", [["", "message", ""], ["", "message", "\n"]]),
    "an id with NUL": (
        b"id: 1\ndata: x\n\nid: 2\x003\ndata: y\n\n",
        [["1", "message", "x"], ["1", "message", "y"]],
    ),
    "retry": (b"retry: 250\nretry: 1e3\n\nfoo: bar\ndata: x\n\n", [["", "message", "x"]]),
    "cut off": (b"data: x\n\ndata: y\n", [["", "message", "x"]]),
}


async def test_the_grammar_of_event_streams_wherever_they_are_cut(tab: Tab) -> None:
    for name, (raw, expected) in VECTORS.items():
        for step in (1, 2, 3, 7, 1000):
            found = await tab.page.evaluate(PARSE, [list(raw), step])
            assert found["events"] == expected, (name, step)
    found = await tab.page.evaluate(PARSE, [list(VECTORS["retry"][0]), 1])
    assert (found["retry"], found["comments"]) == (250, 0)
    assert (await tab.page.evaluate(PARSE, [list(VECTORS["comments"][0]), 1]))["comments"] == 2


READ = """async ([session, options]) => {
  const { streamChat } = await import('/coze/playground/coze-stream.js');
  const states = [], texts = [];
  window.__progress = () => texts.length;
  window.__lost = () => states.filter(state => state === 'lost').length;
  const answer = await streamChat({ sessionId: session, body: { message: 'Tell me a story' }, ...options,
    onState: ({ state }) => states.push(state), onEvent: (_, answer) => texts.push(answer.text) })
    .catch(error => ({ failed: [error.name, error.code, error.status] }));
  return { text: answer.text, status: answer.status, failed: answer.failed, states,
           wrong: texts.filter(text => !answer.text.startsWith(text)) };
}"""


class QuietFiles(SimpleHTTPRequestHandler):
    """Files of a folder, as ``python3 -m http.server`` gives them."""

    def log_message(self, *_: object) -> None:
        """Nothing: the output belongs to the tests."""


async def session_of(tab: Tab) -> str:
    session: str = await tab.page.evaluate(
        "fetch('/coze/sessions', { method: 'POST', headers: { 'Content-Type': 'application/json' },"
        ' body: \'{"user_id": "u"}\' }).then(r => r.json()).then(b => b.data.task_result.data.session_id)'
    )
    return session


async def test_a_connection_that_says_nothing_is_given_up_and_opened_again(
    tab: Tab, simulator: SimControl, proxy: Proxy
) -> None:
    tab.may_fail = True
    simulator.knob(match="story", text=LONG, gap=0.02)
    session = await session_of(tab)
    await tab.page.evaluate(f"window.__read = ({READ})(['{session}', {{ silenceMs: 400 }}]); 0")
    await tab.page.wait_for_function("() => window.__progress?.() > 20")
    proxy.stall()
    await tab.page.wait_for_function("() => window.__lost() > 1")
    proxy.flow()
    read = await tab.page.evaluate("window.__read")
    assert (read["status"], read["text"], read["wrong"]) == ("completed", LONG, [])
    assert read["states"][-1] == "closed"


BYTES = """async (...call) => {
  const response = await fetch(...call);
  const bytes = new TransformStream({
    transform(chunk, out) { for (const byte of chunk) out.enqueue(Uint8Array.of(byte)); } });
  return new Response(response.body.pipeThrough(bytes), { headers: response.headers });
}"""


async def test_an_answer_that_comes_byte_by_byte_is_the_same(tab: Tab, simulator: SimControl) -> None:
    simulator.knob(match="story", text=LONG[:300])
    session = await session_of(tab)
    read = await tab.page.evaluate(f"() => ({READ})(['{session}', {{ fetch: {BYTES} }}])")
    assert (read["status"], read["text"], read["wrong"]) == ("completed", LONG[:300], [])


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_what_the_documentation_shows_can_be_pasted(
    tab: Tab, simulator: SimControl, language: str
) -> None:
    [shown] = blocks(ROOT / f"docs/{language}/clients.md", "js")
    assert shown.text.count("\n") <= 10
    simulator.knob(text=LONG)
    module, _, code = shown.text.partition("\n")
    assert module == 'import { CozeClient } from "./coze-client.js";'
    drawn = await tab.page.evaluate(
        f"""async () => {{
          const {{ CozeClient }} = await import('/coze/playground/coze-client.js');
          const token = 't', output = document.createElement('p'), notice = {{}};
          {code}
          return [output.textContent, notice.hidden, answer.status];
        }}"""
    )
    assert drawn == [LONG, True, "completed"]


async def test_a_refusal_is_final_and_typed(tab: Tab) -> None:
    tab.may_fail = True
    read = await tab.page.evaluate(READ, ["nope", {}])
    assert read["failed"] == ["CozeError", "COZE_SESSION_NOT_FOUND", 404]


@pytest_asyncio.fixture(loop_scope="session")
async def secured(start_app: Callable[..., RunningApp], redis: RedisServer) -> Any:
    """A service that asks who calls, and a way to get a token."""
    with running_auth() as auth:
        service = start_app(
            ENABLE_PLAYGROUND="true",
            ENABLE_AUTH="true",
            HTY_VERIFY_URL=auth.verify_url,
            REDIS_URL=redis.url,
        )
        yield service, auth.app.issue("alice", None)


async def test_credentials_are_asked_for_and_live_in_memory_alone(
    secured: tuple[RunningApp, str], open_tab: OpenTab, simulator: SimControl
) -> None:
    service, token = secured
    tab = await open_tab(service.base_url)
    tab.may_fail = True
    page = tab.page

    async def sign_in() -> None:
        await page.wait_for_selector("#credentials-needed:visible")
        await page.fill("#token", token)
        await page.fill("#host", "music.moicen.com")
        await page.press("#host", "Enter")
        await page.wait_for_selector("#credentials-dialog", state="hidden")

    await sign_in()
    simulator.knob(match="story", text=LONG, gap=0.005)
    await tab.ask("Tell me a story")
    await tab.streaming()
    await page.reload()
    assert await page.input_value("#token") == ""
    await sign_in()  # and the answer goes on
    await tab.ended()
    assert await tab.answer() == LONG
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.click(".turn [aria-label='Copy as curl']")
    line = await page.evaluate("navigator.clipboard.readText()")
    assert '-H "HtySudoerToken: $HTY_TOKEN"' in line
    kept = await page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    html = await page.content()
    assert not [place for place in (line, kept, html) if token in place]
    assert await page.evaluate("indexedDB.databases().then(all => all.length)") == 0


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
async def test_the_page_of_the_first_page_opens_from_another_origin(
    browser: Browser, start_app: Callable[..., RunningApp], simulator: SimControl, tmp_path: Path, name: str
) -> None:
    simulator.knob(text=LONG)
    for module in ("coze-client.js", "coze-stream.js"):
        (tmp_path / module).write_bytes((ROOT / "app/routes/pages" / module).read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(tmp_path))) as files:
        threading.Thread(target=files.serve_forever, name="files of the page").start()
        origin = f"http://127.0.0.1:{files.server_port}"
        service = start_app(CORS_ALLOW_ORIGINS=origin)
        [shown] = blocks(ROOT / name, "html")
        assert shown.text.count("\n") <= 15
        (tmp_path / "index.html").write_text(shown.text.replace(SERVICE, service.base_url), encoding="utf-8")
        page = await browser.new_page()
        try:
            await page.goto(origin)
            await page.wait_for_function("whole => document.body.innerText.trim() === whole", arg=LONG)
        finally:
            await page.close()
            files.shutdown()


LED = """async (elsewhere) => {
  const { CozeClient } = await import('/coze-client.js');
  const { AdminApi } = await import('/admin-api.js');
  const headers = { HtySudoerToken: 'secret' }, code = (error) => error.code;
  const client = new CozeClient({ headers, patienceMs: 2000 });
  const admin = new AdminApi({ headers, signal: new AbortController().signal });
  return Promise.all([client.sessions.get('s').catch(code), client.chats.stream('s', 'hi').catch(code),
    admin.stats().catch(code), admin.cancelChat('c').catch(code)]);
}"""


async def test_no_page_gives_the_token_to_where_a_service_redirects(browser: Browser) -> None:
    page = await browser.new_page()
    with leading(str(ROOT / "app/routes/pages")) as (address, arrived):
        await page.goto(f"{address}/icon.svg")  # no policy of the service's holds this page back
        assert await page.evaluate(LED) == ["UNEXPECTED_ANSWER"] * 4
        await page.close()
    assert arrived == []
