"""The playground as people use it: with mouse, keyboard, telephone; and with an answer that means harm."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support import Client, SimControl, data_of

from .conftest import OpenTab
from .support import LONG, Proxy, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def newest(tab: Tab, api: Client) -> dict[str, Any]:
    """The newest chat of the tab's session, as the service has it."""
    session = await api.session((await tab.memory())["session"])
    chat: dict[str, Any] = max(session["chat_history"], key=lambda each: each["created_at"])
    return chat


async def test_an_answer_appears_as_it_is_written_and_is_the_one_that_is_kept(
    tab: Tab, api: Client, simulator: SimControl
) -> None:
    simulator.knob(match="story", text=LONG, gap=0.003)
    await tab.ask("Tell me a story")
    await tab.streaming()
    assert await tab.page.is_visible("#stop")
    assert len(await tab.answer()) < len(LONG)
    await tab.ended()
    chat = await newest(tab, api)
    assert await tab.answer() == chat["content"] == LONG

    turn = tab.page.locator(".turn").last
    assert await turn.locator(".reasoning").get_attribute("open") is None  # folded
    await turn.locator(".reasoning summary").click()
    assert await turn.locator(".thought").inner_text() == chat["reasoning_content"]
    facts = await turn.locator(".facts").inner_text()
    usage = chat["usage"]
    assert f"{usage['token_count']} tokens" in facts
    assert "first token" in facts
    assert "total" in facts

    asked = await turn.locator(".follow-up").first.inner_text()
    assert [asked, *chat["follow_up_questions"]].count(asked) == 2
    await turn.locator(".follow-up").first.click()
    await tab.page.wait_for_selector(".turn:nth-child(2)")
    await tab.ended()
    assert (await newest(tab, api))["user_message"]["content"] == asked
    current = await tab.page.get_attribute("[aria-current]", "data-session")
    assert current == chat["session_id"]


async def test_sessions_are_opened_listed_left_and_ended(tab: Tab, api: Client) -> None:
    page = tab.page
    for name in ("one", "two"):
        await page.click("#open-new")
        await page.fill("#new-user", "carla")
        await page.fill("#new-bot", "7380000000000000009")
        await page.fill("#new-metadata", f"app = {name}\nkind=test")
        await page.press("#new-bot", "Enter")
        await page.wait_for_selector(f"[data-session][aria-current]:has-text('app={name} kind=test')")
        await tab.ask(f"I am {name}")
        await tab.ended()
    sessions = data_of(await api.get("/coze/users/carla/sessions"))["sessions"]
    assert [each["metadata"]["app"] for each in sessions] == ["two", "one"]
    assert await page.locator("[data-session]").count() == 2
    await page.click("[data-session]:has-text('app=one')")
    await page.wait_for_selector(".question:has-text('I am one')")
    assert "I am one" in await tab.answer()
    await page.click("#end-session")
    await page.click("#end-form .danger")
    await page.wait_for_selector("#welcome:visible")
    await page.wait_for_function("() => document.querySelectorAll('[data-session]').length === 1")
    assert len(data_of(await api.get("/coze/users/carla/sessions"))["sessions"]) == 1


async def test_stop_ends_the_answer_here_and_at_coze(tab: Tab, api: Client, simulator: SimControl) -> None:
    simulator.knob(match="for ever", text=LONG * 20, gap=0.01)
    await tab.ask("Talk for ever")
    await tab.streaming()
    await tab.page.click("#stop")
    await tab.ended("cancelled")
    chat = await newest(tab, api)
    assert chat["status"] == "cancelled"
    assert await tab.answer() == str(chat["content"]).strip()
    assert simulator.requests(path="/v3/chat/cancel")
    await tab.ask("And now?")
    await tab.ended()


async def test_tool_calls_are_shown_and_answered(tab: Tab, api: Client) -> None:
    await tab.ask("[[sim:requires_action=function;tool_calls=2]] weather in Shanghai")
    await tab.page.wait_for_selector(".action")
    assert await tab.page.locator(".action .tool code").all_inner_texts() == ["f", "f2"]
    assert "weather in Shanghai" in await tab.page.locator(".action pre").first.inner_text()
    await tab.page.reload()  # it waits in the session's history, too
    await tab.page.get_by_label("Output of f", exact=True).fill('{"degrees": 21}')
    await tab.page.get_by_label("Output of f2").fill("sunny")
    await tab.page.click(".action [type=submit]")
    await tab.ended()
    assert await tab.page.locator(".action").count() == 0
    chat = await newest(tab, api)
    assert await tab.answer() == chat["content"]
    assert '{"degrees": 21}; sunny' in str(chat["content"])


