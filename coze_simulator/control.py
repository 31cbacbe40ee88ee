"""The control endpoints under /_sim: not part of Coze, for tests and people at the desk."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coze_simulator.core import UPSTREAM_MODES, Core
from coze_simulator.options import SIMULATOR_BOT_ID, SIMULATOR_TOKEN, VERSION
from coze_simulator.state import StoredFile


class Control:
    """Endpoints of one simulator."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self, prefix: str) -> list[Route]:
        """The routes below ``prefix``."""
        return [
            Route(f"{prefix}/_sim/health", self.identify, methods=["GET"]),
            Route(f"{prefix}/_sim/knobs", self.knobs, methods=["GET", "POST", "DELETE"]),
            Route(f"{prefix}/_sim/log", self.log, methods=["GET", "DELETE"]),
            Route(f"{prefix}/_sim/state", self.state, methods=["GET"]),
            Route(f"{prefix}/_sim/upstream", self.upstream, methods=["GET", "POST"]),
            Route(f"{prefix}/_sim/tokens", self.tokens, methods=["DELETE"]),
        ]

    async def identify(self, request: Request) -> Response:
        """Says what listens here."""
        options = self._core.options
        body = {
            "service": "coze-simulator",
            "version": VERSION,
            "status": "ok",
            "dialect": options.dialect,
            "on_disconnect": options.on_disconnect,
            "token": SIMULATOR_TOKEN,
            "bot_id": SIMULATOR_BOT_ID,
        }
        return JSONResponse(body)

    async def knobs(self, request: Request) -> Response:
        """GET lists the rules, POST adds one, DELETE clears all (and the counts of `times`)."""
        board = self._core.board
        if request.method == "DELETE":
            board.clear()
        elif request.method == "POST":
            try:
                board.add(await _body(request))
            except ValueError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"rules": [rule.view() for rule in board.rules]})

    async def log(self, request: Request) -> Response:
        """GET lists the requests (filters in the query: field=value, contains=text), DELETE forgets them."""
        recorder = self._core.recorder
        if request.method == "DELETE":
            recorder.clear()
        found = recorder.view(dict(request.query_params))
        return JSONResponse({"count": len(found), "requests": found})

    async def state(self, request: Request) -> Response:
        """Counts, and the chats that run."""
        core, store = self._core, self._core.store
        body = {
            "running": store.running,
            "max_running": store.max_running,
            "open_streams": core.open_streams,
            "max_open_streams": core.max_open_streams,
            "conversations": len(store.conversations),
            "chats": len(store.chats),
            "chats_created": store.chats_created,
            "files": len(store.files),
            "newest_files": [_file(file) for file in list(store.files.values())[-20:]],
            "upstream": core.upstream,
            "running_chats": [
                {"id": chat.id, "conversation_id": chat.conversation_id, "status": chat.status}
                for chat in core.tasks.values()
            ],
        }
        return JSONResponse(body)

    async def upstream(self, request: Request) -> Response:
        """POST {"mode": ok | refuse | hang | html502} for all API endpoints."""
        if request.method == "POST":
            try:
                mode = (await _body(request)).get("mode")
            except ValueError as error:
                return JSONResponse({"error": str(error)}, status_code=400)
            if mode not in UPSTREAM_MODES:
                return JSONResponse(
                    {"error": "mode must be one of " + ", ".join(UPSTREAM_MODES)}, status_code=400
                )
            self._core.upstream = mode
        return JSONResponse({"mode": self._core.upstream})

    async def tokens(self, request: Request) -> Response:
        """DELETE makes every issued OAuth token invalid."""
        self._core.office.revoke_all()
        return JSONResponse({"revoked": True})


def _file(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "file_name": file.file_name,
        "bytes": file.size,
        "mime": file.mime,
        "sha256": file.sha256,
    }


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of the body. Raises ValueError."""
    body = json.loads(await request.body())
    if not isinstance(body, dict):
        raise ValueError("a JSON object is needed")  # noqa: TRY004 - one error for a bad body
    return body
