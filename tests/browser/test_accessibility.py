"""axe-core finds nothing wrong with the playground and the console, whatever state they are in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.security.helpers import ADMIN, ALICE
from tests.support import Client, ServiceProcess, SimControl, data_of, wait_until

from .conftest import Office, OpenTab
from .support import LONG, Proxy, Tab
from .test_console import confirm, fail, look_up, says
from .test_front_end import PICTURE, RICH

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
RUN = """async () => {
  const {violations} = await axe.run(document, {
    resultTypes: ["violations"],
    preload: false, // all styles are the service's own
    rules: {"target-size": {enabled: true}}, // 24 pixels; off by default
  });
  return violations.map(({id, nodes: [{html, failureSummary}], nodes: {length}}) =>
    `${id}: ${length} times, first ${html.slice(0, 160)} ${failureSummary.replace(/\\s+/g, " ")}`);
}"""
"""All rules, best practices too."""

Look = tuple[str, Literal["light", "dark"], int]
"""Language, colours, width."""

FOUR: list[Look] = [
    ("zh-CN", "light", 1280),
    ("zh-CN", "dark", 390),
    ("en", "light", 390),
    ("en", "dark", 1280),
]
"""Any two of language, colours and width meet once."""
THE_OTHERS: list[Look] = [
    ("zh-CN", "dark", 1280),
    ("zh-CN", "light", 390),
    ("en", "dark", 390),
    ("en", "light", 1280),
]


@dataclass
class Eye:
    """Looks at one tab, and remembers what is wrong with it."""

    tab: Tab
    looks: list[Look]
    found: list[str] = field(default_factory=list)

    async def look(self, state: str) -> None:
        page = self.tab.page
        if not await page.evaluate("'axe' in window"):
            await page.evaluate(AXE)
        for language, colours, width in self.looks:
            await page.set_viewport_size({"width": width, "height": 800})
            # Without movement nothing is half transparent.
            await page.emulate_media(color_scheme=colours, reduced_motion="reduce")
            if await page.get_attribute("html", "lang") != language:
                await page.evaluate("document.querySelector('#language').click()")  # under a dialog, too
            await page.evaluate("scrollTo(0, 0)")  # what the bar covers at this moment is as large as it is
            for fault in await page.evaluate(RUN):
                self.found.append(f"{state}, {language}, {colours}, {width}: {fault}")
        await page.set_viewport_size({"width": 1280, "height": 800})

    async def dialog(self, name: str, button: str) -> None:
        """One that the button opens; it is left without doing anything."""
        page = self.tab.page
        await page.click(button)
        await page.wait_for_selector(f"#{name}[open]")
        await self.look(name)
        await page.keyboard.press("Escape")
        await page.wait_for_selector(f"#{name}:not([open])", state="attached")

    def saw_nothing_wrong(self) -> None:
        assert self.found == []


@pytest.fixture(
    params=[pytest.param(FOUR, id="four"), pytest.param(THE_OTHERS, id="others", marks=pytest.mark.full)]
)
def looks(request: pytest.FixtureRequest) -> list[Look]:
    """All eight with ``--full``."""
    found: list[Look] = request.param
    return found


async def english(tab: Tab) -> bool:
    return await tab.page.get_attribute("html", "lang") == "en"


async def test_it_finds_what_is_wrong(tab: Tab) -> None:
    await tab.page.evaluate("document.querySelector('#attach').removeAttribute('aria-label')")
    await tab.page.evaluate("document.querySelector('#attach').removeAttribute('title')")
    await tab.page.evaluate(AXE)
    found = await tab.page.evaluate(RUN)
    assert [fault.split(":")[0] for fault in found] == ["button-name"]


async def test_before_anything_is_known(
    secured: ServiceProcess, open_tab: OpenTab, looks: list[Look]
) -> None:
    tab = await open_tab(secured.base_url, locale="zh-CN")
    tab.may_fail = True
    eye = Eye(tab, looks)
    await tab.page.wait_for_selector("#credentials-said:visible:has-text('AUTH_MISSING')")
    await eye.look("who are you?")
    await tab.page.keyboard.press("Escape")
    await tab.page.wait_for_selector("#credentials-dialog:not([open])", state="attached")
    await tab.page.wait_for_selector("#welcome [data-t=welcomeText]")  # it knows of no bot
    await eye.look("empty")
    eye.saw_nothing_wrong()


async def test_while_and_after_an_answer(
    tab: Tab, proxy: Proxy, simulator: SimControl, looks: list[Look]
) -> None:
    tab.may_fail = True
    page, eye = tab.page, Eye(tab, looks)
    await page.wait_for_selector("#welcome .follow-up:visible")
    await eye.look("the bot's opening")

    await page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": PICTURE})
    await page.set_input_files("#file", {"name": "a.exe", "mimeType": "x/y", "buffer": b"MZ" + b"\0" * 99})
    await page.wait_for_selector("#files .file.failed")
    await page.wait_for_selector("#files .file:not(.busy):has-text('p.png')")
    await eye.look("files, one of them refused")

    simulator.knob(match="rich", text=RICH + "\n![a map](https://example.com/map.png)", plugin=True)
    await tab.ask("rich")
    await tab.ended()
    await page.wait_for_selector(".answer .katex-display")
    await page.wait_for_selector(".answer .hl-keyword")
    for summary in await page.query_selector_all(".turn summary"):
        await summary.click()
    await eye.look("an answer with table, formula, code, image and plug-in")

    simulator.knob(match="slow", text=LONG * 4, gap=0.3)
    await tab.ask("slow")
    await tab.streaming(0)
    await eye.look("an answer that is being written")
    proxy.refusing = True
    proxy.cut()
    await page.wait_for_selector("#connection[data-kind=bad]")
    await eye.look("no connection")
    proxy.refusing = False
    await page.click("#stop")
    await tab.ended("cancelled")
    eye.saw_nothing_wrong()


async def test_where_it_does_not_go_on(tab: Tab, api: Client, looks: list[Look]) -> None:
    tab.may_fail = True
    page, eye = tab.page, Eye(tab, looks)
    await tab.ask("[[sim:requires_action=function;tool_calls=2]] weather in Shanghai")
    await page.wait_for_selector(".action")
    await eye.look("tools are waited for")
    await page.click(".action .plain")
    await page.wait_for_selector(
        ".turn[data-status=cancelled]"
    )  # until then it waits for tools, and does not run
    await tab.ask("[[sim:fail=4101]] hello there")
    await tab.ended("failed")
    await eye.look("an answer that failed")
    await api.delete(f"/coze/sessions/{(await tab.memory())['session']}")
    await tab.ask("are you there?")
    await page.wait_for_selector(".problem:has-text('COZE_SESSION_TERMINATED')")
    await eye.look("a session that is over")
    eye.saw_nothing_wrong()


async def test_lists_panels_and_dialogs(tab: Tab, api: Client, looks: list[Look]) -> None:
    page, eye = tab.page, Eye(tab, looks)

    async def past() -> Any:
        return data_of(await api.get("/coze/users/demo/conversations"))["conversations"]

    await tab.ask("hello")
    await tab.ended()
    await page.click("#show-events")
    await page.click("#events summary")
    await page.wait_for_selector("#events pre")
    await eye.look("raw events")
    await page.click("#hide-events")
    await eye.dialog("rename-dialog", "#rename-session")
    await eye.dialog("end-dialog", "#end-session")
    await eye.dialog("new-dialog", "#open-new")
    await eye.dialog("credentials-dialog", "#show-credentials")

    await wait_until(past)
    await page.click("#end-session")
    await page.click("#end-form .danger")
    await page.wait_for_selector("[data-past]")
    await tab.ask("something new")
    await tab.ended()
    await page.wait_for_selector("[data-session][aria-current]")
    await eye.dialog("delete-dialog", ".past-item [data-t-label=deletePast]")
    await page.evaluate("document.querySelector('#show-sessions').click()")  # counts on the telephone alone
    await eye.look("sessions, and past conversations")
    await page.fill("#search", "nothing of this name")
    await eye.look("no session is found")
    eye.saw_nothing_wrong()


async def test_the_console_before_anything_is_known(office: Office, looks: list[Look]) -> None:
    tab = await office.page()
    eye = Eye(tab, looks)
    await tab.page.wait_for_selector("#credentials-said:visible:has-text('AUTH_MISSING')")
    await eye.look("console: who are you?")
    await tab.page.keyboard.press("Escape")
    await says(tab, "with the key at the top" if await english(tab) else "点右上角的钥匙", "bad")
    await eye.look("console: what to do without credentials")
    await tab.page.click("#show-credentials")
    await tab.sign_in(ALICE.headers(office.auth))
    await says(tab, "AUTH_FORBIDDEN", "bad")
    await eye.look("console: no administrator")
    await tab.page.click("#show-credentials")
    await tab.sign_in(ADMIN.headers(office.auth))
    await tab.page.wait_for_selector("#failures .none, #failures p")
    await eye.look("console: nothing has happened")
    eye.saw_nothing_wrong()


async def test_the_console_of_a_service_at_work(office: Office, looks: list[Look]) -> None:
    alice = await office.caller(ALICE)
    for n in range(9):
        session_id = await alice.open_session(f"user {n}", bot_id=f"738000000000000000{n % 2}")
        await alice.send(session_id, "word " * (n + 1))
    chat = await fail(alice)
    running = await alice.start(session_id, "[[sim:delay=100]] slow")
    async with alice.events(running) as reader:
        await reader.until("conversation.chat.in_progress")
        tab = await office.console()
        page, eye = tab.page, Eye(tab, looks)
        await page.wait_for_selector("#failures tbody tr")
        await page.wait_for_selector("#chart canvas")
        await eye.look("console: overview and failures")
        await page.select_option("#stacked-by", "user")
        await page.wait_for_selector("#legend li:nth-child(8)")
        await page.hover("#chart .u-over", position={"x": 5, "y": 50})
        await page.click("#usage-details summary")
        await page.wait_for_selector("#usage-table tbody tr")
        await eye.look("console: usage by user, and as a table")
        await look_up(tab, session_id)
        await page.wait_for_selector(f"[data-chat={running}]")
        await eye.look("console: a session by its id")
        await page.click(f"[data-chat={running}]")
        await page.wait_for_selector("#sure-dialog[open]")
        await eye.look("console: are you sure?")
        await confirm(tab)
        await page.wait_for_selector("#status[data-kind=good]")
        await eye.look("console: it was cancelled")
    await page.click("#failures tbody button")
    await page.wait_for_function(
        f"() => document.querySelector('#session-id').value === '{chat['session_id']}'"
    )
    await page.wait_for_selector("#session .facts")
    await eye.look("console: the session of a failure")
    await look_up(tab, "coze_session_of_nobody")
    await says(tab, "COZE_SESSION_NOT_FOUND", "bad")
    await eye.look("console: an error")
    eye.saw_nothing_wrong()
