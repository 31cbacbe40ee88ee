"""JSON Schemas of callers that take long to be made into checks, and those who read what they asked for."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.doors.openai.bodies import ChatCompletionRequest
from app.doors.openai.chunks import ChunkStream
from app.doors.openai.forms import Form, form_of, reading
from app.doors.openai.responses.events import ResponseEvents
from app.doors.openai.responses.names import Name
from app.doors.openai.responses.notes import Note
from app.doors.openai.responses.objects import Response
from app.doors.openai.schema_work import MOST_WORK, Work
from app.models import Cursor
from app.tasks.reader import Ending
from app.utils.big_bodies import BigBodies
from app.utils.recent import Recent
from tests.support import ServiceProcess, SimControl, service_process

from .support import ask, worked

JSON = {"Content-Type": "application/json"}
COMPLETIONS, RESPONSES = "/coze/openai/v1/chat/completions", "/coze/openai/v1/responses"
CHAT_ID = "coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"
MOST_SECONDS = 0.012
"""Of the event loop, for a request beside whatever its check takes: twice what it is on a machine at work."""
MANY = 12


def dear(number: int = 0) -> dict[str, Any]:
    """A schema just inside of what a request may have made: of those that are sent the dearest."""
    referred = {f"x{n}": {"$ref": "#/$defs/a"} for n in range(500)}
    fractions = {f"k{n}": {"multipleOf": 1.5} for n in range(250)}
    return {"title": str(number), "$defs": {"a": {}}, "properties": {**referred, **fractions}}


@pytest.fixture(scope="module")
def attacked(shared_simulator: SimControl) -> Iterator[ServiceProcess]:
    values = {"COZE_API_URL": shared_simulator.chat_url, "REDIS_URL": "memory://"}
    with service_process(values, wait_for="/coze/health") as service:
        yield service


def posted(service: ServiceProcess, path: str, body: dict[str, Any]) -> Any:
    status, answer = ask(service, path, JSON, method="POST", body=json.dumps(body).encode())
    assert status == 200, answer[:300]
    return json.loads(answer)


SAYS = 'x [[sim:text={"a":1};gap=0;delay=0;reasoning=0;followups=0]]'


def completion(number: int) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": dear(number)}}
    return {"model": "coze", "messages": [{"role": "user", "content": SAYS}], "response_format": form}


def response() -> dict[str, Any]:
    form = {"type": "json_schema", "name": "a", "strict": True, "schema": dear()}
    return {"model": "coze", "input": SAYS, "text": {"format": form}}


def seconds_each(
    service: ServiceProcess, times: int, step: Any, of: Callable[[ServiceProcess], float] = worked
) -> float:
    before = of(service)
    for number in range(times):
        step(number)
    return (of(service) - before) / times


def all_worked(service: ServiceProcess) -> float:
    """As ``worked``, of all its threads."""
    tasks = Path(f"/proc/{service.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def test_a_response_is_read_again_without_its_check_being_made_again(attacked: ServiceProcess) -> None:
    path = f"{RESPONSES}/{posted(attacked, RESPONSES, response())['id']}"

    def read(_number: int) -> None:
        status, answer = ask(attacked, path)
        assert (status, json.loads(answer)["output"][-1]["content"][0]["text"]) == (200, '{"a":1}')

    read(0)
    assert seconds_each(attacked, MANY, read, all_worked) < MOST_SECONDS


def test_the_check_of_a_small_request_is_made_beside_the_event_loop(attacked: ServiceProcess) -> None:
    """Also of one that is refused in the end, and so pays for nothing."""
    posted(attacked, COMPLETIONS, completion(0))
    nothing_asked = [{"role": "user", "content": [{"type": "nothing"}]}]

    def refused(number: int) -> None:
        body = json.dumps(completion(number) | {"messages": nothing_asked}).encode()
        status, answer = ask(attacked, COMPLETIONS, JSON, method="POST", body=body)
        assert (status, b"messages.0" in answer) == (400, True), answer[:300]

    assert seconds_each(attacked, MANY, refused) < MOST_SECONDS


def test_who_has_no_token_left_has_no_check_made(shared_simulator: SimControl) -> None:
    values = {
        "COZE_API_URL": shared_simulator.chat_url,
        "REDIS_URL": "memory://",
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "1",
    }

    def refused(number: int) -> None:
        body = json.dumps(completion(number)).encode()
        status, answer = ask(service, COMPLETIONS, JSON, method="POST", body=body)
        assert status == 429, answer[:300]

    with service_process(values, wait_for="/coze/health") as service:
        posted(service, COMPLETIONS, completion(0))
        refused(1)
        assert seconds_each(service, MANY, refused, all_worked) < MOST_SECONDS


class Beside(BigBodies):
    """That which the service has, and who works with it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = set[int]()

    async def work_briefly(self, owner: str, function: Any, *args: Any, **more: Any) -> Any:
        def noted() -> Any:
            self.threads.add(threading.get_ident())
            return function(*args, **more)

        return await super().work_briefly(owner, noted)


