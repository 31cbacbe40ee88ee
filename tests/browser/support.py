"""A proxy that can lose connections, and a page that remembers what went wrong in it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request

from tests.support import bind_free

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SPY = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""
WATCH = """
window.__wrong = [];
new MutationObserver(() => {
  const shown = document.querySelector("#turns > .turn:last-child .answer")?.textContent.trimEnd() ?? "";
  if (!window.__whole.startsWith(shown)) window.__wrong.push(shown);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
"""At every moment what is shown must be the beginning of the answer: a last event that carries the whole
text would heal what was lost or doubled before."""
AWAY = re.compile(r"Failed to load resource: (net::ERR_|the server responded with a status of)")
"""What Chromium itself writes of a request that failed: expected where a test makes it fail."""

LONG = "".join(f"第{number}句🙂 word{number}, " for number in range(1, 41)) + "结束。"
"""An answer in which each part can be told from every other, of characters of one to four bytes."""


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Proxy:
    """TCP in front of one of several replicas. What runs through it can be cut, or just never arrive."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.connections = 0
        self.refusing = False
        self.swallow: bytes | None = None
        """A request that holds this goes through, once; the connection dies in place of its answer."""
        self._listener = bind_free()
        self.port: int = self._listener.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)

    async def stop(self) -> None:
        assert self._server is not None
        self.flow()
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Every connection breaks now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Connections stay, but nothing comes back any more."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.refusing:
                raise ConnectionError
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        mine = {writer, up_writer}
        self._writers |= mine
        swallowed = asyncio.Event()
        ways = [
            asyncio.ensure_future(self._up(reader, up_writer, swallowed)),
            asyncio.ensure_future(self._down(up_reader, writer, swallowed)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in mine:
                each.transport.abort()
            self._writers -= mine

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallowed: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.swallow is not None and self.swallow in data:
                    self.swallow = None
                    swallowed.set()
                writer.write(data)
                await writer.drain()

    async def _down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallowed: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if swallowed.is_set():
                    return  # it has arrived, and is answered; nobody hears the answer
                writer.write(data)
                await writer.drain()


@dataclass
class Tab:
    """The playground in one tab, in the words of somebody who uses it."""

    page: Page
    context: BrowserContext
    url: str
    problems: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    may_fail: bool = False
    """Whether requests may fail: said by tests that make them fail."""

    async def open(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.context.on("request", self._request)
        await self.page.add_init_script(SPY)
        await self.page.goto(self.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (self.may_fail and AWAY.match(message.text)):
            self.problems.append(message.text)

    def _request(self, request: Request) -> None:
        origin = self.url.split("/coze/")[0]
        if not request.url.startswith((origin, "data:")):
            self.foreign.append(request.url)

    async def close(self) -> None:
        """Nothing was blocked, nothing failed, nothing foreign was asked for."""
        violations = await self.page.evaluate("window.__violations")
        await self.context.close()
        assert violations == []
        assert self.problems == []
        assert self.foreign == []

    async def watch(self, whole: str) -> None:
        """From now on, over reloads too."""
        script = f"window.__whole = {json.dumps(whole)};{WATCH}"
        await self.page.add_init_script(script)
        await self.page.evaluate(f"() => {{ {script} }}")

    async def ask(self, text: str) -> None:
        await self.page.fill("#message", text)
        if await self.page.evaluate("matchMedia('(hover: none) and (pointer: coarse)').matches"):
            await self.page.tap("#send")  # Enter is a line break there
        else:
            await self.page.press("#message", "Enter")

    async def ended(self, status: str = "completed") -> None:
        """The newest answer is over, and how."""
        selector = "#turns > .turn:last-child:not([data-status=running])"
        await self.page.wait_for_selector(selector)
        assert await self.page.get_attribute(selector, "data-status") == status, await self.problem()

    async def streaming(self, characters: int = 40) -> None:
        """The newest answer has begun to appear, and is not over."""
        await self.page.wait_for_function(
            "n => document.querySelector('.turn[data-status=running] .answer')?.textContent.length > n",
            arg=characters,
        )

    async def answer(self) -> str:
        text: str = await self.page.inner_text("#turns > .turn:last-child .answer")
        return text

    async def problem(self) -> str:
        found = await self.page.query_selector_all(".problem:visible, #connection")
        return " | ".join([await each.inner_text() for each in found])

    async def memory(self) -> dict[str, Any]:
        """What the tab keeps over a reload."""
        kept: dict[str, Any] = await self.page.evaluate(
            "JSON.parse(sessionStorage.getItem('coze-playground'))"
        )
        return kept

    async def sign_in(self, headers: dict[str, str]) -> None:
        """In the dialog for credentials, which is open."""
        await self.page.fill("#token", headers["HtySudoerToken"])
        await self.page.fill("#host", headers["HtyHost"])
        await self.page.click("#credentials-form [type=submit]")

    async def fits(self) -> None:
        """Nothing is wider than the window."""
        wide = await self.page.evaluate(
            "[document.documentElement, document.body, document.querySelector('#scroller')]"
            ".filter(e => e.scrollWidth > e.clientWidth).map(e => `${e.tagName} ${e.scrollWidth}`)"
        )
        assert wide == []
