"""What is written of an answer: the end of a chat, and the lines of a stream."""

import json

import pytest

from app.coze.fold import Fold
from app.coze.stream import SSEEvent
from app.http.sse import without_separators
from app.models.chats import Chat, UserMessage
from app.tasks.frames import close_chat, data_of, stored_frames
from app.utils import iso, new_chat_id, new_id


def new_chat() -> Chat:
    session_id = new_id("session")
    moment = iso()
    return Chat(
        chat_id=new_chat_id(session_id),
        session_id=session_id,
        user_message=UserMessage(content="hi", timestamp=moment, message_id="1"),
        status="processing",
        created_at=moment,
        updated_at=moment,
    )


CREATED = SSEEvent("conversation.chat.created", b'{"id":"7","conversation_id":"9","status":"created"}')
TEXT = SSEEvent("conversation.message.delta", b'{"id":"1","type":"answer","content":"abc"}')


def refusal(code: int) -> SSEEvent:
    return SSEEvent("error", b'{"code":%d,"msg":"x"}' % code)


@pytest.mark.parametrize("code", [4009, 4013, 4016, 4020, 5000, 720702222, 6006])
@pytest.mark.parametrize("before", [[CREATED], [TEXT], [CREATED, TEXT]])
def test_what_began_and_then_failed_is_never_called_worth_repeating(
    code: int, before: list[SSEEvent]
) -> None:
    fold, chat = Fold(), new_chat()
    fold.feed_all([*before, refusal(code)])

    close_chat(chat, fold, "")

    assert chat.error is not None
    assert (chat.status, chat.error.coze_code, chat.error.retryable) == ("failed", code, False)


@pytest.mark.parametrize(
    ("types", "told"),
    [
        (["card"], "card"),
        (["object_string"], "object_string"),
        (["text", "text"], "text"),
        (["text", "card"], "mixed"),
        ([""], "text"),
    ],
)
def test_the_record_and_its_snapshot_say_what_kind_of_content_it_is(types: list[str], told: str) -> None:
    fold, chat = Fold(), new_chat()
    for place, content_type in enumerate(types):
        message = {"id": str(place), "type": "answer", "content": "{}", "content_type": content_type}
        fold.feed(SSEEvent("conversation.message.completed", json.dumps(message).encode()))
    fold.feed(SSEEvent("conversation.chat.completed", b'{"id":"7","status":"completed"}'))

    close_chat(chat, fold, "")

    assert chat.assistant_message is not None
    assert chat.assistant_message.content_type == told
    assert data_of(stored_frames(chat)[0])["messages"][0]["content_type"] == told


@pytest.mark.parametrize(
    "text",
    [
        "a\u2028b",
        "a\u2029b",
        "a\u0085b",
        "\u2028\u2029\u0085",
        "\u4f60\u2028",
        "\u201c\u2014\u201d",
        "\u00e2",
        "plain",
        "\u00c2\u0085",
        "\U0001f600\u2028",
    ],
)
def test_the_lines_of_a_stream_are_cut_nowhere_but_at_line_feeds(text: str) -> None:
    frame = f"event: x\ndata: {json.dumps({'t': text}, ensure_ascii=False)}\n\n".encode()

    lines = without_separators(frame).decode().splitlines()

    assert len(lines) == 3
    assert json.loads(lines[1].removeprefix("data: ")) == {"t": text}