def form_with(work: Work) -> Form:
    form = form_of(ChatCompletionRequest.model_validate(completion(0)), work)
    assert form is not None
    return form


ENDED = Ending(
    json.dumps(
        {
            "chat_id": CHAT_ID,
            "session_id": "s",
            "status": "completed",
            "content": '{"a":1}',
            "reasoning_content": "",
            "usage": None,
            "metadata": {},
            "messages": [],
            "required_action": None,
            "completed_at": "2026-11-22T00:00:00Z",
            "updated_at": "2026-11-22T00:00:00Z",
        }
    ).encode()
)


async def end_of_completion(work: Work) -> bytes:
    stream = ChunkStream(CHAT_ID, "coze", include_usage=False, form=form_with(work))
    return await stream.ending(ENDED, Cursor(1, 9))


async def end_of_response(work: Work) -> bytes:
    note = Note(model="coze", text=response()["text"])
    told = Response(Name(CHAT_ID, 0), note, "s")
    stream = ResponseEvents(told, json.loads(ENDED.record), work, live=True)
    return await stream.ending(ENDED, Cursor(1, 9))


@pytest.mark.parametrize("end", [end_of_completion, end_of_response])
@pytest.mark.parametrize("most", [0, 16 * 1024 * 1024], ids=["nothing is kept", "kept"])
async def test_a_stream_ends_without_holding_up_the_others(end: Any, most: int) -> None:
    bodies, made = Beside(), Recent[Any](most)
    for turn in range(2):
        bodies.threads.clear()
        assert b'{\\"a\\":1}' in await end(Work(made, bodies, "o"))
        is_kept = turn == 1 and most > 0
        assert bool(bodies.threads) is not is_kept
        assert threading.get_ident() not in bodies.threads


async def test_those_who_want_the_same_answer_have_its_check_made_once() -> None:
    bodies, made = BigBodies(), Recent[Any](16 * 1024 * 1024)

    def answer(form: Form) -> tuple[Any, float]:
        began = time.thread_time()
        return form.read('{"a":1}').content, time.thread_time() - began

    forms = [form_with(Work(made, bodies, "o")) for _ in range(8)]
    found = await asyncio.gather(*(reading(form, answer, form) for form in forms))
    assert {content for content, _ in found} == {'{"a":1}'}
    took = sorted(seconds for _, seconds in found)
    assert took[-2] < took[-1] / 3
    assert len(made) == 1


def test_a_request_has_the_same_left_whoever_has_made_its_checks_before() -> None:
    made, left = Recent[Any](16 * 1024 * 1024), []
    for _ in range(2):
        work = Work(made)
        form = form_with(work)
        form.make()
        form.make()
        left.append(work.left)
    assert 0 < left[0] == left[1] < MOST_WORK / 10


def test_one_whose_check_is_gone_makes_it_again_for_nothing() -> None:
    form = form_with(Work(Recent[Any](0)))
    form.make()
    assert form.read('{"a":1}').content == '{"a":1}'


def test_what_is_kept_takes_so_much_and_no_more() -> None:
    kept = Recent[str](10)
    for key, size in ((b"a", 4), (b"b", 4), (b"a", 5)):
        kept.keep(key, key.decode(), size)
    assert (kept.get(b"b"), kept.get(b"a")) == ("b", "a")
    assert kept.get(b"b") == "b"
    kept.keep(b"c", "c", 2)  # "a" was wanted longest ago
    assert [kept.get(key) for key in (b"a", b"b", b"c")] == [None, "b", "c"]
    kept.keep(b"d", "d", 11)
    assert (b"d" in kept, len(kept)) == (False, 2)
