"""Routes that return a constant JSON: ``/0``, ``/1`` ... of the sizes in BENCH_SIZES.

``/redis/0`` ... make one Redis call first: what such a route costs that does nothing else.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
from fastapi import FastAPI, Response


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.redis = redis.asyncio.Redis.from_url(os.environ["BENCH_REDIS"])
    await app.state.redis.set("bench:constant", "1")
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


def add_routes(number: int, size: int) -> None:
    body = b'{"data":"' + b"x" * max(0, size - 11) + b'"}'

    @app.api_route(f"/{number}", methods=["GET", "POST"])
    async def constant() -> Response:
        return Response(body, media_type="application/json")

    @app.api_route(f"/redis/{number}", methods=["GET", "POST"])
    async def one_call() -> Response:
        await app.state.redis.get("bench:constant")
        return Response(body, media_type="application/json")


for _number, _size in enumerate(os.environ["BENCH_SIZES"].split(",")):
    add_routes(_number, int(_size))