async def test_a_failed_answer_says_why_and_can_be_asked_again(tab: Tab) -> None:
    await tab.ask("[[sim:fail=4101;times=1]] hello there")
    await tab.ended("failed")
    problem = await tab.page.locator(".turn .problem").inner_text()
    assert "COZE_API_ERROR" in problem
    assert "Coze 4101" in problem
    await tab.page.click(".turn .problem button")
    await tab.page.wait_for_selector(".turn:nth-child(2)")
    await tab.ended()


async def test_raw_events_are_shown_as_they_came(tab: Tab, api: Client) -> None:
    await tab.ask("hello")
    await tab.ended()
    await tab.page.click("#show-events")
    shown = await tab.page.locator("#events .event-name").all_inner_texts()
    chat_id = str((await newest(tab, api))["chat_id"])
    async with api.events(chat_id) as reader:
        names = [event.event.replace("conversation.", "") for event in await reader.all()]
    assert shown == names
    await tab.page.locator("#events summary").first.click()
    assert json.loads(await tab.page.locator("#events pre").first.inner_text())["chat_id"] == chat_id
    await tab.page.reload()
    await tab.page.click("[aria-label='Show raw events']")  # of a chat that this page has not read
    await tab.page.wait_for_function(
        "n => document.querySelectorAll('#events li').length === n", arg=len(names)
    )


