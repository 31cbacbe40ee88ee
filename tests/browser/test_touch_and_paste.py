"""Hands and what they hold: Enter on a telephone and on a keyboard, room for a finger, files that are pasted
or dropped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.support import Client, SimControl, data_of, wait_until

from .conftest import OpenTab
from .support import LONG, Proxy, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

TELEPHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A picture of one dot, which a clipboard takes for one."""
SMALLEST = 24
"""What WCAG 2.2 asks of a target, in CSS pixels (2.5.8)."""


async def sent_with(api: Client, tab: Tab) -> list[dict[str, Any]]:
    """The files of the newest message, as the service has them."""
    session = await api.session((await tab.memory())["session"])
    newest = max(session["chat_history"], key=lambda each: each["created_at"])
    attachments: list[dict[str, Any]] = newest["user_message"]["attachments"]
    return attachments


async def test_a_picture_pasted_into_the_text_is_uploaded_and_sent_with_it(
    tab: Tab, api: Client, simulator: SimControl
) -> None:
    page = tab.page
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate(
        """async (dot) => {
          const bytes = Uint8Array.from(atob(dot), (each) => each.charCodeAt(0));
          const picture = new Blob([bytes], {type: "image/png"});
          await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
        }""",
        DOT,
    )
    await page.fill("#message", "what is on it?")
    await page.press("#message", "Control+v")
    await page.wait_for_selector("#files .file:not(.busy):not(.failed) img[src^='data:image/png']")
    assert await page.input_value("#message") == "what is on it?"
    await page.press("#message", "Enter")
    await tab.ended()
    assert await page.is_visible(".question .file img")
    assert await page.is_hidden("#files")
    [sent] = await sent_with(api, tab)
    assert sent["type"] == "image"
    assert len(simulator.requests(path="/v1/files/upload")) == 1


async def test_a_text_that_is_pasted_stays_a_text(tab: Tab, simulator: SimControl) -> None:
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await tab.page.evaluate("navigator.clipboard.writeText('one\\ntwo')")
    await tab.page.press("#message", "Control+v")
    await tab.page.wait_for_function("() => document.querySelector('#message').value === 'one\\ntwo'")
    assert await tab.page.is_hidden("#files")
    assert simulator.requests(path="/v1/files/upload") == []


async def test_from_a_table_that_is_pasted_the_text_is_taken_and_not_its_picture(
    tab: Tab, simulator: SimControl
) -> None:
    """A spreadsheet puts the cells on the clipboard as text, as HTML and as a picture of them."""
    await tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await tab.page.evaluate(
        """async (dot) => {
          const bytes = Uint8Array.from(atob(dot), (each) => each.charCodeAt(0));
          await navigator.clipboard.write([new ClipboardItem({
            "text/plain": new Blob(["name\\tcount\\npears\\t7"], {type: "text/plain"}),
            "text/html": new Blob(["<table><tr><td>name<td>count</table>"], {type: "text/html"}),
            "image/png": new Blob([bytes], {type: "image/png"}),
          })]);
        }""",
        DOT,
    )
    await tab.page.evaluate(
        "() => document.querySelector('#message').addEventListener('paste', (event) => {"
        " window.__files = event.clipboardData.files.length; })"
    )
    await tab.page.press("#message", "Control+v")
    await tab.page.wait_for_function("() => window.__files !== undefined")
    assert await tab.page.evaluate("window.__files") == 1, "the clipboard holds both"
    assert await tab.page.input_value("#message") == "name\tcount\npears\t7"
    assert await tab.page.is_hidden("#files")
    assert simulator.requests(path="/v1/files/upload") == []


