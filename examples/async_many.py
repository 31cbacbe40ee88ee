"""Many questions at once, each in its own session, over one client.

./run-service.sh test
PYTHONPATH=client/src .venv/bin/python examples/async_many.py
"""

import asyncio
import os

from coze_fastapi_client import AsyncCozeClient


async def ask(client: AsyncCozeClient, user: str, question: str) -> str:
    session = await client.sessions.create(user)
    async with client.chats.stream(session.session_id, question) as stream:
        answer = "".join([piece async for piece in stream.text_deltas()])
    await client.sessions.delete(session.session_id)
    return answer


async def main() -> None:
    async with AsyncCozeClient(os.environ.get("BASE_URL", "http://127.0.0.1:6000")) as client:
        questions = [f"{number} + {number}" for number in range(20)]
        answers = await asyncio.gather(
            *(ask(client, f"user-{number}", question) for number, question in enumerate(questions))
        )
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question}: {answer.splitlines()[0]}")


asyncio.run(main())
