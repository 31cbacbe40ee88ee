"""Messages with files: what Coze is told, what is refused before it is asked, and whose files they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from coze_simulator import SIMULATOR_TOKEN
from tests.support import (
    Client,
    RedisServer,
    RunningApp,
    ServiceProcess,
    SimControl,
    data_of,
    error_of,
    open_client,
    wait_until,
)

from .helpers import PDF, PNG, WAV, newest_file, said, upload, uploaded

LINK = {"file_url": "https://example.org/a.png", "type": "image"}


def object_string(*items: dict[str, Any], role: str = "user") -> dict[str, str]:
    return {"role": role, "content": json.dumps(items), "content_type": "object_string"}


# -- what Coze is told -------------------------------------------------------------------------------------


async def test_a_message_with_files_goes_to_coze_as_an_object_string_with_cozes_own_ids(
    each_client: Client, simulator: SimControl
) -> None:
    picture = await uploaded(each_client)
    at_coze = newest_file(simulator)["id"]
    paper = await uploaded(each_client, PDF, "a.pdf")
    session_id = await each_client.open_session()
    answer = await each_client.send(
        session_id,
        "what is on it?",
        attachments=[{"file_id": picture}, {"file_id": paper, "type": "file"}, LINK],
    )
    chat = data_of(answer)
    assert chat["status"] == "completed"
    [items] = said(simulator, chat["metadata"]["conversation_id"])
    assert items == [
        {"type": "text", "text": "what is on it?"},
        {"type": "image", "file_id": at_coze},
        {"type": "file", "file_id": newest_file(simulator)["id"]},
        {"type": "image", "file_url": LINK["file_url"]},
    ]
    shown = chat["user_message"]
    assert shown["content"] == "what is on it?"
    assert [(a["type"], a["file_id"], a["file_name"], a["file_url"]) for a in shown["attachments"]] == [
        ("image", picture, "a.png", None),
        ("file", paper, "a.pdf", None),
        ("image", None, None, LINK["file_url"]),
    ]
    assert at_coze not in answer.text
    again = data_of(await each_client.result(chat["chat_id"]))
    assert again["user_message"] == shown


async def test_a_message_without_files_has_no_word_of_attachments(client: Client) -> None:
    session_id = await client.open_session()
    assert "attachments" not in data_of(await client.send(session_id, "hello"))["user_message"]


async def test_a_streamed_message_takes_files_too(client: Client, simulator: SimControl) -> None:
    file_id = await uploaded(client)
    session_id = await client.open_session()
    async with client.stream(session_id, "look", attachments=[{"file_id": file_id}]) as reader:
        await reader.all()
    assert reader.result()["user_message"]["attachments"][0]["file_id"] == file_id
    [items] = said(simulator, reader.result()["metadata"]["conversation_id"])
    assert items[1] == {"type": "image", "file_id": newest_file(simulator)["id"]}


async def test_files_in_the_messages_before_are_ours_too(client: Client, simulator: SimControl) -> None:
    file_id = await uploaded(client)
    session_id = await client.open_session()
    before = object_string({"type": "text", "text": "see"}, {"type": "image", "file_id": file_id})
    chat = data_of(await client.send(session_id, "well?", additional_messages=[before]))
    items, text = said(simulator, chat["metadata"]["conversation_id"])
    assert items[1] == {"type": "image", "file_id": newest_file(simulator)["id"]}
    assert text == "well?"


@pytest.mark.parametrize("way", ["speech", "a picture behind a question"])
async def test_a_message_may_be_empty_where_coze_needs_no_text(
    client: Client, simulator: SimControl, way: str
) -> None:
    session_id = await client.open_session()
    if way == "speech":
        body: dict[str, Any] = {"attachments": [{"file_id": await uploaded(client, WAV, "a.wav")}]}
    else:
        asked = {"role": "user", "content": "what is this?"}
        body = {"attachments": [{"file_id": await uploaded(client)}], "additional_messages": [asked]}
    chat = data_of(await client.send(session_id, "", **body))
    assert chat["status"] == "completed" or way == "speech"
    assert said(simulator, chat["metadata"]["conversation_id"])[-1][0]["type"] in ("audio", "image")


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"attachments": [{}]}, "attachments.0"),
        ({"attachments": [{**LINK, "file_id": "x"}]}, "attachments.0"),
        ({"attachments": [{"file_url": LINK["file_url"]}]}, "attachments.0"),
        ({"attachments": [{**LINK, "type": "video"}]}, "attachments.0.type"),
        ({"attachments": [{**LINK, "file_url": "http://example.org/a.png"}]}, "attachments.0"),
        ({"attachments": [{**LINK, "file_url": "https://a b/"}]}, "attachments.0"),
        ({"attachments": [{**LINK, "file_url": "https://"}]}, "attachments.0"),
        ({"attachments": [{**LINK, "file_url": "https://a/" + "x" * 2048}]}, "attachments.0.file_url"),
        ({"attachments": [LINK] * 21}, "attachments"),
        ({"attachments": "file"}, "attachments"),
        ({"message": " ", "attachments": [LINK]}, "body"),
        ({"message": "", "attachments": []}, "body"),
        ({"additional_messages": [object_string()]}, "additional_messages.0"),
        ({"additional_messages": [object_string({"type": "text", "text": "x"})]}, "additional_messages.0"),
        ({"additional_messages": [object_string(LINK | {"type": "video"})]}, "additional_messages.0"),
        ({"additional_messages": [object_string({"type": "image"})]}, "additional_messages.0"),
        (
            {"additional_messages": [object_string(LINK, *[{"type": "text", "text": "x"}] * 2)]},
            "additional_messages.0",
        ),
    ],
    ids=[
        *("neither", "both", "no type", "type", "http", "space", "no host", "long", "many", "no list"),
        *("image alone", "nothing", "empty", "text alone", "item type", "no file", "two texts"),
    ],
)
async def test_what_coze_would_refuse_is_refused_with_the_fields_name_and_coze_is_not_asked(
    client: Client, simulator: SimControl, body: dict[str, Any], field: str
) -> None:
    session_id = await client.open_session()
    answer = await client.post(f"/coze/sessions/{session_id}/messages", json={"message": "look", **body})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "COZE_VALIDATION_ERROR")
    assert error_of(answer)["details"]["fields"][0]["field"] == field
    assert simulator.requests(path="/v3/chat") == []


async def test_an_uploaded_picture_alone_and_a_wrong_type_are_refused(
    client: Client, simulator: SimControl
) -> None:
    session_id, file_id = await client.open_session(), await uploaded(client)
    alone = await client.send(session_id, "", attachments=[{"file_id": file_id}])
    assert error_of(alone)["details"]["fields"][0]["field"] == "message"
    wrong = await client.send(session_id, "listen", attachments=[LINK, {"file_id": file_id, "type": "audio"}])
    assert error_of(wrong)["details"]["fields"][0]["field"] == "attachments.1.type"
    assert (alone.status_code, wrong.status_code) == (400, 400)
    assert simulator.requests(path="/v3/chat") == []


async def test_an_unknown_file_and_an_id_of_cozes_own_are_not_found_and_coze_is_not_asked(
    client: Client, simulator: SimControl
) -> None:
    await uploaded(client)
    session_id = await client.open_session()
    at_coze = newest_file(simulator)["id"]
    for unknown in (at_coze, "coze_file_1795372832906_7l4mgyuf3lw2iispuvavf", "x", "../session:1"):
        before = object_string({"type": "text", "text": "see"}, {"type": "image", "file_id": unknown})
        for body in ({"attachments": [{"file_id": unknown}]}, {"additional_messages": [before]}):
            answer = await client.send(session_id, "look", **body)
            assert (answer.status_code, error_of(answer)["code"]) == (404, "COZE_FILE_NOT_FOUND")
    assert simulator.requests(path="/v3/chat") == []


async def test_one_request_names_at_most_a_hundred_files_in_all_of_its_messages(
    client: Client, simulator: SimControl
) -> None:
    file_id = await uploaded(client)
    session_id = await client.open_session()
    picture = {"type": "image", "file_id": file_id}
    two = [object_string(*[picture] * 50)] * 2
    bodies: list[dict[str, Any]] = [
        {"additional_messages": two, "attachments": [{"file_id": file_id}]},
        {"additional_messages": [object_string(*[picture] * 101)]},
        {"additional_messages": [object_string(*[{**picture, "file_id": "unknown"}] * 101)]},
    ]
    for body in bodies:
        answer = await client.send(session_id, "look", **body)
        assert answer.status_code == 400
        assert "at most 100 files" in str(error_of(answer)["details"])
    assert simulator.requests(path="/v3/chat") == []
    assert (await client.send(session_id, "look", additional_messages=two)).status_code == 200


async def test_a_session_cannot_be_opened_with_a_file_of_cozes(client: Client, simulator: SimControl) -> None:
    await uploaded(client)
    message = object_string(
        {"type": "text", "text": "see"}, {"type": "image", "file_id": newest_file(simulator)["id"]}
    )
    answer = await client.post("/coze/sessions", json={"user_id": "u", "additional_messages": [message]})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "COZE_VALIDATION_ERROR")


# -- whose a file is ---------------------------------------------------------------------------------------


async def test_a_file_of_one_end_user_cannot_be_used_for_another(client: Client) -> None:
    one, other = await client.open_session("one"), await client.open_session("other")
    choices: list[dict[str, Any]] = [{"user_id": "one"}, {"session_id": one}]
    for params in choices:
        file_id = await uploaded(client, **params)
        sent = await client.send(one, "look", attachments=[{"file_id": file_id}])
        assert sent.status_code == 200, sent.text
        refused = await client.send(other, "look", attachments=[{"file_id": file_id}])
        assert (refused.status_code, error_of(refused)["code"]) == (404, "COZE_FILE_NOT_FOUND")
    wrong = await upload(client, session_id=one, user_id="other")
    assert (wrong.status_code, error_of(wrong)["details"]["fields"][0]["field"]) == (400, "user_id")


async def test_a_forgotten_file_is_gone(each_client: Client) -> None:
    file_id = await uploaded(each_client, user_id="u-1")
    session_id = await each_client.open_session()
    assert data_of(await each_client.delete(f"/coze/files/{file_id}"))["file_id"] == file_id
    for answer in (
        await each_client.get(f"/coze/files/{file_id}"),
        await each_client.delete(f"/coze/files/{file_id}"),
        await each_client.send(session_id, "look", attachments=[{"file_id": file_id}]),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (404, "COZE_FILE_NOT_FOUND")


async def test_erasing_a_user_erases_the_files_and_leaves_those_of_others(each_client: Client) -> None:
    mine = [await uploaded(each_client, user_id="goes") for _ in range(3)]
    session_id = await each_client.open_session("goes")
    mine.append(await uploaded(each_client, session_id=session_id))
    stays = [await uploaded(each_client, user_id="stays"), await uploaded(each_client)]
    erased = data_of(await each_client.delete("/coze/users/goes"))
    assert (erased["erased_files"], erased["remaining_sessions"]) == (4, 0)
    found = [(await each_client.get(f"/coze/files/{file_id}")).status_code for file_id in mine + stays]
    assert found == [404] * 4 + [200] * 2
    assert data_of(await each_client.delete("/coze/users/goes"))["erased_files"] == 0


async def test_a_file_ends_with_its_time(start_app: Callable[..., RunningApp]) -> None:
    service = start_app(COZE_FILE_DAYS=str(0.5 / 86_400))
    async with open_client(service.base_url) as client:
        file_id = await uploaded(client)

        async def gone() -> bool:
            return (await client.get(f"/coze/files/{file_id}")).status_code == 404

        await wait_until(gone)


# -- several credentials -----------------------------------------------------------------------------------

TOKENS = ("pat_one", "pat_two")


async def test_a_file_for_a_session_goes_to_the_credential_of_its_conversation(
    start_app: Callable[..., RunningApp], simulator: SimControl
) -> None:
    service = start_app(COZE_API_TOKEN="", COZE_API_TOKENS=",".join(TOKENS))
    async with open_client(service.base_url) as client:
        sessions = [await client.open_session() for _ in range(4)]
        files = [await uploaded(client, session_id=session_id) for session_id in sessions]
        outcomes = set()
        for place, session_id in enumerate(sessions):
            for other, file_id in enumerate(files):
                answer = await client.send(session_id, "look", attachments=[{"file_id": file_id}])
                if place == other:
                    assert data_of(answer)["status"] == "completed"
                    assert data_of(answer)["user_message"]["attachments"][0]["file_id"] == file_id
                elif answer.status_code != 200:
                    assert (answer.status_code, error_of(answer)["code"]) == (400, "COZE_VALIDATION_ERROR")
                    assert "session_id" in error_of(answer)["details"]["fields"][0]["message"]
                outcomes.add(answer.status_code)
        assert outcomes == {200, 400}, "both credentials took part"


async def test_a_session_without_a_conversation_goes_to_the_credential_of_its_first_file(
    start_app: Callable[..., RunningApp], simulator: SimControl
) -> None:
    service = start_app(COZE_API_TOKEN="", COZE_API_TOKENS=",".join(TOKENS))
    async with open_client(service.base_url) as client:
        for _ in range(4):
            session_id = await client.open_session(auto_save_history=False)
            file_id = await uploaded(client)
            answer = await client.send(session_id, "look", attachments=[{"file_id": file_id}])
            assert data_of(answer)["status"] == "completed"


# -- over a crash ------------------------------------------------------------------------------------------


async def test_a_queued_message_with_a_file_is_sent_by_another_replica_after_a_kill(
    start_process: Callable[..., ServiceProcess], redis: RedisServer, simulator: SimControl
) -> None:
    values = {"REDIS_URL": redis.url, "LEASE_SECONDS": "1", "COZE_IDLE_TIMEOUT": "30"}
    first, second = start_process(**values), start_process(**values)
    async with open_client(first.base_url) as one, open_client(second.base_url) as two:
        session_id = await one.open_session()
        running = await one.start(session_id, "[[sim:delay=1]] first")
        file_id = await uploaded(one, session_id=session_id)
        queued = await one.start(session_id, "second", on_busy="enqueue", attachments=[{"file_id": file_id}])
        await wait_until(lambda: simulator.requests(path="/v3/chat", contains="first"))
        first.kill()
        assert (await two.ended(running))["status"] == "completed"
        chat = await two.ended(queued)
        assert chat["status"] == "completed"
        assert chat["user_message"]["attachments"][0]["file_id"] == file_id
        assert said(simulator, chat["metadata"]["conversation_id"])[-1] == [
            {"type": "text", "text": "second"},
            {"type": "image", "file_id": newest_file(simulator)["id"]},
        ]


# -- the simulator itself ----------------------------------------------------------------------------------


def test_the_simulator_takes_no_file_of_another_identity(simulator: SimControl) -> None:
    base = simulator.running.base_url
    file = httpx.post(
        f"{base}/v1/files/upload",
        files={"file": ("a.png", PNG)},
        headers={"authorization": f"Bearer {SIMULATOR_TOKEN}"},
    ).json()["data"]
    content = [{"type": "text", "text": "x"}, {"type": "image", "file_id": file["id"]}]
    codes = [
        httpx.post(
            f"{base}/v3/chat",
            json={
                "bot_id": "7380000000000000009",
                "user_id": "u",
                "stream": False,
                "additional_messages": [object_string(*content)],
            },
            headers={"authorization": f"Bearer {token}"},
        ).json()["code"]
        for token in (SIMULATOR_TOKEN, "pat_other")
    ]
    assert codes == [0, 4000]
