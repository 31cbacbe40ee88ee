"""The control endpoints of a running simulator, in a test's words."""

from __future__ import annotations

from typing import Any

import httpx

from coze_simulator import RunningSimulator


class SimControl:
    """``chat_url`` is what COZE_API_URL takes."""

    def __init__(self, running: RunningSimulator) -> None:
        self.running = running
        self.chat_url = running.base_url + "/v3/chat"
        self._http = httpx.Client(base_url=running.root_url + "/_sim", timeout=10)

    def knob(self, **rule: Any) -> None:
        """A rule: ``match``, ``path``, ``times`` and any knobs."""
        answer = self._http.post("/knobs", json=rule)
        assert answer.status_code == 200, answer.text

    def clear_knobs(self) -> None:
        self._http.delete("/knobs")

    def upstream(self, mode: str) -> None:
        """ok, refuse, hang or html502 for every endpoint."""
        assert self._http.post("/upstream", json={"mode": mode}).status_code == 200

    def requests(self, **filters: str) -> list[dict[str, Any]]:
        """What was asked, oldest first; ``contains=`` a part of the message, ``path="/v3/chat"`` ..."""
        found: list[dict[str, Any]] = self._http.get("/log", params=filters).json()["requests"]
        return found

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._http.get("/state").json()
        return state

    def reset(self) -> None:
        self.upstream("ok")
        self.clear_knobs()
        self._http.delete("/log")

    def close(self) -> None:
        self._http.close()
