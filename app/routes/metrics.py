"""For Prometheus. No authentication: it says how much there is, and of whom only the bots."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.http.dependencies import ResourcesDep

router = APIRouter(tags=["health"])


@router.get("/coze/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request, resources: ResourcesDep) -> Response:
    """Written in a thread: with several workers there are files to read."""
    resources.metrics.queued.set(await resources.chats.queued())
    accept = request.headers.get("accept", "")
    text, content_type = await asyncio.to_thread(resources.metrics.render, accept)
    return Response(text, headers={"Content-Type": content_type})