async def drop(tab: Tab, path: Path, onto: str) -> None:
    """As the desktop hands a file over: the page gets no say before it is there."""
    box = await tab.page.locator(onto).bounding_box()
    assert box is not None
    devtools = await tab.context.new_cdp_session(tab.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        await devtools.send(
            "Input.dispatchDragEvent",
            {
                "type": kind,
                "x": box["x"] + box["width"] / 2,
                "y": box["y"] + box["height"] / 2,
                "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1},
            },
        )


@pytest.mark.parametrize("place", ["#scroller", "#message", "#sessions", ".bar"])
async def test_a_file_dropped_anywhere_on_the_page_is_uploaded_and_sent_with_the_message(
    tab: Tab, api: Client, simulator: SimControl, tmp_path: Path, place: str
) -> None:
    picture = tmp_path / "dropped.png"
    picture.write_bytes(base64.b64decode(DOT))
    await tab.page.fill("#message", "look at this")
    await drop(tab, picture, place)
    await tab.page.wait_for_selector("#files .file:not(.busy):not(.failed):has-text('dropped.png')")
    assert tab.page.url == tab.url, "the browser has not gone to the file"
    await tab.page.press("#message", "Enter")
    await tab.ended()
    [sent] = await sent_with(api, tab)
    assert (sent["file_name"], sent["type"]) == ("dropped.png", "image")
    assert len(simulator.requests(path="/v1/files/upload")) == 1


async def test_on_a_telephone_enter_is_a_line_break_and_the_button_sends(
    proxy: Proxy, open_tab: OpenTab, simulator: SimControl
) -> None:
    tab = await open_tab(proxy.base_url, locale="zh-CN", **TELEPHONE)
    page = tab.page
    assert await page.get_attribute("#message", "placeholder") == "输入消息"  # nothing of Enter
    await page.tap("#message")
    await page.keyboard.type("第一行")
    await page.keyboard.press("Enter")
    await page.keyboard.type("第二行")
    assert await page.input_value("#message") == "第一行\n第二行"
    assert await page.locator(".turn").count() == 0
    await page.tap("#send")
    await tab.ended()
    assert await page.inner_text(".question p") == "第一行\n第二行"
    [asked] = simulator.requests(path="/v3/chat")
    assert asked["message"] == "第一行\n第二行"


@pytest.mark.parametrize("opened", [False, True], ids=["opened by the message", "opened before"])
async def test_on_a_telephone_the_first_message_is_the_title_while_it_is_being_answered(
    proxy: Proxy, open_tab: OpenTab, api: Client, simulator: SimControl, opened: bool
) -> None:
    simulator.knob(match="周末", text=LONG, gap=0.3)
    tab = await open_tab(proxy.base_url, locale="zh-CN", **TELEPHONE)
    page = tab.page
    if opened:
        await page.tap("#show-sessions")
        await page.tap("#open-new")
        await page.tap("#new-form [type=submit]")
        await page.wait_for_selector("[data-session]", state="attached")
    await tab.ask("周末去哪里\n玩好？")
    await tab.streaming(0)
    assert await page.inner_text("#session-name") == "周末去哪里 玩好？"
    session = await api.session((await tab.memory())["session"])
    assert session["title"] == "周末去哪里 玩好？", "as the service calls it"
    await page.tap("#show-sessions")
    await page.wait_for_selector("[data-session]:has-text('周末去哪里 玩好？')")
    await page.tap("#hide-sessions")
    await page.tap("#stop")
    await tab.ended("cancelled")


async def test_on_a_desktop_enter_sends_and_shift_with_it_is_a_line_break(
    tab: Tab, simulator: SimControl
) -> None:
    page = tab.page
    assert "Enter" in str(await page.get_attribute("#message", "placeholder"))
    await page.click("#message")
    await page.keyboard.type("first")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("second")
    assert await page.input_value("#message") == "first\nsecond"
    assert await page.locator(".turn").count() == 0
    await page.keyboard.press("Enter")
    await tab.ended()
    assert await page.input_value("#message") == ""
    [asked] = simulator.requests(path="/v3/chat")
    assert asked["message"] == "first\nsecond"


async def targets(tab: Tab, place: str) -> list[tuple[str, float, float]]:
    """Name, width and height of what can be tapped there."""
    found: list[tuple[str, float, float]] = await tab.page.evaluate(
        """(place) => [...document.querySelectorAll(`${place} :is(button, input, textarea, summary)`)]
          .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.matches('.offscreen'))
          .map(e => [e, e.getBoundingClientRect()])
          .map(([e, box]) => [e.id || e.ariaLabel || e.textContent, box.width, box.height])""",
        place,
    )
    return found


async def test_on_a_telephone_all_that_can_be_tapped_is_large_enough_for_a_finger(
    proxy: Proxy, open_tab: OpenTab, api: Client
) -> None:
    tab = await open_tab(proxy.base_url, **TELEPHONE)
    page = tab.page

    async def large_enough(place: str, *names: str) -> None:
        found = await targets(tab, place)
        assert {*names} - {name for name, *_ in found} == set(), "what is to be measured is there"
        assert [each for each in found if min(each[1:]) < SMALLEST] == []

    async def past() -> Any:
        return data_of(await api.get("/coze/users/demo/conversations"))["conversations"]

    await tab.ask("[[sim:plugin=1]] an answer with all its buttons")
    await tab.ended()
    await page.set_input_files(
        "#file", {"name": "a.png", "mimeType": "image/png", "buffer": base64.b64decode(DOT)}
    )
    await page.wait_for_selector("#files .file:not(.busy)")
    await large_enough(
        ".turn", "Like", "Dislike", "Copy answer", "Copy as curl", "Show raw events", "Reasoning"
    )
    await large_enough("#composer", "attach", "message", "send", "Remove")
    await large_enough(".bar", "show-sessions", "language", "show-credentials", "show-events")
    await large_enough("#session-bar", "rename-session", "session-curl", "end-session")
    await page.tap(".turn [aria-label='Show raw events']")
    await page.wait_for_selector("#events li")
    await large_enough("#events", "events-curl", "hide-events")
    assert await page.locator("#events summary").count() > 3
    await page.tap("#hide-events")

    await wait_until(past)
    await page.tap("#end-session")
    await large_enough("#end-dialog", "Cancel", "End session")
    await page.tap("#end-form .danger")
    await page.tap("#show-sessions")
    await page.wait_for_selector("[data-past]:visible")
    await page.tap("#open-new")
    await large_enough("#new-dialog", "new-user", "Cancel", "Create")
    await page.tap("#new-form [type=submit]")
    await page.tap("#show-sessions")
    await page.wait_for_selector("[data-session]:visible")
    await large_enough("#sessions", "hide-sessions", "user", "open-new", "search", "Delete conversation")
