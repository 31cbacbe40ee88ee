"""What a user of the official SDK writes by hand: cozepy's async client in a small FastAPI app."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from cozepy import AsyncCoze, AsyncHTTPClient, AsyncTokenAuth, ChatEventType, ChatStatus, Message, MessageType
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

BOT_ID = "7380000000000000009"


class Question(BaseModel):
    message: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=2000)
    app.state.coze = AsyncCoze(
        auth=AsyncTokenAuth("t"),
        base_url=os.environ["BENCH_UPSTREAM"],
        http_client=AsyncHTTPClient(limits=limits, timeout=None),  # type: ignore[no-untyped-call]
    )
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


def _ask(question: Question) -> dict[str, Any]:
    messages = [Message.build_user_question_text(question.message)]
    return {"bot_id": BOT_ID, "user_id": "u-1", "additional_messages": messages}


@app.post("/chat")
async def chat(question: Question) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for event in app.state.coze.chat.stream(**_ask(question)):
            if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
                text = json.dumps({"content": event.message.content}, ensure_ascii=False)
                yield f"event: conversation.message.delta\ndata: {text}\n\n"
        yield 'event: done\ndata: "[DONE]"\n\n'

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/whole")
async def whole(question: Question) -> dict[str, Any]:
    """Not streamed to the caller, but read as a stream: the quickest that the SDK can do."""
    answer = ""
    async for event in app.state.coze.chat.stream(**_ask(question)):
        if event.event == ChatEventType.CONVERSATION_MESSAGE_DELTA:
            answer += event.message.content
    return {"content": answer}


@app.post("/polled")
async def polled(question: Question) -> dict[str, Any]:
    """Not streamed at all: create, a retrieve every second as Coze's documents ask for, then the messages."""
    coze = app.state.coze
    chat = await coze.chat.create(**_ask(question))
    ids = {"conversation_id": chat.conversation_id, "chat_id": chat.id}
    while chat.status in (ChatStatus.CREATED, ChatStatus.IN_PROGRESS):
        await asyncio.sleep(1)
        chat = await coze.chat.retrieve(**ids)
    messages = await coze.chat.messages.list(**ids)
    return {"content": "".join(m.content for m in messages if m.type == MessageType.ANSWER)}
