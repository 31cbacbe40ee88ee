"""OpenAI's Responses API in front of the running service, with OpenAI's own SDK."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from app.doors.openai.responses.notes import MOST_NOTED
from app.redis_client import Keys
from coze_simulator import SIMULATOR_BOT_ID
from tests.support import RunningApp, SimControl, wait_until

from .support import APP_KEY, MODEL, WEBUI_KEY, chat_id_of, sync_client

SUBMIT = "/v3/chat/submit_tool_outputs"
WEATHER = "[[sim:requires_action=function;tool_calls=2;rounds=2]] weather?"
PICTURE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ORDER_OF_TEXT = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
ORDER_OF_THOUGHTS = [
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
]


def types_of(events: list[Any]) -> list[str]:
    """The types in their order; neighbours of one type count once."""
    types = [event.type for event in events]
    return [kind for n, kind in enumerate(types) if n == 0 or types[n - 1] != kind]


def check_numbers(events: list[Any], first: int = 0) -> None:
    assert [event.sequence_number for event in events] == list(range(first, first + len(events)))


def outputs_of(response: Response, text: str) -> list[Any]:
    calls = [item for item in response.output if item.type == "function_call"]
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{text} {number}"}
        for number, call in enumerate(calls)
    ]


def held_at_coze(simulator: SimControl, word: str, *roles: str) -> list[str]:
    """The texts of the conversation in which something with this word was asked, up to that."""
    request = simulator.requests(path="/v3/chat", contains=word)[-1]
    messages = simulator.running.app.core.store.conversations[request["conversation_id"]].messages
    texts = [
        m.content for m in messages if m.type in ("question", "answer") and m.role in (roles or ("user",))
    ]
    return texts[: next(n for n, text in enumerate(texts) if word in text) + 1]


# -- whole, and as a stream -------------------------------------------------------------------------------


def test_a_whole_response_has_thoughts_text_usage_and_all_fields_that_the_sdk_knows(ai: OpenAI) -> None:
    made = ai.responses.create(
        model=MODEL, input="hello", instructions="Be kind.", metadata={"app": "web"}, user="u-7"
    )
    assert Response.model_validate(made.to_dict()) == made
    assert [item.type for item in made.output] == ["reasoning", "message"]
    assert made.output_text
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens > 0
    assert (made.status, made.error, made.background, made.store) == ("completed", None, False, True)
    assert (made.instructions, made.metadata, made.user) == ("Be kind.", {"app": "web"}, "u-7")
    assert made.id.startswith("resp_coze_chat_")
    assert ai.responses.retrieve(made.id) == made


def test_a_stream_tells_the_events_of_openais_reference_in_their_order(ai: OpenAI) -> None:
    events = list(ai.responses.create(model=MODEL, input="hello", stream=True))
    opening, ending = ["response.created", "response.in_progress"], ["response.completed"]
    assert types_of(events) == opening + ORDER_OF_THOUGHTS + ORDER_OF_TEXT + ending
    check_numbers(events)
    final = events[-1].response
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told == final.output_text != ""
    assert ai.responses.retrieve(final.id) == final


def test_the_sdks_own_accumulator_takes_every_stream(ai: OpenAI) -> None:
    for text in ("hello", WEATHER, "[[sim:multi=3]] many", "[[sim:card=1]] a card", "[[sim:text=]] nothing"):
        with ai.responses.stream(model=MODEL, input=text) as stream:
            final = stream.until_done().get_final_response()
        assert final.output_text == ai.responses.retrieve(final.id).output_text


def test_a_response_in_background_is_told_at_once_and_fetched_later(ai: OpenAI) -> None:
    made = ai.responses.create(model=MODEL, input="[[sim:delay=1]] slow", background=True)
    assert made.status in ("queued", "in_progress")
    assert (made.output, made.background) == ([], True)
    ended = until_ended(ai, made.id)
    assert (ended.status, ended.created_at) == ("completed", made.created_at)
    assert ended.output_text


def until_ended(ai: OpenAI, response_id: str) -> Response:
    while (response := ai.responses.retrieve(response_id)).status in ("queued", "in_progress"):
        pass
    return response


def test_a_stream_in_background_is_read_on_behind_each_of_its_events(ai: OpenAI) -> None:
    events = list(ai.responses.create(model=MODEL, input="hello", stream=True, background=True))
    opening = ["response.created", "response.queued", "response.in_progress"]
    assert types_of(events) == opening + ORDER_OF_THOUGHTS + ORDER_OF_TEXT + ["response.completed"]
    check_numbers(events)
    response_id = events[0].response.id  # type: ignore[union-attr]
    assert list(ai.responses.retrieve(response_id, stream=True)) == events
    for place in [*range(0, len(events), 7), len(events) - 2, len(events) - 1]:
        rest = list(ai.responses.retrieve(response_id, stream=True, starting_after=place))
        assert rest == events[place + 1 :], place


def test_the_pieces_of_a_text_follow_from_its_length_however_it_arrives(
    ai: OpenAI, simulator: SimControl
) -> None:
    text = "x" * 2500
    told = []
    for deltas in (1, 7, 2500):
        simulator.knob(match=f"in {deltas}", text=text, deltas=deltas, reasoning=False)
        stream = ai.responses.create(model=MODEL, input=f"in {deltas}", stream=True, background=True)
        told.append([event.delta for event in stream if event.type == "response.output_text.delta"])
    assert told[0] == told[1] == told[2]
    assert [len(piece) for piece in told[0]] == [4] * 500 + [16] * 31 + [4]


async def test_both_kinds_of_client_may_leave_a_response_in_background(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    stream = await async_ai.responses.create(
        model=MODEL, input="[[sim:deltas=20;gap=0.05]] typing", stream=True, background=True
    )
    async for event in stream:
        response_id = event.response.id  # type: ignore[union-attr]
        break
    await stream.close()
    again = [
        event async for event in await async_ai.responses.retrieve(response_id, stream=True, starting_after=0)
    ]
    check_numbers(again, 1)
    assert again[-1].type == "response.completed"
    assert not simulator.requests(path="/v3/chat/cancel")


async def test_hanging_up_stops_what_is_not_in_background(
    async_ai: AsyncOpenAI, simulator: SimControl
) -> None:
    stream = await async_ai.responses.create(
        model=MODEL, input="[[sim:deltas=500;gap=0.05;reasoning=0]] typing", stream=True
    )
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    await wait_until(lambda: simulator.requests(path="/v3/chat/cancel"))


# -- conversations ----------------------------------------------------------------------------------------


def test_the_newest_response_goes_on_in_its_conversation_and_an_earlier_one_in_another(
    ai: OpenAI, simulator: SimControl
) -> None:
    first = ai.responses.create(model=MODEL, input="first heron", instructions="Be brief.")
    second = ai.responses.create(model=MODEL, input="second heron", previous_response_id=first.id)
    assert second.conversation == first.conversation
    assert second.previous_response_id == first.id
    at_coze = [request["conversation_id"] for request in simulator.requests(path="/v3/chat")]
    assert len(set(at_coze)) == 1
    assert held_at_coze(simulator, "second heron") == ["Be brief.", "first heron", "second heron"]
    branch = ai.responses.create(model=MODEL, input="other heron", previous_response_id=first.id)
    assert branch.conversation != first.conversation
    sent = held_at_coze(simulator, "other heron", "user", "assistant")
    assert sent == ["first heron", first.output_text, "other heron"]
    deeper = ai.responses.create(model=MODEL, input="deeper heron", previous_response_id=branch.id)
    assert deeper.conversation == branch.conversation


def test_instructions_that_the_conversation_has_are_not_sent_again(ai: OpenAI, simulator: SimControl) -> None:
    first = ai.responses.create(model=MODEL, input="one crane", instructions="Be brief.")
    again = ai.responses.create(
        model=MODEL, input="two crane", instructions="Be brief.", previous_response_id=first.id
    )
    ai.responses.create(
        model=MODEL, input="three crane", instructions="Be long.", previous_response_id=again.id
    )
    told = ["Be brief.", "one crane", "two crane", "Be long.", "three crane"]
    assert held_at_coze(simulator, "three crane") == told


def test_a_conversation_that_a_response_told_goes_on(ai: OpenAI, simulator: SimControl) -> None:
    first = ai.responses.create(model=MODEL, input="hello")
    assert first.conversation is not None
    second = ai.responses.create(model=MODEL, input="again", conversation=first.conversation.id)
    third = ai.responses.create(model=MODEL, input="more", conversation={"id": first.conversation.id})
    assert first.conversation == second.conversation == third.conversation
    assert len({request["conversation_id"] for request in simulator.requests(path="/v3/chat")}) == 1


@pytest.mark.parametrize("given", ["conv_x", "conv_coze_session_1795372833115_7l4mgyuf3lw2iispuvavf", "x"])
def test_an_unknown_conversation_is_a_404(ai: OpenAI, given: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        ai.responses.create(model=MODEL, input="hello", conversation=given)
    assert (refused.value.code, refused.value.param) == ("conversation_not_found", "conversation")


def test_another_bot_goes_on_in_a_conversation_of_its_own_with_the_history(
    ai: OpenAI, open_door: Any, simulator: SimControl
) -> None:
    other = SIMULATOR_BOT_ID[::-1]
    door = open_door(COZE_BOTS=f"a:{SIMULATOR_BOT_ID},b:{other}")
    with sync_client(door.base_url) as ours:
        first = ours.responses.create(model="a", input="hello egret")
        assert first.conversation is not None
        with pytest.raises(openai.BadRequestError) as refused:
            ours.responses.create(model="b", input="x", conversation=first.conversation.id)
        assert refused.value.param == "model"
        second = ours.responses.create(model="b", input="again egret", previous_response_id=first.id)
        assert second.conversation != first.conversation
        sent = held_at_coze(simulator, "again egret", "user", "assistant")
        assert sent == ["hello egret", first.output_text, "again egret"]
        old, new = simulator.requests(path="/v3/chat")
        assert new["conversation_id"] != old["conversation_id"]


@pytest.mark.parametrize(
    "given",
    ["resp_x", "x", "resp_coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n", "resp_" * 30],
)
def test_an_unknown_previous_response_is_openais_own_error(ai: OpenAI, given: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ai.responses.create(model=MODEL, input="hello", previous_response_id=given)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_a_response_whose_session_has_expired_is_gone_with_its_conversation(open_door: Any) -> None:
    door = open_door(COZE_SESSION_EXPIRE="1")
    with sync_client(door.base_url) as ai:
        first = ai.responses.create(model=MODEL, input="hello")
        while True:
            try:
                ai.responses.retrieve(first.id)
            except openai.NotFoundError:
                break
        with pytest.raises(openai.BadRequestError) as refused:
            ai.responses.create(model=MODEL, input="again", previous_response_id=first.id)
        assert refused.value.code == "previous_response_not_found"


def test_what_was_not_to_be_stored_is_not_found_and_not_gone_on_from(ai: OpenAI) -> None:
    made = ai.responses.create(model=MODEL, input="hello", store=False)
    assert (made.store, made.conversation) == (False, None)
    with pytest.raises(openai.NotFoundError):
        ai.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError):
        ai.responses.create(model=MODEL, input="again", previous_response_id=made.id)


def test_of_two_that_go_on_from_one_response_both_have_its_history(ai: OpenAI, simulator: SimControl) -> None:
    first = ai.responses.create(model=MODEL, input="first gull")
    with ai.responses.create(
        model=MODEL,
        input="[[sim:delay=5]] slow gull",
        previous_response_id=first.id,
        background=True,
        stream=True,
    ) as slow:
        running = next(iter(slow)).response.id  # type: ignore[union-attr]
        other = ai.responses.create(model=MODEL, input="other gull", previous_response_id=first.id)
    assert other.status == "completed"
    with pytest.raises(openai.ConflictError):
        ai.responses.create(model=MODEL, input="too early", previous_response_id=running)
    assert ai.responses.cancel(running).status == "cancelled"


# -- functions --------------------------------------------------------------------------------------------


def test_rounds_of_functions_are_responses_of_their_own_that_stay_as_they_were(
    ai: OpenAI, simulator: SimControl
) -> None:
    first = ai.responses.create(model=MODEL, input=WEATHER)
    assert first.status == "completed"
    second = ai.responses.create(model=MODEL, input=outputs_of(first, "sun"), previous_response_id=first.id)
    third = ai.responses.create(model=MODEL, input=outputs_of(second, "rain"), previous_response_id=second.id)
    assert "rain" in third.output_text
    assert len({first.id, second.id, third.id}) == 3
    assert [ai.responses.retrieve(each.id) for each in (first, second, third)] == [first, second, third]
    assert len(simulator.requests(path="/v3/chat")) == 1
    assert len(simulator.requests(path=SUBMIT)) == 2


def test_of_a_chat_with_many_long_rounds_the_newest_responses_are_kept(ai: OpenAI, door: RunningApp) -> None:
    """Eighty rounds made a record of 10 MB, which each look at one of them read."""
    long: Any = {"role": "user", "content": '"' * 60_000}
    made = [ai.responses.create(model=MODEL, input="[[sim:requires_action=function;rounds=6]] weather?")]
    for number in range(5):
        items = [long, *outputs_of(made[-1], str(number))]
        made.append(ai.responses.create(model=MODEL, input=items, previous_response_id=made[-1].id))
    chat_id = chat_id_of(made[0].id.replace("resp_", "chatcmpl-"))
    key = Keys(door.settings.redis_prefix).chats(chat_id)
    lies = door.call(lambda: door.store.hstrlen(key, chat_id))
    assert MOST_NOTED < lies < 4 * MOST_NOTED, "two notes of which each is longer, and what the chat said"
    assert [ai.responses.retrieve(each.id) for each in made[-2:]] == made[-2:]
    assert len(ai.responses.input_items.list(made[-1].id).data) == 2
    with pytest.raises(openai.NotFoundError):
        ai.responses.retrieve(made[0].id)
    last = ai.responses.create(
        model=MODEL, input=outputs_of(made[-1], "sun"), previous_response_id=made[-1].id
    )
    again = ai.responses.create(model=MODEL, input="and now", previous_response_id=last.id)
    branch = ai.responses.create(model=MODEL, input="or so", previous_response_id=made[-1].id)
    assert again.conversation == last.conversation != branch.conversation


def test_function_calls_are_streamed_with_their_arguments_and_in_background_again(ai: OpenAI) -> None:
    events = list(ai.responses.create(model=MODEL, input=WEATHER, stream=True, background=True))
    calls = [event for event in events if "function_call" in event.type]
    assert [event.type.rpartition(".")[2] for event in calls] == ["delta", "done"] * 2
    first = events[-1].response
    assert [event.arguments for event in calls if event.type.endswith("done")] == [
        item.arguments for item in first.output if item.type == "function_call"
    ]
    more = list(
        ai.responses.create(
            model=MODEL,
            input=outputs_of(first, "sun"),
            previous_response_id=first.id,
            stream=True,
            background=True,
        )
    )
    second = more[-1].response
    check_numbers(more)
    ai.responses.create(model=MODEL, input=outputs_of(second, "rain"), previous_response_id=second.id)
    for response, told in ((first, events), (second, more)):
        assert list(ai.responses.retrieve(response.id, stream=True)) == told
        assert list(ai.responses.retrieve(response.id, stream=True, starting_after=4)) == told[5:]


def test_the_same_outputs_again_are_the_same_response(ai: OpenAI, simulator: SimControl) -> None:
    first = ai.responses.create(model=MODEL, input=WEATHER)
    made = [
        ai.responses.create(model=MODEL, input=outputs_of(first, "sun"), previous_response_id=first.id)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(simulator.requests(path=SUBMIT)) == 1


def test_items_may_be_sent_back_whole_or_as_references(ai: OpenAI, simulator: SimControl) -> None:
    """The AI SDK refers to what was stored, openai-agents sends it all."""
    for whole in (True, False):
        question = {"role": "user", "content": f"{WEATHER} {whole}"}
        first = ai.responses.create(model=MODEL, input=[question])
        items = [
            item.to_dict() if whole else {"type": "item_reference", "id": item.id} for item in first.output
        ]
        second = ai.responses.create(model=MODEL, input=[question, *items, *outputs_of(first, "sun")])
        assert second.id.startswith(first.id)
        assert second.output
    assert len(simulator.requests(path=SUBMIT)) == 2
    told = ai.responses.create(model=MODEL, input="swift one")
    reference = {"type": "item_reference", "id": told.output[-1].id}
    ai.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": "a"}, reference, {"role": "user", "content": "swift two"}],
    )
    sent = held_at_coze(simulator, "swift two", "user", "assistant")
    assert sent == ["a", told.output_text, "swift two"]


def test_a_reference_to_nothing_is_refused(ai: OpenAI) -> None:
    for item_id in ("msg_x", "msg_coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"):
        with pytest.raises(openai.BadRequestError) as refused:
            ai.responses.create(model=MODEL, input=[{"type": "item_reference", "id": item_id}])  # type: ignore[list-item,misc]
        assert refused.value.param == "input.0.id"


def test_a_question_while_functions_wait_is_refused_as_openai_does(ai: OpenAI) -> None:
    first = ai.responses.create(model=MODEL, input=WEATHER)
    with pytest.raises(openai.BadRequestError) as refused:
        ai.responses.create(model=MODEL, input="well?", previous_response_id=first.id)
    assert "No tool output found for function call" in str(refused.value)
    ai.responses.delete(first.id)


def test_outputs_go_with_the_response_that_asked_for_them(ai: OpenAI) -> None:
    other = ai.responses.create(model=MODEL, input="hello")
    first = ai.responses.create(model=MODEL, input=WEATHER)
    with pytest.raises(openai.BadRequestError) as refused:
        ai.responses.create(model=MODEL, input=outputs_of(first, "sun"), previous_response_id=other.id)
    assert refused.value.param == "previous_response_id"
    ai.responses.delete(first.id)


# -- forms ------------------------------------------------------------------------------------------------


class Place(BaseModel):
    name: str
    people: int


def test_a_form_is_parsed_and_streamed_whole(ai: OpenAI, simulator: SimControl) -> None:
    simulator.knob(match="a place, please", text='```json\n{"name": "Wuhan", "people": 13000000}\n```')
    parsed = ai.responses.parse(model=MODEL, input="a place, please", text_format=Place)
    assert parsed.output_parsed == Place(name="Wuhan", people=13000000)
    with ai.responses.stream(model=MODEL, input="a place, please", text_format=Place) as stream:
        final = stream.until_done().get_final_response()
    assert final.output_parsed == parsed.output_parsed
    assert ai.responses.retrieve(final.id).output_text == '{"name": "Wuhan", "people": 13000000}'


def test_what_does_not_have_the_form_is_refused(ai: OpenAI) -> None:
    form = {"type": "json_schema", "name": "p", "strict": True, "schema": Place.model_json_schema()}
    events = list(
        ai.responses.create(model=MODEL, input="hello", text={"format": form}, stream=True, background=True)  # type: ignore[call-overload,typeddict-item]
    )
    types = types_of(events)
    assert types[-6:] == [
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    again = ai.responses.retrieve(events[-1].response.id)
    assert again.output[-1].content[0].type == "refusal"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "place"},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "place"}],
        },
    ],
)
def test_a_function_that_is_demanded_is_called_and_its_output_is_the_next_question(
    ai: OpenAI, simulator: SimControl, choice: Any
) -> None:
    simulator.knob(match="a place, please", text='{"name": "Wuhan", "people": 13000000}')
    tool: Any = {"type": "function", "name": "place", "parameters": Place.model_json_schema(), "strict": True}
    first = ai.responses.create(model=MODEL, input="a place, please", tools=[tool], tool_choice=choice)
    assert ai.responses.retrieve(first.id) == first
    [call] = [item for item in first.output if item.type == "function_call"]
    assert (call.name, call.arguments) == ("place", '{"name": "Wuhan", "people": 13000000}')
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "noted ibis"}
    second = ai.responses.create(model=MODEL, input=[output], previous_response_id=first.id)
    assert second.conversation == first.conversation
    assert held_at_coze(simulator, "noted ibis")[-1] == "The function `place` returned:\nnoted ibis"


# -- what is sent -----------------------------------------------------------------------------------------


def test_images_and_files_are_uploaded_once_and_listed_by_their_ids(
    ai: OpenAI, simulator: SimControl
) -> None:
    parts: Any = [
        {"type": "input_text", "text": "what stork"},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8gZmlsZQ=="},
        {"type": "input_file", "file_url": "https://example.com/b.pdf"},
    ]
    made = [ai.responses.create(model=MODEL, input=[{"role": "user", "content": parts}]) for _ in range(2)]
    assert len(simulator.requests(path="/v1/files/upload")) == 2
    sent = held_at_coze(simulator, "what stork")[-1]
    assert [part["type"] for part in orjson.loads(sent)] == ["text", "image", "image", "file", "file"]
    [item] = ai.responses.input_items.list(made[0].id).data
    content = item.to_dict()["content"]
    assert [part["type"] for part in content] == [part["type"] for part in parts]  # type: ignore[index,attr-defined]
    assert content[1]["file_id"].startswith("coze_file_")  # type: ignore[index]
    assert "base64" not in str(content)
    branch = ai.responses.create(model=MODEL, input="and now", previous_response_id=made[0].id)
    assert branch.conversation == made[0].conversation


def test_input_items_are_paged_in_both_orders(ai: OpenAI) -> None:
    texts = ["one", "two", "three"]
    made = ai.responses.create(model=MODEL, input=[{"role": "user", "content": text} for text in texts])

    def listed(order: Any) -> list[str]:
        items = ai.responses.input_items.list(made.id, order=order, limit=2)
        return [item.content[0].text for item in items]  # type: ignore[union-attr]

    assert listed("asc") == texts
    assert listed("desc") == texts[::-1]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"background": True, "store": False}, "store"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"previous_response_id": "resp_x", "conversation": "conv_x"}, "conversation"),
    ({"model": "nobody"}, "model"),
    ({"input": []}, "input"),
    ({"input": [{"role": "critic", "content": "x"}]}, "input.0.role"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input.0.content.0.type"),
    ({"input": [{"type": "computer_call_output", "call_id": "x"}]}, "input.0.type"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input.0.tool_call_id"),
    ({"text": {"format": {"type": "grammar"}}}, "text"),
    ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 1}}}}, "text.format"),
    ({"text": {"format": {"type": "text"}, "more": "x" * 200_000}}, "text"),
    ({"tool_choice": {"type": "auto", "more": "x" * 200_000}}, "tool_choice"),
    ({"tool_choice": "required", "tools": [{"name": "f", "more": "x" * 200_000}]}, "tools"),
]


@pytest.mark.parametrize(("more", "param"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_done_is_refused_by_the_name_of_the_parameter(
    ai: OpenAI, simulator: SimControl, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        ai.responses.create(**{"model": MODEL, "input": "hello"} | more)
    assert refused.value.status_code in (400, 404)
    assert str(refused.value.param).startswith(param)
    assert simulator.requests(path="/v3/chat") == []


# -- failures, cancelling, deleting -----------------------------------------------------------------------


def test_a_refusal_has_its_status_in_a_stream_too(ai: OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            ai.responses.create(model=MODEL, input="[[sim:fail=4010]] hello", stream=stream)
        assert refused.value.code == "context_length_exceeded"


def test_an_answer_that_fails_midway_ends_with_response_failed(ai: OpenAI) -> None:
    for background in (False, True):
        events = list(
            ai.responses.create(
                model=MODEL, input="[[sim:deltas=9;fail_at=5]] hello", stream=True, background=background
            )
        )
        assert events[-1].type == "response.failed"
        check_numbers(events)
        failed = events[-1].response
        assert failed.error is not None
        assert failed.error.code == "server_error"
        assert ai.responses.retrieve(failed.id) == failed


def test_in_background_a_refusal_is_a_failed_response(ai: OpenAI) -> None:
    made = ai.responses.create(model=MODEL, input="[[sim:fail=4028]] hello", background=True)
    ended = until_ended(ai, made.id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "rate_limit_exceeded"
    assert "4028" in ended.error.message


def test_only_what_is_in_background_is_cancelled_and_twice_is_once(ai: OpenAI, simulator: SimControl) -> None:
    stream = ai.responses.create(
        model=MODEL, input="[[sim:deltas=100;gap=0.1]] typing", background=True, stream=True
    )
    seen = []
    for event in stream:
        seen.append(event)
        if event.type == "response.reasoning_summary_text.delta":
            break
    response_id = seen[0].response.id  # type: ignore[union-attr]
    assert [ai.responses.cancel(response_id).status for _ in range(2)] == ["cancelled"] * 2
    rest = list(stream)
    assert (rest[-1].type, rest[-1].response.status) == ("response.incomplete", "cancelled")  # type: ignore[union-attr]
    check_numbers(seen + rest)
    assert len(simulator.requests(path="/v3/chat/cancel")) == 1
    whole = ai.responses.create(model=MODEL, input="hello")
    with pytest.raises(openai.BadRequestError):
        ai.responses.cancel(whole.id)


def test_what_was_deleted_is_gone_and_what_went_on_from_it_stays(ai: OpenAI) -> None:
    first = ai.responses.create(model=MODEL, input="hello")
    second = ai.responses.create(model=MODEL, input="again", previous_response_id=first.id)
    raw = ai.responses.with_raw_response.delete(first.id)
    assert raw.http_response.json() == {"id": first.id, "object": "response", "deleted": True}
    for ask in (ai.responses.retrieve, ai.responses.delete, ai.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(first.id)  # type: ignore[operator]
    third = ai.responses.create(model=MODEL, input="more", previous_response_id=second.id)
    assert third.conversation == second.conversation
    ai.responses.delete(third.id)
    back = ai.responses.create(model=MODEL, input="other", previous_response_id=second.id)
    assert back.conversation != second.conversation, "Coze still remembers what was deleted here"


def test_deleting_one_of_a_chats_responses_leaves_the_others(ai: OpenAI, simulator: SimControl) -> None:
    first = ai.responses.create(model=MODEL, input=WEATHER)
    second = ai.responses.create(model=MODEL, input=outputs_of(first, "sun"), previous_response_id=first.id)
    ai.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        ai.responses.retrieve(first.id)
    assert ai.responses.retrieve(second.id) == second
    ai.responses.delete(second.id)  # it waits for outputs, so it is cancelled
    with pytest.raises(openai.NotFoundError):
        ai.responses.retrieve(second.id)


def test_references_to_more_responses_than_messages_go_along_are_refused(
    ai: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.doors.openai.responses.found.MOST_REFERRED", 2)
    made = [ai.responses.create(model=MODEL, input="hello") for _ in range(3)]
    items: Any = [{"type": "item_reference", "id": each.output[-1].id} for each in made]
    question: Any = {"role": "user", "content": "x"}
    assert ai.responses.create(model=MODEL, input=[*items[:2] * 5, question]).output_text
    with pytest.raises(openai.BadRequestError) as refused:
        ai.responses.create(model=MODEL, input=[*items, question])
    assert refused.value.param == "input.2.id"


def test_references_and_a_history_end_where_too_much_was_read(
    ai: OpenAI, simulator: SimControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [ai.responses.create(model=MODEL, input="gull")]
    for _ in range(2):
        made.append(ai.responses.create(model=MODEL, input="gull", previous_response_id=made[-1].id))
    items: Any = [{"type": "item_reference", "id": each.output[-1].id} for each in made]
    question: Any = {"role": "user", "content": "x"}
    monkeypatch.setattr("app.doors.openai.responses.found.MOST_READ", 1)
    assert ai.responses.create(model=MODEL, input=[*items[:1] * 5, question]).output_text
    with pytest.raises(openai.BadRequestError, match="too large") as refused:
        ai.responses.create(model=MODEL, input=[*items, question])
    assert refused.value.param == "input.1.id"
    for most, entered in ((1, 1), (1 << 20, 2)):
        monkeypatch.setattr("app.doors.openai.responses.found.MOST_READ", most)
        ai.responses.create(model=MODEL, input=f"gull {most}", previous_response_id=made[1].id)
        assert held_at_coze(simulator, f"gull {most}") == ["gull"] * entered + [f"gull {most}"]
    for links, entered in ((1, 1), (2, 2)):
        monkeypatch.setattr("app.doors.openai.responses.found.MOST_LINKS", links)
        ai.responses.create(model=MODEL, input=f"{links} gulls", previous_response_id=made[1].id)
        assert held_at_coze(simulator, f"{links} gulls") == ["gull"] * entered + [f"{links} gulls"]


def test_a_users_responses_are_erased_with_the_user(ai: OpenAI, door: RunningApp) -> None:
    first = ai.responses.create(model=MODEL, input="hello", user="u-9")
    ai.responses.create(model=MODEL, input="again", user="u-9", previous_response_id=first.id)
    answer = httpx.delete(
        f"{door.base_url}/coze/users/u-9", headers={"Authorization": f"Bearer {WEBUI_KEY}"}, trust_env=False
    )
    assert answer.json()["data"]["task_result"]["data"]["erased_chats"] == 2
    with pytest.raises(openai.NotFoundError):
        ai.responses.retrieve(first.id)


def test_only_streams_in_background_are_streamed_again(ai: OpenAI) -> None:
    for more in ({}, {"background": True}):
        made = ai.responses.create(model=MODEL, input="hello", **more)  # type: ignore[call-overload]
        with pytest.raises(openai.BadRequestError) as refused:
            ai.responses.retrieve(made.id, stream=True)
        assert refused.value.param == "stream"


def test_an_idempotency_key_leads_to_the_same_response(ai: OpenAI, simulator: SimControl) -> None:
    first = ai.responses.create(model=MODEL, input="hello")
    key = {"Idempotency-Key": "r-1"}
    made = [
        ai.responses.create(model=MODEL, input="once", previous_response_id=first.id, extra_headers=key)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    with pytest.raises(openai.UnprocessableEntityError):
        ai.responses.create(model=MODEL, input="twice", previous_response_id=first.id, extra_headers=key)
    assert len(simulator.requests(path="/v3/chat")) == 2


def test_somebody_elses_response_is_an_unknown_one_everywhere(open_door: Any, simulator: SimControl) -> None:
    door = open_door(ENABLE_AUTH="true")
    unknown = "resp_coze_chat_1795372834470_7gdps4qxt4cw5d2pknkytgwpw6mvfvekbqjatrh3n"
    with sync_client(door.base_url) as owner, sync_client(door.base_url, APP_KEY) as stranger:
        mine = owner.responses.create(
            model=MODEL, input="[[sim:delay=60]] secret", background=True, stream=True
        )
        response_id = next(iter(mine)).response.id  # type: ignore[union-attr]
        simulator.reset()

        def told(ai: OpenAI, given: str) -> list[Any]:
            item = given.replace("resp_", "msg_")
            asks: list[Any] = [
                lambda: ai.responses.retrieve(given),
                lambda: ai.responses.retrieve(given, stream=True),
                lambda: ai.responses.cancel(given),
                lambda: ai.responses.delete(given),
                lambda: ai.responses.input_items.list(given),
                lambda: ai.responses.create(model=MODEL, input="x", previous_response_id=given),
                lambda: ai.responses.create(
                    model=MODEL,
                    input=[{"type": "item_reference", "id": item}],  # type: ignore[list-item,misc]
                ),
            ]
            answers = []
            for ask in asks:
                with pytest.raises(openai.APIStatusError) as refused:
                    ask()
                text = refused.value.response.text.replace(given, "<id>")
                answers.append((refused.value.status_code, text))
            return answers

        assert told(stranger, response_id) == told(stranger, unknown)
        assert [status for status, _ in told(stranger, unknown)] == [404] * 5 + [400] * 2
        assert simulator.requests() == []
        assert owner.responses.cancel(response_id).status == "cancelled"
