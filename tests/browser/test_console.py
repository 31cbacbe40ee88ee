"""The console as an administrator uses it, in front of a service that asks who calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Request

from tests.security.helpers import ADMIN, ADMIN_ELSEWHERE, ALICE, ALICE_ELSEWHERE
from tests.support import Client, RedisServer, SimControl, data_of

from .conftest import Office
from .support import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def look_up(tab: Tab, session_id: str) -> None:
    await tab.page.fill("#session-id", session_id)
    await tab.page.click("#session-form [type=submit]")


async def confirm(tab: Tab) -> None:
    await tab.page.wait_for_selector("#sure-dialog[open]")
    await tab.page.click("#sure-yes")


async def says(tab: Tab, text: str, kind: str) -> None:
    await tab.page.wait_for_selector(f"#status[data-kind={kind}]:has-text('{text}')")


async def tile(tab: Tab, name: str) -> str:
    return await tab.page.inner_text(f"[data-tile={name}] dd")


async def fail(client: Client, user_id: str = "u-1") -> dict[str, Any]:
    session_id = await client.open_session(user_id)
    return await client.ended(await client.start(session_id, "[[sim:fail=4101]] hello"))


async def test_the_token_is_in_memory_alone_and_goes_to_the_admin_s_routes_alone(office: Office) -> None:
    headers = ADMIN.headers(office.auth)
    seen: list[Request] = []
    tab = await office.page()

    def see(request: Request) -> None:
        seen.append(request)

    tab.context.on("request", see)
    await tab.sign_in(headers)
    await tab.page.wait_for_selector("[data-tile=running]")
    await tab.page.select_option("#stacked-by", "user")
    await tab.page.click("#language")
    await tab.page.wait_for_selector("html[lang=zh-CN]")
    token = headers["HtySudoerToken"]
    kept = await tab.page.evaluate(
        "async () => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href,"
        " history.state, (await indexedDB.databases()).length, (await caches.keys()).length,"
        " document.documentElement.outerHTML, [...document.querySelectorAll('input')].map(e => e.value)])"
    )
    assert token not in kept
    assert json.loads(kept)[:3] == [{}, {}, ""]
    with_token = [each for each in seen if "htysudoertoken" in each.headers]
    assert len(with_token) >= 3
    for each in seen:
        assert token not in each.url
        assert each in with_token or token not in str(each.headers)
    prefix = f"{office.base_url}/coze/admin/"
    assert [each.url for each in with_token if not each.url.startswith(prefix)] == []
    await tab.page.reload()
    await tab.page.wait_for_selector("#credentials-dialog[open]")  # it has to be entered again


async def test_who_is_no_admin_is_told_so_and_shown_nothing(office: Office) -> None:
    tab = await office.page()
    await tab.sign_in(ALICE.headers(office.auth))
    await says(tab, "AUTH_FORBIDDEN", "bad")
    assert await tab.page.locator("[data-tile], tbody tr, #legend li").count() == 0
    await tab.page.click("#show-credentials")
    await tab.sign_in(ADMIN.headers(office.auth))
    await tab.page.wait_for_selector("[data-tile=running]")


async def test_it_shows_what_runs_now_who_runs_it_and_with_which_credentials(office: Office) -> None:
    alice = await office.caller(ALICE)
    session_id = await alice.open_session()
    running = await alice.start(session_id, "[[sim:delay=100]] slow")
    await alice.send(session_id, "next", on_busy="enqueue", headers={"Prefer": "respond-async"})
    async with alice.events(running) as reader:
        await reader.until("conversation.chat.in_progress")
        tab = await office.console()
        assert [await tile(tab, name) for name in ("running", "queued", "waiting", "streams")] == [
            *("1", "1", "0", "1")
        ]
        stats = data_of(await (await office.caller(ADMIN)).get("/coze/admin/stats"))
        rows = await tab.page.locator("#replicas tbody tr").all_inner_texts()
        assert stats["process"]["running_chats"] == 1
        replicas = stats["replicas"]
        assert len(rows) >= len(replicas) > 0, "and those that have just ended"
        for each in replicas:
            [row] = [row for row in rows if each["process"][:8] in row]
            assert each["version"] in row
        shown = await tab.page.locator("#coze-credentials tbody tr").all_inner_texts()
        assert [each["name"] in row for each, row in zip(stats["credentials"], shown, strict=True)] == [True]
        assert "ready" in shown[0]
    await alice.delete(f"/coze/sessions/{session_id}")
    await tab.page.wait_for_function(  # by itself, some seconds later
        "() => document.querySelector('[data-tile=running] dd').textContent === '0'", timeout=20_000
    )


async def test_a_failure_leads_to_its_session(office: Office) -> None:
    alice, elsewhere = await office.caller(ALICE), await office.caller(ALICE_ELSEWHERE)
    chat = await fail(alice)
    await fail(elsewhere)
    tab = await office.console()
    row = tab.page.locator("#failures tbody tr")
    await row.first.wait_for()
    assert await row.count() == 1, "one of another root is not shown"
    text = await row.inner_text()
    for part in ("COZE_API_ERROR", "4101", chat["error"]["logid"], chat["error"]["hint"]):
        assert part in text
    await row.locator("button").click()
    await tab.page.wait_for_selector("#session .facts")
    assert await tab.page.input_value("#session-id") == chat["session_id"]
    shown = await tab.page.inner_text("#session")
    assert chat["chat_id"][-12:] in shown
    assert "hello" not in await tab.page.inner_text("body"), "what was said is not shown"


async def test_a_chat_is_cancelled_and_a_session_ended_after_a_question(
    office: Office, simulator: SimControl
) -> None:
    alice = await office.caller(ALICE)
    session_id = await alice.open_session()
    chat_id = await alice.start(session_id, "[[sim:delay=100]] slow")
    tab = await office.console()
    await look_up(tab, session_id)
    cancel = tab.page.locator(f"[data-chat={chat_id}]")
    await cancel.click()
    await tab.page.wait_for_selector("#sure-dialog[open]")
    await tab.page.click("#sure-dialog .plain")  # thought better of it
    assert data_of(await alice.result(chat_id))["status"] == "processing"
    await cancel.click()
    await confirm(tab)
    await says(tab, "cancelled", "good")
    assert data_of(await alice.result(chat_id))["status"] == "cancelled"
    assert await cancel.count() == 0
    assert simulator.requests(path="/v3/chat/cancel")

    await tab.page.click("#end-session")
    await confirm(tab)
    await says(tab, "ended", "good")
    assert (await alice.get(f"/coze/sessions/{session_id}")).status_code == 410
    await look_up(tab, session_id)
    await says(tab, "COZE_SESSION_TERMINATED", "bad")


async def test_a_user_is_erased_whole(office: Office) -> None:
    alice = await office.caller(ALICE)
    user = "someone/with a slash"
    opened = [await alice.open_session(user) for _ in range(25)]
    await alice.send(opened[0], "hello")
    stays = await alice.open_session("stays")
    tab = await office.console()
    await look_up(tab, opened[0])
    await tab.page.click("#erase-user")
    await confirm(tab)
    await says(tab, "Erased: 25 sessions, 1 chats", "good")
    for session_id in opened:
        assert (await alice.get(f"/coze/sessions/{session_id}")).status_code == 404
    assert (await alice.get(f"/coze/sessions/{stays}")).status_code == 200
    assert await tab.page.locator("#session .facts").count() == 0
    await tab.page.fill("#user-id", "stays")
    await tab.page.click("#user-form [type=submit]")
    await confirm(tab)
    await says(tab, "Erased: 1 sessions, 0 chats", "good")


async def test_the_admin_of_another_root_finds_nothing_and_reaches_nothing(office: Office) -> None:
    alice = await office.caller(ALICE)
    session_id = await alice.open_session("same-name")
    chat_id = await alice.start(session_id, "[[sim:delay=100]] slow")
    await fail(alice)
    tab = await office.console(ADMIN_ELSEWHERE)
    assert await tile(tab, "running") == "1", "numbers are those of the whole service"
    await tab.page.wait_for_selector("#failures:has-text('No chat has failed.')")
    await tab.page.wait_for_selector("#usage-note:has-text('Nothing was used')")
    await look_up(tab, session_id)
    await says(tab, "COZE_SESSION_NOT_FOUND", "bad")
    assert await tab.page.locator("#session .facts").count() == 0
    await tab.page.fill("#user-id", "same-name")
    await tab.page.click("#user-form [type=submit]")
    await confirm(tab)
    await says(tab, "Erased: 0 sessions, 0 chats", "good")
    assert data_of(await alice.result(chat_id))["status"] == "processing"
    # Another admin at the same desk sees nothing that was shown before.
    await tab.page.click("#show-credentials")
    await tab.sign_in(ADMIN.headers(office.auth))
    await tab.page.wait_for_selector("#failures tbody tr:has-text('4101')")
    await tab.page.click("#show-credentials")
    await tab.sign_in(ALICE.headers(office.auth))
    await says(tab, "AUTH_FORBIDDEN", "bad")
    assert await tab.page.locator("[data-tile], tbody tr, #legend li").count() == 0
    await alice.post(f"/coze/chats/{chat_id}/cancel")


def as_if_yesterday_too(redis: RedisServer) -> None:
    """The usage of today becomes that of yesterday as well."""
    with redis.client() as store:
        for kind in ("usage", "owners"):
            for key in list(store.scan_iter(f"*:{kind}:*")):
                head, _, day = key.decode().rpartition(":")
                before = f"{head}:{int(day) - 1}"
                store.restore(before, store.pttl(key), store.dump(key))


async def test_usage_is_drawn_in_stacks_that_add_up_to_the_report(office: Office, redis: RedisServer) -> None:
    alice = await office.caller(ALICE)
    for n in range(11):
        session_id = await alice.open_session(f"user {n}", bot_id=f"738000000000000000{n % 2}")
        await alice.send(session_id, "word " * (n + 1))
    as_if_yesterday_too(redis)
    tab = await office.console()
    report = data_of(await (await office.caller(ADMIN)).get("/coze/admin/usage"))
    await tab.page.wait_for_selector("#chart canvas")

    async def legend() -> dict[str, int]:
        items = await tab.page.locator("#legend li").all_inner_texts()
        pairs = (item.rsplit("\n", 1) if "\n" in item else item.rsplit(" ", 1) for item in items)
        return {name.strip(): int(value.replace(",", "")) for name, value in pairs}

    bots = await legend()
    assert set(bots) == {"7380000000000000000", "7380000000000000001"}
    assert sum(bots.values()) == report["total"]["tokens"]
    await tab.page.select_option("#stacked-by", "user")
    await tab.page.wait_for_selector("#legend li:nth-child(8)")
    users = await legend()
    assert list(users)[-1] == "4 others"
    assert sum(users.values()) == report["total"]["tokens"]
    await tab.page.select_option("#measure", "chats")
    assert sum((await legend()).values()) == 22
    await tab.page.click("#usage-details summary")
    assert await tab.page.locator("#usage-table tbody tr").count() == 11
    painted = await tab.page.evaluate(
        """() => {
          const canvas = document.querySelector('#chart canvas');
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          const colours = new Set();
          for (let at = 0; at < data.length; at += 4)
            if (data[at + 3] === 255) colours.add(data.slice(at, at + 3).join());
          return colours.size;
        }"""
    )
    assert painted >= 8
    label = await tab.page.get_attribute("#chart", "aria-label")
    assert label is not None
    assert "22 in all" in label
    await tab.page.hover("#chart .u-over", position={"x": 5, "y": 50})  # a day without any
    await tab.page.wait_for_selector("#usage-note:has-text(': 0')")
    assert sum((await legend()).values()) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_telephone_it_scrolls_in_one_direction_and_everything_has_a_name_in_both_languages(
    office: Office, scheme: str
) -> None:
    alice = await office.caller(ALICE)
    chat = await fail(alice, "u" * 100)
    small = {"width": 390, "height": 844}
    tab = await office.console(locale="zh-CN", viewport=small, has_touch=True, color_scheme=scheme)
    page = tab.page
    await look_up(tab, chat["session_id"])
    await page.wait_for_selector("#session .facts")
    for language, other in (("zh-CN", "en"), ("en", "zh-CN")):
        assert await page.get_attribute("html", "lang") == language
        width = await page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width == [390, 390]
        nameless = await page.evaluate(
            """[...document.querySelectorAll(
              'button, input, select, summary, dialog, [tabindex="0"], [role=img]')]
              .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
                || [...e.labels ?? []].some(label => label.textContent.trim())
                || (e.matches('button, summary') && e.textContent.trim())))
              .map(e => e.outerHTML.slice(0, 120))"""
        )
        assert nameless == []
        body = await page.inner_text("body")
        assert ("最近的失败" in body) == (language == "zh-CN")
        assert ("Newest failures" in body) == (language == "en")
        await page.click("#language")
        await page.wait_for_selector(f"html[lang={other}]")
    untold = await page.evaluate(
        "Promise.all([import('/coze/console/console-strings.js'), import('/coze/console/strings.js')])"
        ".then(([{CONSOLE: {zh, en}}, {STRINGS}]) => ["
        "...Object.keys(zh).filter(k => !en[k]), ...Object.keys(en).filter(k => !zh[k]),"
        "...[...document.querySelectorAll('[data-t]')].map(e => e.dataset.t)"
        "  .filter(k => !(k in zh) && !(k in STRINGS.zh))])"
    )
    assert untold == []