async def in_a_shell(line: str) -> str:
    """Its output. Not ``subprocess.run``: the proxy lives in this loop."""
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec("bash", "-c", line, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(20):
        said, _ = await shell.communicate()
    assert shell.returncode == 0
    return said.decode()


async def test_curl_lines_work_in_a_shell_whatever_was_written(tab: Tab, api: Client) -> None:
    words = """it's "quoted" $HOME `id` \\n ! 你好"""
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await tab.ask(words)
    await tab.ended()
    await tab.page.click(".turn [aria-label='Copy as curl']")
    line = await tab.page.evaluate("navigator.clipboard.readText()")
    assert "event: done" in await in_a_shell(line)
    assert (await newest(tab, api))["user_message"]["content"] == words
    await tab.page.click("#session-curl")
    line = await tab.page.evaluate("navigator.clipboard.readText()")
    assert "session created" in await in_a_shell(line)


HARM = """
<script>window.__pwned = 1</script><img src=x onerror="window.__pwned = 2">
<svg onload="window.__pwned = 3"></svg><iframe src="javascript:window.__pwned=4"></iframe>
<base href="http://evil.example/"><meta http-equiv="refresh" content="0;url=http://evil.example/">
<style>body { display: none }</style>
<form action="http://evil.example/"><button class="primary">Log in</button></form>
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.__pwned=5&gt;">

[click](javascript:window.__pwned=6) [data](data:text/html,<script>window.__pwned=7</script>)
[title](https://good.example "a\\" onmouseover=\\"window.__pwned=8") <b onclick="window.__pwned=9">bold</b>
![picture](http://evil.example/pixel.png) <img src="http://evil.example/pixel.png">
[ref]: javascript:window.__pwned=10
[ref] <java\tscript:alert(1)> <https://good.example/"onmouseover="window.__pwned=11>

```"><img src=x onerror=window.__pwned=12>
</code></pre><script>window.__pwned = 13</script>
```

| <img src=x onerror=window.__pwned=14> | b |
|---|---|
| [x](vbscript:window.__pwned=15) | <a href="javascript:window.__pwned=16" class="danger" id="stop">d</a> |

The **end**.
"""


async def test_an_answer_full_of_html_and_scripts_does_nothing(tab: Tab, simulator: SimControl) -> None:
    simulator.knob(match="harm", text=HARM)
    # The same in the question, and so in the reasoning and in the follow-up questions.
    await tab.ask("harm <img src=x onerror=window.__pwned=20><script>window.__pwned=21</script>")
    await tab.ended()
    await tab.page.click(".reasoning summary")
    await tab.page.wait_for_selector("strong:has-text('end')")
    assert "<script>window.__pwned = 1</script>" in await tab.answer()  # seen as what it is
    assert await tab.page.evaluate("window.__pwned") is None
    found = await tab.page.evaluate(
        """[...document.querySelectorAll('#turns *')].flatMap(e => [
          ...(/^(SCRIPT|IFRAME|IMG|FORM|STYLE|BASE|META|OBJECT|EMBED|MATH|INPUT)$/.test(e.nodeName)
            ? [e.outerHTML] : []),
          ...[...e.attributes]
            .filter(a => /^on|^style$|^srcdoc$/.test(a.name) || /script:|^data:/.test(a.value))
            .map(a => `${e.nodeName} ${a.name}=${a.value}`)])"""
    )
    assert found == []
    links = await tab.page.eval_on_selector_all(
        ".answer a[href]", "all => all.map(a => [new URL(a.href).protocol, a.target, a.rel].join(' '))"
    )
    assert set(links) <= {f"{kind}: _blank noopener noreferrer" for kind in ("http", "https")}
    assert len(links) >= 3
    assert await tab.page.locator(".answer .danger, .answer .primary, .answer [id]").count() == 0
    await tab.page.hover("strong:has-text('end')")
    assert tab.url == tab.page.url


async def test_a_telephone_of_320_pixels_scrolls_in_one_direction_only(
    proxy: Proxy, open_tab: OpenTab, simulator: SimControl
) -> None:
    wide = (
        "w" * 300 + "\n\n| a | b |\n|---|---|\n| " + "x" * 80 + " | y |\n\n```python\n" + "z" * 200 + "\n```"
    )
    simulator.knob(match="wide", text=wide)
    small = {"width": 320, "height": 600}
    tab = await open_tab(proxy.base_url, locale="zh-CN", viewport=small, has_touch=True, color_scheme="dark")
    await tab.fits()
    await tab.page.tap("#show-sessions")
    await tab.fits()
    await tab.page.tap("#open-new")
    await tab.fits()
    await tab.page.tap("#new-form [type=submit]")
    await tab.page.wait_for_selector("#session-bar:visible")
    await tab.ask("wide " + "长" * 100 + "W" * 100)
    await tab.ended()
    await tab.fits()
    await tab.ask("[[sim:requires_action=function]] " + "W" * 100)
    await tab.page.wait_for_selector(".action")
    await tab.fits()
    await tab.page.locator("[data-t-label=showEvents]").last.tap()
    await tab.page.wait_for_selector("#events li")
    await tab.fits()


async def test_a_conversation_by_keyboard_alone(tab: Tab, simulator: SimControl) -> None:
    page, press = tab.page, tab.page.keyboard.press
    focused = "document.activeElement.id || document.activeElement.className"
    await press("Tab")
    assert await page.evaluate(focused) == "skip"
    await press("Enter")  # the skip link
    await page.wait_for_function("() => document.activeElement.id === 'message'")
    await page.keyboard.type("first line")
    await press("Shift+Enter")
    await page.keyboard.type("second line")
    await press("Enter")
    await tab.ended()
    assert await page.locator(".question p").inner_text() == "first line\nsecond line"
    assert "complete" in await page.inner_text("#announcer")

    simulator.knob(match="for ever", text=LONG * 20, gap=0.01)
    await page.keyboard.type("for ever")
    await press("Enter")
    await tab.streaming()
    await press("Escape")
    await tab.ended("cancelled")

    await page.focus("#open-new")
    await press("Enter")
    assert await page.evaluate(focused) == "new-user"
    await press("Escape")
    assert await page.evaluate(focused) == "open-new"
    ring = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"


async def test_everything_has_a_name_in_both_languages(proxy: Proxy, open_tab: OpenTab) -> None:
    tab = await open_tab(proxy.base_url, locale="zh-CN")
    await tab.ask("你好")
    await tab.ended()
    page = tab.page
    for language, other in (("zh-CN", "en"), ("en", "zh-CN")):
        assert await page.get_attribute("html", "lang") == language
        for role in ("banner", "navigation", "main"):
            assert await page.get_by_role(role).count() == 1, role
        await page.click("#show-events")
        assert await page.get_by_role("complementary").count() == 1
        await page.click("#hide-events")
        nameless = await page.evaluate(
            """[...document.querySelectorAll('button, input, textarea, summary, nav, main, aside, dialog')]
              .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
                || [...e.labels ?? []].some(label => label.textContent.trim())
                || (e.matches('button, summary') && e.textContent.trim())))
              .map(e => e.outerHTML.slice(0, 120))"""
        )
        assert nameless == []
        body = await page.inner_text("body")
        assert ("新建会话" in body) == (language == "zh-CN")
        await page.click("#language")
        await page.wait_for_selector(f"html[lang={other}]")
    untold = await page.evaluate(
        "import('/coze/playground/strings.js').then(({STRINGS: {zh, en}}) => "
        "[...Object.keys(zh).filter(k => !en[k]), ...Object.keys(en).filter(k => !zh[k])])"
    )
    assert untold == []
