"""What somebody who tries the page first meets: titles, files, formulas, errors that can be acted on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support import Client, SimControl, data_of, wait_until

from .conftest import OpenTab
from .support import LONG, Proxy, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0" * 200
RICH = r"""
3. three
4. four

| left | right |
|:--|--:|
| a | 1 |

Inline $a^2 + b^2 = c^2$ and \(x_1\), a block:

$$\int_0^1 x\,dx = \frac{1}{2}$$

It costs $5 and $10. Not known: $\nothing{$

```python
def f(x):
    return "text"  # a comment
```
"""


async def asked(simulator: SimControl, text: str) -> int:
    return sum(text in request["message"] for request in simulator.requests(path="/v3/chat"))


async def test_two_enters_or_a_double_click_on_the_first_message_ask_once(
    tab: Tab, simulator: SimControl
) -> None:
    await tab.page.fill("#message", "only once please")
    await tab.page.evaluate(
        """() => { for (let i = 0; i < 3; i++) {
          document.querySelector('#message').value ||= 'only once please';
          document.querySelector('#composer').requestSubmit();
        } }"""
    )
    assert await tab.page.locator(".turn").count() == 1  # it is shown before anything was answered
    await tab.ended()
    assert await asked(simulator, "only once please") == 1
    assert len(simulator.requests(path="/v1/conversation/create")) <= 1


async def test_lists_tables_formulas_and_code_look_as_they_were_meant(
    tab: Tab, simulator: SimControl
) -> None:
    simulator.knob(match="rich", text=RICH)
    await tab.ask("rich")
    await tab.ended()
    page = tab.page
    assert await page.get_attribute(".answer ol", "start") == "3"
    align = "e => getComputedStyle(e).textAlign"
    assert await page.locator(".answer td").nth(1).evaluate(align) == "right"
    await page.wait_for_selector(".answer .math-block .katex-display")
    assert await page.locator(".answer .katex").count() == 3
    assert "It costs $5 and $10. Not known: $\\nothing{$" in await tab.answer()
    await page.wait_for_selector(".answer .hl-keyword:text('def')")
    assert await page.inner_text(".answer .hl-comment") == "# a comment"
    fonts = await page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].filter(f => f.status === 'loaded').length)"
    )
    assert fonts > 0, "the policy lets the formulas' fonts in"


async def test_a_session_is_found_by_its_title_and_can_be_renamed(tab: Tab, api: Client) -> None:
    page = tab.page
    for words in ("a trip to Hangzhou", "how to cook rice"):
        await page.click("#open-new")
        await page.click("#new-form [type=submit]")
        await page.wait_for_selector("#welcome:visible")
        await tab.ask(words)
        await tab.ended()
    await page.wait_for_selector("[data-session]:has-text('a trip to Hangzhou')")
    await page.fill("#search", "RICE")
    await page.wait_for_function("() => document.querySelectorAll('[data-session]').length === 1")
    assert "how to cook rice" in await page.inner_text("[data-session]")
    assert await page.inner_text("#session-note") == ""
    await page.fill("#search", "Hangzhou rice")
    await page.wait_for_function("() => !document.querySelector('[data-session]')")
    assert await page.inner_text("#session-note") == "No session fits."
    await page.click("#language")
    assert await page.inner_text("#session-note") == "没有符合的会话。"
    await page.click("#language")
    await page.fill("#search", "")
    await page.wait_for_function("() => document.querySelectorAll('[data-session]').length === 2")
    assert await page.inner_text("#session-note") == ""
    await page.click("#rename-session")
    await page.fill("#rename-title", "dinner")
    await page.click("#rename-form [type=submit]")
    await page.wait_for_selector("[data-session][aria-current]:has-text('dinner')")
    assert await page.inner_text("#session-name") == "dinner"
    titles = {each["title"] for each in data_of(await api.get("/coze/users/demo/sessions"))["sessions"]}
    assert titles == {"dinner", "a trip to Hangzhou"}


async def test_past_conversations_are_gone_on_with_and_deleted(tab: Tab, api: Client) -> None:
    page = tab.page
    await tab.ask("remember the pineapple")
    await tab.ended()

    async def listed() -> Any:
        return data_of(await api.get("/coze/users/demo/conversations"))["conversations"]

    await wait_until(listed)
    await page.click("#end-session")
    await page.click("#end-form .danger")
    await page.click("[data-past]:has-text('pineapple')")
    await page.wait_for_selector(".question:has-text('remember the pineapple')")
    await tab.ask("What did I say before?")
    await tab.ended()
    assert "pineapple" in await tab.answer()
    await page.click("#end-session")
    await page.click("#end-form .danger")
    await page.click(".past-item [data-t-label=deletePast]")
    await page.click("#delete-form .danger")
    await page.wait_for_function("() => !document.querySelector('[data-past]')")
    assert await listed() == []


async def test_the_bot_introduces_itself_and_what_it_suggests_can_be_asked(tab: Tab, api: Client) -> None:
    [bot] = data_of(await api.get("/coze/bots"))["bots"]
    await tab.page.wait_for_selector(f"#welcome h2:has-text('{bot['name']}')")
    assert await tab.page.inner_text("#welcome p") == bot["opening_text"]
    shown = await tab.page.locator("#welcome .follow-up:visible").all_inner_texts()
    assert shown == bot["suggested_questions"]
    await tab.page.click("#welcome .follow-up")
    await tab.ended()


async def test_files_are_picked_sent_and_shown_after_a_reload(tab: Tab, api: Client) -> None:
    page, tab.may_fail = tab.page, True
    await page.set_input_files("#file", {"name": "p.png", "mimeType": "image/png", "buffer": PICTURE})
    await page.wait_for_selector("#files .file:not(.busy):has-text('p.png')")
    await page.set_input_files("#file", {"name": "a.exe", "mimeType": "x/y", "buffer": b"MZ" + b"\0" * 99})
    await page.wait_for_selector("#files .file.failed")  # refused, and says why
    await tab.ask("what is it?")
    await tab.ended()
    await page.reload()
    await page.wait_for_selector(".question .file:has-text('p.png')")
    session = await api.session((await tab.memory())["session"])
    [attachment] = session["chat_history"][0]["user_message"]["attachments"]
    assert attachment["file_name"] == "p.png"


async def test_an_answer_is_liked_and_the_last_message_is_asked_again(
    tab: Tab, simulator: SimControl
) -> None:
    page = tab.page
    await tab.ask("say it again")
    await tab.ended()
    await page.click("[data-t-label=like]")
    await page.wait_for_selector("[data-t-label=like][aria-pressed=true]")
    await page.click("[data-t-label=unlike]")
    await page.wait_for_selector("[data-t-label=unlike][aria-pressed=true]")
    assert await page.get_attribute("[data-t-label=like]", "aria-pressed") == "false"
    await page.click("[data-t-label=again]")
    await page.wait_for_selector(".turn:nth-child(2)")
    await tab.ended()
    assert await asked(simulator, "say it again") == 2
    assert await page.locator("[data-t-label=again]:visible").count() == 1  # of the last one alone


async def test_a_dead_session_offers_a_new_one_and_what_was_written_is_kept(tab: Tab, api: Client) -> None:
    tab.may_fail = True
    await tab.ask("hello")
    await tab.ended()
    await api.delete(f"/coze/sessions/{(await tab.memory())['session']}")
    await tab.ask("the words that must not be lost")
    await tab.page.wait_for_selector(".problem:has-text('COZE_SESSION_TERMINATED')")
    assert await tab.page.input_value("#message") == "the words that must not be lost"
    await tab.page.fill("#message", "")
    await tab.page.click(".problem button")
    await tab.ended()
    assert "the words that must not be lost" in await tab.page.inner_text(".question")
    assert await tab.page.locator(".turn").count() == 1


async def test_a_refusal_names_field_and_limit_in_the_pages_language_and_the_text_stays(
    proxy: Proxy, open_tab: OpenTab
) -> None:
    tab = await open_tab(proxy.base_url, locale="zh-CN")
    tab.may_fail = True
    await tab.ask("x" * 4001)
    await tab.page.wait_for_selector(".problem")
    problem = await tab.page.inner_text(".problem")
    assert "内容不符合要求" in problem
    assert re.search(r"message: at most 4000 characters, 4001 given", problem)
    assert len(await tab.page.input_value("#message")) == 4001


async def test_older_messages_of_a_long_session_are_a_click_away(tab: Tab, api: Client) -> None:
    session_id = await api.open_session("demo")
    for number in range(35):
        await api.send(session_id, f"message {number} [[sim:deltas=1;reasoning=0;followups=0]]")
    await tab.page.click("[data-t-label=loadSessions]")
    await tab.page.click(f"[data-session={session_id}]")
    await tab.page.wait_for_function("() => document.querySelectorAll('.turn').length === 30")
    await tab.page.evaluate("document.querySelector('#scroller').scrollTop = 0")
    await tab.page.click("#earlier")
    await tab.page.wait_for_function("() => document.querySelectorAll('.turn').length === 35")
    assert not await tab.page.is_visible("#earlier")
    assert "message 0" in await tab.page.locator(".question").first.inner_text()
    labels = await tab.page.locator(".turn").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert labels == [f"Chat {number}" for number in range(1, 36)]


async def test_another_width_keeps_the_place_and_another_language_reaches_the_status_line(
    tab: Tab, simulator: SimControl
) -> None:
    simulator.knob(match="story", text=LONG * 4)
    for _ in range(3):
        await tab.ask("story")
        await tab.ended()
    middle = "document.querySelectorAll('.turn')[1]"
    await tab.page.evaluate(f"{middle}.scrollIntoView()")
    await tab.page.wait_for_timeout(100)
    await tab.page.set_viewport_size({"width": 390, "height": 700})
    await tab.page.wait_for_function(
        f"""() => {{ const box = {middle}.getBoundingClientRect();
          return box.top < 500 && box.bottom > 50; }}"""
    )
    simulator.knob(match="slow", text=LONG * 20, gap=0.02)
    await tab.ask("slow")
    await tab.streaming()
    await tab.page.click("#language")
    await tab.page.wait_for_function("() => /接收中/.test(document.querySelector('#connection').textContent)")
    await tab.page.click("#stop")
    await tab.ended("cancelled")


async def test_stop_while_the_connection_is_away_stops_when_it_is_back(
    tab: Tab, proxy: Proxy, api: Client, simulator: SimControl
) -> None:
    tab.may_fail = True
    simulator.knob(match="for ever", text=LONG * 40, gap=0.02)
    await tab.ask("for ever")
    await tab.streaming()
    proxy.refusing = True
    proxy.cut()
    await tab.page.click("#stop")
    await tab.page.wait_for_selector("#connection:has-text('It stops as soon as')")
    proxy.refusing = False
    await tab.ended("cancelled")
