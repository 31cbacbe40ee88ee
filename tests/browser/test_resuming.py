"""Whatever happens to the connection, the page or a replica: not a character is lost or doubled."""

from __future__ import annotations

import random
from functools import partial

import pytest

from tests.support import Client, ServiceProcess, SimControl, open_client, wait_until

from .conftest import OpenTab
from .support import LONG, Proxy, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def begin(tab: Tab, simulator: SimControl, *, text: str = LONG, gap: float = 0.005) -> None:
    """A long answer that has begun to appear."""
    tab.may_fail = True
    await tab.watch(text)
    simulator.knob(match="story", text=text, gap=gap)
    await tab.ask("Tell me a story")
    await tab.streaming()


async def check(tab: Tab, api: Client, simulator: SimControl, *, text: str = LONG) -> None:
    """The whole answer is shown, once; it is the one that is kept, and was asked for once."""
    await tab.ended()
    [chat] = (await api.session((await tab.memory())["session"]))["chat_history"]
    assert await tab.answer() == chat["content"] == text
    assert await tab.page.evaluate("window.__wrong ?? []") == []
    assert len(simulator.requests(path="/v3/chat", contains="story")) == 1


async def test_offline_in_mid_answer_shows_itself_and_goes_on_when_back(
    tab: Tab, api: Client, simulator: SimControl
) -> None:
    await begin(tab, simulator)
    await tab.context.set_offline(True)
    await tab.page.wait_for_selector("#connection[data-kind=bad]")
    assert "Connection lost" in await tab.page.inner_text("#connection")
    seen = await tab.answer()
    assert LONG.startswith(seen.strip())
    assert len(seen) < len(LONG)
    await tab.context.set_offline(False)
    await check(tab, api, simulator)
    assert "resumed 1×" in await tab.page.inner_text(".facts")
    assert await tab.page.inner_text("#connection") == ""


async def test_reload_in_mid_answer_goes_on(tab: Tab, api: Client, simulator: SimControl) -> None:
    await begin(tab, simulator)
    await tab.page.reload()
    await tab.streaming(1)
    await check(tab, api, simulator)
    assert await tab.page.locator(".turn").count() == 1


async def test_a_message_whose_answer_never_came_is_sent_again_and_asked_once(
    tab: Tab, api: Client, simulator: SimControl, proxy: Proxy
) -> None:
    tab.may_fail = True
    simulator.knob(match="story", text=LONG)
    proxy.swallow = b"Tell me a story"
    await tab.ask("Tell me a story")
    await check(tab, api, simulator)
    assert proxy.swallow is None


async def test_a_reload_before_the_chat_has_an_id_asks_once(
    tab: Tab, api: Client, simulator: SimControl, proxy: Proxy
) -> None:
    tab.may_fail = True
    simulator.knob(match="story", text=LONG)
    await tab.page.click("#open-new")
    await tab.page.press("#new-user", "Enter")
    await tab.page.wait_for_selector("#session-bar:visible")
    proxy.stall()
    await tab.ask("Tell me a story")
    await wait_until(lambda: simulator.requests(path="/v3/chat", contains="story"))
    assert (await tab.memory())["pending"] is not None
    proxy.cut()
    proxy.flow()
    await tab.page.reload()
    await check(tab, api, simulator)
    assert (await tab.memory())["pending"] is None


async def test_tool_outputs_whose_answer_never_came_are_given_once(
    tab: Tab, api: Client, simulator: SimControl, proxy: Proxy
) -> None:
    tab.may_fail = True
    await tab.ask("[[sim:requires_action=function]] weather")
    await tab.page.fill(".action textarea", "a sunny day")
    proxy.swallow = b"a sunny day"
    await tab.page.click(".action [type=submit]")
    await tab.ended()
    assert "a sunny day" in await tab.answer()
    assert len(simulator.requests(path="/v3/chat/submit_tool_outputs")) == 1


@pytest.mark.full
async def test_another_session_can_be_looked_at_while_an_answer_goes_on(
    tab: Tab, api: Client, simulator: SimControl
) -> None:
    await begin(tab, simulator)
    story = (await tab.memory())["session"]
    await tab.page.click("#open-new")
    await tab.page.press("#new-user", "Enter")
    await tab.page.wait_for_selector("#welcome:visible")
    await tab.page.click(f"[data-session='{story}']")
    await tab.page.wait_for_selector(".turn")
    await check(tab, api, simulator)


async def test_a_replica_is_killed_in_mid_answer_and_the_other_goes_on(
    tab: Tab, simulator: SimControl, proxy: Proxy, pair: list[ServiceProcess]
) -> None:
    await begin(tab, simulator)
    proxy.target = pair[1].port
    pair[0].kill()
    async with open_client(pair[1].base_url) as other:
        await check(tab, other, simulator)
    assert "recovered" in await tab.page.inner_text(".facts")
    await tab.page.click("#show-events")
    assert await tab.page.locator(".event-name:has-text('snapshot')").count() >= 1


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6))
async def test_connections_cut_again_and_again_lose_and_double_nothing(
    proxy: Proxy,
    open_tab: OpenTab,
    api: Client,
    simulator: SimControl,
    pair: list[ServiceProcess],
    seed: int,
) -> None:
    dice = random.Random(seed)
    tab = await open_tab(proxy.base_url)
    text = LONG * 4
    await begin(tab, simulator, text=text, gap=0.01)
    for _ in range(8):
        await wait_until(partial(_grown, tab, len(await tab.answer()) + dice.randrange(40)), 15)
        if not await tab.page.is_visible("#stop"):
            break
        what = dice.choice(["cut", "cut", "offline", "reload", "other", "refuse"])
        if what == "cut":
            proxy.cut()
        elif what == "offline":
            await tab.context.set_offline(True)
            await tab.page.wait_for_selector("#connection[data-kind=bad]")
            await tab.context.set_offline(False)
        elif what == "reload":
            await tab.page.reload()
            await tab.streaming(1)
        elif what == "other":
            proxy.target = dice.choice(pair).port
            proxy.cut()
        else:
            proxy.refusing = True
            proxy.cut()
            await tab.page.wait_for_selector("#connection[data-kind=bad]")
            proxy.refusing = False
    await check(tab, api, simulator, text=text)


async def _grown(tab: Tab, length: int) -> bool:
    return len(await tab.answer()) > length or not await tab.page.is_visible("#stop")
