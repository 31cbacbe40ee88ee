"""The ASGI application: Coze's paths at the root and under /coze, and the control endpoints."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from coze_simulator import bots, chats, conversations, messages
from coze_simulator.control import Control
from coze_simulator.core import PREFIX, Call, Core, endpoint_of, split_mount
from coze_simulator.oauth import OAuthError
from coze_simulator.options import SimulatorOptions
from coze_simulator.recorder import Record
from coze_simulator.responses import TRANSPORT_KEY
from coze_simulator.wire import Json


class Simulator(Starlette):
    """A simulator with its state in :attr:`core`. Two of them in one process share nothing."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.core = Core(options)
        control = Control(self.core)
        routes: list[BaseRoute] = [
            Route("/", control.identify, methods=["GET"]),
            Route(PREFIX, control.identify, methods=["GET"]),
            Route(PREFIX + "/", control.identify, methods=["GET"]),
        ]
        for prefix in ("", PREFIX):
            routes += _api_routes(self.core, prefix)
            routes += control.routes(prefix)
        super().__init__(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={404: self._unknown, 405: self._unknown},
        )
        # A 307 on a POST breaks clients that do not follow redirects; Coze sends none.
        self.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Notes the connection's transport before any middleware wraps ``send``: a cut closes it."""
        if scope["type"] == "http":
            scope[TRANSPORT_KEY] = getattr(getattr(send, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.core.close()

    async def _unknown(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):  # registered for 404 and 405 only
            raise error
        mount, path = split_mount(request.url.path)
        record = Record(method=request.method, path=path, mount=mount, query=dict(request.query_params))
        self.core.recorder.add(record)
        return Call(self.core, request, record, self.core.store.ids.logid()).unknown_path()


def create_simulator(options: SimulatorOptions | None = None) -> Simulator:
    """A new simulator, for any ASGI server (uvicorn for `cut`, `drop` and the upstream modes)."""
    return Simulator(options or SimulatorOptions())


def _api_routes(core: Core, prefix: str) -> list[Route]:
    table = [
        ("/v3/chat", ["POST"], chats.create_chat),
        ("/v3/chat/retrieve", ["GET", "POST"], chats.retrieve_chat),
        ("/v3/chat/message/list", ["GET"], chats.list_chat_messages),
        ("/v3/chat/cancel", ["POST"], chats.cancel_chat),
        ("/v3/chat/submit_tool_outputs", ["POST"], chats.submit_tool_outputs),
        ("/v1/conversation/create", ["POST"], conversations.create_conversation),
        ("/v1/conversation/retrieve", ["GET"], conversations.retrieve_conversation),
        ("/v1/conversation/message/list", ["GET", "POST"], conversations.list_conversation_messages),
        ("/v1/conversations/{conversation_id}/clear", ["POST"], conversations.clear_conversation),
        ("/v1/conversations", ["GET"], conversations.list_conversations),
        ("/v1/conversations/{conversation_id}", ["PUT"], conversations.rename_conversation),
        ("/v1/conversations/{conversation_id}", ["DELETE"], conversations.delete_conversation),
        ("/v1/conversation/message/create", ["POST"], messages.create_message),
        ("/v1/conversation/message/retrieve", ["GET"], messages.retrieve_message),
        (
            "/v1/conversations/{conversation_id}/messages/{message_id}/feedback",
            ["POST", "DELETE"],
            conversations.message_feedback,
        ),
        ("/v1/files/retrieve", ["GET"], conversations.retrieve_file),
        ("/v1/bot/get_online_info", ["GET"], bots.online_info),
        ("/v1/bots/{bot_id}", ["GET"], bots.retrieve_bot),
    ]
    routes = [
        Route(prefix + path, endpoint_of(core, handler), methods=methods) for path, methods, handler in table
    ]
    upload = endpoint_of(core, conversations.upload_file, raw=True)
    routes.append(Route(f"{prefix}/v1/files/upload", upload, methods=["POST"]))
    token = endpoint_of(core, _issue_token, public=True, raw=True)
    middles = ("", "/account/{account_id}", "/enterprise_id/{enterprise_id}")
    oauth = f"{prefix}/api/permission/oauth2"
    return routes + [Route(f"{oauth}{middle}/token", token, methods=["POST"]) for middle in middles]


async def _issue_token(call: Call) -> Response:
    """POST /api/permission/oauth2/token: no envelope, HTTP statuses for errors."""
    headers = call.request.headers
    scheme, _, assertion = headers.get("authorization", "").partition(" ")
    try:
        body = _token_body(await call.request.body())
        issued = call.core.office.issue(
            assertion.strip() if scheme.lower() == "bearer" else "", body, headers.get("host", "")
        )
    except OAuthError as error:
        return call.json(error.status, error.view())
    return call.json(200, issued)


def _token_body(raw: bytes) -> Json:
    try:
        body = json.loads(raw or b"{}")
    except ValueError as error:
        raise OAuthError(400, "invalid_request", "the body is not valid JSON") from error
    if not isinstance(body, dict):
        raise OAuthError(400, "invalid_request", "the body must be a JSON object")
    return body
