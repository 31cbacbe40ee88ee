"""Everything that can be asked to go wrong does, exactly as asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import httpx
import pytest

from coze_simulator import SIMULATOR_TOKEN
from tests.support import block_until

from .helpers import SimClient, events_of, ids


def names(body: bytes) -> list[str]:
    return [name for name, _ in events_of(body)]


def texts(body: bytes, name: str = "conversation.message.delta") -> list[str]:
    return [data["content"] for event, data in events_of(body) if event == name and data["content"]]


def read_to_end(sim: SimClient, text: str) -> tuple[bytes, bool]:
    """The body over a bare socket, and whether it ended properly (last chunk of length 0)."""
    body = json.dumps(sim.body(text)).encode()
    head = (
        f"POST /coze/v3/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SIMULATOR_TOKEN}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", sim.sim.port), timeout=5) as connection:
        connection.sendall(head.encode() + body)
        received = b""
        while data := connection.recv(65536):
            received += data
            if received.endswith(b"0\r\n\r\n"):
                break
    raw = received.split(b"\r\n\r\n", 1)[1]
    joined = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        if size == b"0":
            return joined, True
        joined, raw = joined + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
    return joined, False


@pytest.mark.parametrize("size", [0, 1, 300, 1500])
def test_cut_breaks_the_body_after_exactly_so_many_bytes_and_the_chat_goes_on(
    sim_cloud: SimClient, size: int
) -> None:
    body, proper = read_to_end(sim_cloud, f"cut me {size}[[sim:cut={size}]]")
    assert (len(body), proper) == (size, False)
    record = sim_cloud.control("GET", "log", params={"contains": f"cut me {size}"})["requests"][0]
    chat = {"conversation_id": record["conversation_id"], "id": record["chat_id"]}
    assert sim_cloud.ended(chat)["status"] == "completed"
    assert "cut me" in sim_cloud.answer(chat)


def test_a_cut_is_a_protocol_error_to_a_client(sim_cloud: SimClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        sim_cloud.chat("x[[sim:cut=1000;chunk=7]]")


def test_no_terminal_is_a_proper_end_without_the_last_events(sim_cloud: SimClient) -> None:
    body, proper = read_to_end(sim_cloud, "x[[sim:no_terminal=1]]")
    assert proper
    assert "conversation.chat.completed" not in names(body)
    assert "done" not in names(body)


def test_no_done_leaves_out_done_only(sim_cloud: SimClient) -> None:
    assert names(sim_cloud.chat("x[[sim:no_done=1]]").content)[-1] == "conversation.chat.completed"


def test_chunks_have_the_size_asked_for(sim_cloud: SimClient) -> None:
    with sim_cloud.open_stream("小块[[sim:chunk=7;deltas=2;reasoning=0]]") as response:
        body = b"".join(response.iter_raw())
    assert names(body)[-1] == "done"


@pytest.mark.parametrize(
    ("directive", "status", "kind"),
    [
        ("http=429;retry_after=3", 429, "text/plain"),
        ("http=500", 500, "text/plain"),
        ("http=502", 502, "text/html"),
        ("http=500;http_body=json", 500, "application/json"),
    ],
)
def test_http_failures_have_no_envelope(sim_cloud: SimClient, directive: str, status: int, kind: str) -> None:
    response = sim_cloud.chat(f"x[[sim:{directive}]]")
    assert response.status_code == status
    assert response.headers["content-type"].startswith(kind)
    assert b'"code"' not in response.content
    assert response.headers.get("retry-after") == ("3" if "retry_after" in directive else None)


def test_fail_is_json_before_any_chat_exists(sim_cloud: SimClient) -> None:
    before = sim_cloud.control("GET", "state")["chats_created"]
    response = sim_cloud.chat("x[[sim:fail=4013;fail_http=429]]")
    assert (response.status_code, response.json()["code"]) == (429, 4013)
    assert sim_cloud.chat("x[[sim:fail=4009]]").status_code == 200
    assert sim_cloud.control("GET", "state")["chats_created"] == before


def test_times_limits_a_directive_to_the_first_requests(sim_cloud: SimClient) -> None:
    text = "retry me[[sim:http=500;times=2]]"
    assert [sim_cloud.chat(text).status_code for _ in range(4)] == [500, 500, 200, 200]


def test_fail_at_sends_failed_after_so_many_deltas(sim_cloud: SimClient) -> None:
    events = events_of(sim_cloud.chat("x[[sim:fail_at=2;fail_code=4013;deltas=9]]").content)
    name, data = events[-1]
    assert name == "conversation.chat.failed"
    assert (data["status"], data["last_error"]["code"]) == ("failed", 4013)
    assert data["failed_at"]
    assert sim_cloud.retrieve(data)["data"]["status"] == "failed"
    assert len([1 for event, item in events if event.endswith(".delta") and item["content"]]) == 2


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("fail_at=0;fail_shape=bare;fail_code=701231", ("conversation.chat.failed", 701231)),
        ("fail_at=0;fail_shape=string;fail_code=720702204", ("conversation.chat.failed", "720702204")),
        ("error_at=1;error_code=4105", ("error", 4105)),
        ("error_at=1;error_shape=error_code", ("error", None)),
        ("error_at=1;error_shape=empty", ("error", None)),
    ],
)
def test_failures_have_the_shapes_seen_in_the_wild(
    sim_cloud: SimClient, directive: str, expected: tuple[str, object]
) -> None:
    name, data = events_of(sim_cloud.chat(f"x[[sim:{directive}]]").content)[-1]
    assert (name, data.get("code")) == expected
    assert names(sim_cloud.chat(f"x[[sim:{directive};done_after_error=1]]").content)[-1] == "done"


def test_delays_and_stalls_take_their_time(sim_cloud: SimClient) -> None:
    for directive in ("first_byte=0.15", "delay=0.15", "stall=3:0.15", "gap=0.05;deltas=3;reasoning=0"):
        began = time.monotonic()
        assert names(sim_cloud.chat(f"x[[sim:{directive}]]").content)[-1] == "done"
        assert time.monotonic() - began >= 0.15


def test_answers_come_in_every_documented_shape(sim_cloud: SimClient) -> None:
    multi = events_of(sim_cloud.chat("x[[sim:multi=3]]").content)
    whole = [data for name, data in multi if name.endswith("message.completed") and data["type"] == "answer"]
    assert len({item["id"] for item in whole}) == 3
    card = events_of(sim_cloud.chat("x[[sim:card=1]]").content)
    assert not [name for name, _ in card if name.endswith(".delta")]
    assert [
        data["content_type"] for _, data in card if isinstance(data, dict) and data.get("type") == "answer"
    ] == ["card"]
    objects = texts(sim_cloud.chat("x[[sim:object_string=1]]").content, "conversation.message.completed")
    assert json.loads(objects[0])[0]["type"] == "text"
    plugin = events_of(sim_cloud.chat("x[[sim:plugin=1;verbose=knowledge]]").content)
    kinds = [data["type"] for name, data in plugin if name.endswith("message.completed")]
    assert kinds[:4] == ["function_call", "tool_response", "verbose", "answer"]
    audio = names(sim_cloud.chat("x[[sim:audio=1]]").content)
    assert audio[-3:] == ["conversation.chat.completed", "conversation.audio.delta", "done"]
    assert len(texts(sim_cloud.chat("x[[sim:huge=1000000]]").content)[0].encode()) == 999999
    assert len(texts(sim_cloud.chat("x[[sim:deltas=500]]").content)) == 500
    assert texts(sim_cloud.chat("x[[sim:text=just this;followups=0]]").content, "conversation.message.delta")
    bare = events_of(sim_cloud.chat("x[[sim:no_usage=1;shell_action=1;followups=0;verbose=0]]").content)
    assert "usage" not in bare[-2][1]
    assert bare[-2][1]["required_action"] == {"type": "", "submit_tool_outputs": {"tool_calls": []}}
    assert [name for name, _ in bare].count("conversation.message.completed") == 1


def test_an_answer_may_be_completed_and_stored_otherwise_than_it_was_streamed(sim_cloud: SimClient) -> None:
    body = sim_cloud.chat(
        "x[[sim:text=streamed;deltas=1;completed_text=completed;stored_text=stored]]"
    ).content
    assert texts(body, "conversation.message.delta") == ["streamed"]
    assert texts(body, "conversation.message.completed")[0] == "completed"
    listed = sim_cloud.messages(events_of(body)[-2][1])["data"]
    assert [item["content"] for item in listed if item["type"] == "answer"] == ["stored"]


def test_status_and_list_may_lag_behind_the_end(sim_cloud: SimClient) -> None:
    body = sim_cloud.chat("x[[sim:status_lag=0.5;empty_list=2]]").content
    chat = events_of(body)[-2][1]
    assert sim_cloud.status(chat) == "in_progress"
    block_until(lambda: sim_cloud.status(chat) == "completed")
    assert [bool(sim_cloud.messages(chat)["data"]) for _ in range(3)] == [False, False, True]


def test_a_chat_may_be_unknown_for_a_while(sim_cloud: SimClient) -> None:
    chat = events_of(sim_cloud.chat("x[[sim:not_found=2]]").content)[-2][1]
    assert [sim_cloud.retrieve(chat)["code"] for _ in range(3)] == [4200, 4200, 0]


def test_a_stream_may_be_called_something_else(sim_cloud: SimClient) -> None:
    response = sim_cloud.chat("x[[sim:called=application/json]]")
    assert response.headers["content-type"] == "application/json"
    assert events_of(response.content)[-1][0] == "done"


def test_tool_outputs_may_be_asked_for_in_rounds(sim_cloud: SimClient) -> None:
    chat = sim_cloud.create("x[[sim:requires_action=1;rounds=2]]")
    for number in range(2):
        waiting = sim_cloud.ended(chat)
        call_id = waiting["required_action"]["submit_tool_outputs"]["tool_calls"][0]["id"]
        path = "/v3/chat/submit_tool_outputs"
        wrong = {"tool_outputs": [{"tool_call_id": "nope", "output": "x"}]}
        assert sim_cloud.call("POST", path, ids(chat), wrong)["code"] == 4000
        outputs = {"tool_outputs": [{"tool_call_id": call_id, "output": f"output {number}"}]}
        assert sim_cloud.call("POST", path, ids(chat), outputs)["data"]["status"] == "in_progress"
    assert sim_cloud.ended(chat)["status"] == "completed"
    assert "output 0; output 1" in sim_cloud.answer(chat)


def test_rules_apply_to_matching_messages_only(sim_cloud: SimClient) -> None:
    assert sim_cloud.knob(match="bad day", times=1, fail=4009).status_code == 200
    assert b"event:done" in sim_cloud.chat("good day").content
    assert sim_cloud.chat("a bad day").json()["code"] == 4009
    assert b"event:done" in sim_cloud.chat("a bad day").content
    rule = sim_cloud.control("GET", "knobs")["rules"][0]
    assert (rule["hits"], rule["fail"]) == (1, 4009)
    assert sim_cloud.control("DELETE", "knobs")["rules"] == []


def test_rules_apply_to_other_endpoints(sim_cloud: SimClient) -> None:
    chat = sim_cloud.create("x")
    sim_cloud.knob(path="/v3/chat/retrieve", http=500, times=2)
    sim_cloud.knob(path="/v1/conversations/*/clear", match="never", fail=5000)
    url = sim_cloud.url("/v3/chat/retrieve")
    statuses = [sim_cloud.http.get(url, params=ids(chat)).status_code for _ in range(3)]
    assert statuses == [500, 500, 200]
    sim_cloud.knob(path="/v3/chat/message/list", cut=10)
    with pytest.raises(httpx.RemoteProtocolError):
        sim_cloud.messages(chat)
    assert sim_cloud.call("POST", f"/v1/conversations/{chat['conversation_id']}/clear")["code"] == 0


@pytest.mark.parametrize("rule", [{"nope": 1}, {"fail": "x"}, {"stall": 3}, {"http": -1}, {"match": 3}])
def test_a_mistake_in_a_knob_is_told(sim_cloud: SimClient, rule: dict[str, Any]) -> None:
    response = sim_cloud.knob(**rule)
    assert response.status_code == 400
    assert next(iter(rule)) in response.json()["error"]
    told = sim_cloud.chat("x[[sim:nope=1]]").json()
    assert told["code"] == 4000
    assert "nope" in told["msg"]


def test_the_log_tells_what_was_asked(sim_cloud: SimClient) -> None:
    sim_cloud.control("DELETE", "log")
    chat = sim_cloud.create("count me", meta_data={"our_id": "7"})
    sim_cloud.retrieve(chat)
    found = sim_cloud.control("GET", "log", params={"path": "/v3/chat", "method": "POST"})
    assert found["count"] == 1
    record = found["requests"][0]
    assert (record["message"], record["meta_data"]) == ("count me", {"our_id": "7"})
    assert (record["conversation_id"], record["chat_id"]) == (chat["conversation_id"], chat["id"])
    assert "authorization" not in record["headers"]
    assert sim_cloud.control("GET", "log", params={"chat_id": chat["id"]})["count"] == 2


def test_the_whole_upstream_can_be_away(sim_cloud: SimClient) -> None:
    sim_cloud.control("POST", "upstream", json={"mode": "html502"})
    assert sim_cloud.chat("x").status_code == 502
    sim_cloud.control("POST", "upstream", json={"mode": "refuse"})
    # Closed with the body unread, the connection may be reset before the client has seen it close.
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        sim_cloud.chat("x")
    sim_cloud.control("POST", "upstream", json={"mode": "hang"})
    with pytest.raises(httpx.ReadTimeout):
        sim_cloud.http.post(sim_cloud.url("/v3/chat"), json=sim_cloud.body("x"), timeout=0.2)
    assert sim_cloud.control("POST", "upstream", json={"mode": "nonsense"})["error"]
    sim_cloud.control("POST", "upstream", json={"mode": "ok"})
    assert b"event:done" in sim_cloud.chat("x").content


async def exchange(sim: SimClient, text: str, connections: list[asyncio.StreamWriter]) -> bytes:
    """One streamed chat over a connection of its own, which is noted in ``connections`` and closed."""
    body = json.dumps(sim.body(text)).encode()
    head = f"POST /v3/chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SIMULATOR_TOKEN}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.sim.port)
    connections.append(writer)
    try:
        writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_five_hundred_streams_run_at_once(sim_cloud: SimClient) -> None:
    waiting: list[asyncio.StreamWriter] = []
    text = "crowd[[sim:delay=60;on_disconnect=stop]]"

    def state(name: str) -> int:
        return int(sim_cloud.control("GET", "state")[name])

    tasks = [asyncio.create_task(exchange(sim_cloud, text, waiting)) for _ in range(500)]
    await asyncio.to_thread(block_until, lambda: state("open_streams") == 500)
    assert state("running") >= 500
    for writer in waiting:
        writer.close()
    await asyncio.gather(*tasks)
    await asyncio.to_thread(block_until, lambda: state("open_streams") == 0)

    bodies = await asyncio.gather(*(exchange(sim_cloud, "crowd", []) for _ in range(500)))
    assert all(b'event:done\ndata:"[DONE]"\n\n' in body for body in bodies)


def test_the_token_endpoint_has_knobs_too(sim_cloud: SimClient) -> None:
    path = "/api/permission/oauth2/token"
    sim_cloud.knob(path=path, http=500, times=1)
    url = sim_cloud.url(path)
    assert httpx.post(url, json={}).status_code == 500
    refused = httpx.post(url, json={})
    assert (refused.status_code, refused.json()["error_code"]) == (401, "invalid_client")
    assert sim_cloud.control("GET", "log", params={"path": path})["count"] == 2
