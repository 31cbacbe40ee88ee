"""For Prometheus. No authentication: it says how much there is, and of whom only the bots."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import PlainTextResponse

from app.dependencies import ChatsDep, ResourcesDep

router = APIRouter(tags=["health"])


@router.get("/coze/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(
    resources: ResourcesDep, chats: ChatsDep, accept: Annotated[str, Header()] = ""
) -> Response:
    """Written in a thread: with several workers there are files to read."""
    resources.metrics.queued(await chats.queued())
    text, content_type = await asyncio.to_thread(resources.metrics.render, accept)
    return Response(text, headers={"Content-Type": content_type})
