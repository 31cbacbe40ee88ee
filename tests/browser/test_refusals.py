"""Who is refused, or not answered, reads in the page what the service said: code, ids, and the reader's own
language."""

from __future__ import annotations

import base64
import re

import pytest

from coze_simulator.auth_server import RunningAuth
from tests.security.helpers import ALICE
from tests.support import Client, ServiceProcess, SimControl, error_of, open_client

from .conftest import OpenTab
from .support import Proxy, Tab
from .test_touch_and_paste import DOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

BAD = {"HtySudoerToken": "not-a-token", "HtyHost": "music.moicen.com"}
ASKS = {"zh-CN": "服务要求认证：请输入请求头。", "en-GB": "The service asks who you are: enter the headers."}
INVALID = {"zh-CN": "服务不接受这个凭证。", "en-GB": "The service does not accept these credentials."}
FAILED = {"zh-CN": "扣子未能回答。", "en-GB": "Coze could not answer."}
LATER = {"zh-CN": "点右上角的钥匙", "en-GB": "with the key at the top"}
OTHER = {"zh-CN": "en-GB", "en-GB": "zh-CN"}


async def refusal(service: ServiceProcess, headers: dict[str, str] | None = None) -> tuple[str, str]:
    """Code and text of the service's own 401."""
    async with open_client(service.base_url, headers=headers) as client:
        response = await client.get("/coze/users/demo/sessions")
    assert response.status_code == 401
    error = error_of(response)
    return error["code"], error["message"]


async def problem(tab: Tab) -> str:
    return await tab.page.inner_text(".turn:last-child .problem")


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
async def test_a_401_says_what_the_service_said_in_the_dialog_and_beside_the_message(
    secured: ServiceProcess, auth: RunningAuth, open_tab: OpenTab, language: str
) -> None:
    tab = await open_tab(secured.base_url, locale=language)
    page, tab.may_fail = tab.page, True
    said = page.locator("#credentials-said")
    await page.wait_for_selector("#credentials-dialog[open]")
    code, message = await refusal(secured)
    assert code == "AUTH_MISSING"
    assert await said.inner_text() == f"{code}: {message}"
    assert await page.inner_text("#credentials-needed") == ASKS[language]

    code, message = await refusal(secured, BAD)
    assert code == "AUTH_INVALID"
    await tab.sign_in(BAD)
    await page.wait_for_selector("#credentials-said:visible:has-text('AUTH_INVALID')")
    assert await said.inner_text() == f"{code}: {message}"

    await tab.sign_in(ALICE.headers(auth))
    await page.wait_for_selector("#credentials-dialog:not([open])", state="attached")
    await tab.ask("hello")
    await tab.ended()
    await page.click("#show-credentials")
    await tab.sign_in(BAD)
    await page.wait_for_selector("#credentials-said:visible:has-text('AUTH_INVALID')")
    await page.click("#credentials-form .plain:not(#forget)")  # goes on without being known
    await tab.ask("do you know me?")
    await page.wait_for_selector(".turn:last-child .problem")
    for shown in (language, OTHER[language]):
        text = await problem(tab)
        for part in (code, message, INVALID[shown]):
            assert part in text
        await page.click("#language")

    await page.click(".turn:last-child .problem button")  # tries again, and asks who it is
    await page.wait_for_selector("#credentials-dialog[open]")
    assert await said.inner_text() == f"{code}: {message}"
    await tab.sign_in(ALICE.headers(auth))
    await tab.ended()
    assert "do you know me?" in await tab.answer()


async def test_a_failure_of_coze_shows_its_code_and_logid_in_the_language_of_the_page(
    tab: Tab, api: Client
) -> None:
    tab.may_fail = True
    await tab.ask("[[sim:fail=4101]] hello there")
    await tab.ended("failed")
    [chat] = (await api.session((await tab.memory())["session"]))["chat_history"]
    logid = chat["error"]["logid"]
    assert logid

    async def shown(language: str) -> None:
        text = await problem(tab)
        for part in ("COZE_API_ERROR", "Coze 4101", f"logid {logid}", FAILED[language]):
            assert part in text
        assert FAILED[OTHER[language]] not in text

    await shown("en-GB")
    await tab.page.click("#language")
    await shown("zh-CN")
    await tab.page.reload()  # now it comes out of the session's history
    await tab.page.wait_for_selector(".turn .problem")
    await shown("zh-CN")


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
async def test_what_coze_refuses_beside_an_answer_is_said_below_it_with_code_and_logid(
    proxy: Proxy, open_tab: OpenTab, simulator: SimControl, language: str
) -> None:
    tab = await open_tab(proxy.base_url, locale=language)
    tab.may_fail = True
    await tab.ask("hello")
    await tab.ended()
    simulator.knob(path="*/feedback", fail=4101)
    await tab.page.click("[data-t-label=like]")
    await tab.page.wait_for_selector("#connection[data-kind=bad]:not(:empty)")
    said = await tab.page.inner_text("#connection")
    for part in ("COZE_API_ERROR", "Coze 4101", FAILED[language]):
        assert part in said
    assert re.search(r"logid \w{20}", said)
    assert await tab.page.get_attribute("[data-t-label=like]", "aria-pressed") == "false"


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
async def test_a_file_that_coze_refuses_shows_its_code_and_logid_in_the_language_of_the_page(
    proxy: Proxy, open_tab: OpenTab, simulator: SimControl, language: str
) -> None:
    tab = await open_tab(proxy.base_url, locale=language)
    tab.may_fail = True
    simulator.knob(path="/v1/files/upload", fail=4101)
    picture = {"name": "p.png", "mimeType": "image/png", "buffer": base64.b64decode(DOT)}
    await tab.page.set_input_files("#file", picture)
    await tab.page.wait_for_selector("#files .file.failed")
    for shown in (language, OTHER[language]):
        said = await tab.page.inner_text("#files .file.failed")
        for part in ("p.png", "COZE_API_ERROR", "Coze 4101", FAILED[shown]):
            assert part in said
        assert re.search(r"logid \w{20}", said)
        assert FAILED[OTHER[shown]] not in said
        await tab.page.click("#language")


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
async def test_who_closes_the_dialog_for_credentials_is_told_what_to_do(
    secured: ServiceProcess, auth: RunningAuth, open_tab: OpenTab, language: str
) -> None:
    tab = await open_tab(secured.base_url, locale=language)
    page, tab.may_fail = tab.page, True

    async def hinted() -> None:
        await page.wait_for_selector("#credentials-dialog[open]")
        await page.keyboard.press("Escape")
        await page.wait_for_selector(f"#connection[data-kind=bad]:has-text('{LATER[language]}')")

    await hinted()
    await tab.ask("do you know me?")
    await hinted()
    assert await page.input_value("#message") == "do you know me?"
    await page.click("#open-new")
    await page.click("#new-form [type=submit]")
    await page.wait_for_selector("#credentials-dialog[open]")
    await page.keyboard.press("Escape")
    await page.wait_for_selector(f"#new-problem:visible:has-text('{LATER[language]}')")
    await page.keyboard.press("Escape")

    await page.click("#show-credentials")
    await tab.sign_in(ALICE.headers(auth))
    await page.wait_for_selector("#connection:empty", state="attached")
    await page.press("#message", "Enter")
    await tab.ended()
