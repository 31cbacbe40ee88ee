"""The probes: each asks Coze one thing that the service takes for granted.

They share four chats, so that little is paid for: one whose connection is dropped, one that runs without a
stream and is cancelled, one that is cancelled while it is heard, and one that is heard to its end.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from attrs import define, field

from app.check.live.findings import Finding, Verdict
from app.check.live.raw import META_KEY, Heard, RawCoze
from app.coze.codes import NOT_FOUND
from app.coze.wire import ENDED, count, identifier, integer, json_object, shown_text

LONG: Final = "请从 1 数到 80，每行写一个数字和它的中文读法，不要省略，也不要使用工具。"
SHORT: Final = "请只回复两个字：你好。"
_BUSY: Final = 4016
_PATIENCE: Final = 120.0
_AFTER_CANCEL: Final = 20.0
_PNG: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002"
    "0000010005fe02fea7d605810000000049454e44ae426082"
)
_ORDER: Final = [
    "chat.created",
    "chat.in_progress",
    "message.delta",
    "message.completed",
    "chat.completed",
    "done",
]


@define
class Probes:
    """All probes, in their order. ``use_stream``: COZE_USE_STREAM; without it no answer rests on a stream."""

    _coze: RawCoze
    _use_stream: bool
    _heard: Heard = field(init=False, factory=Heard)
    _ids: dict[str, str] = field(init=False, factory=dict)

    async def run(self) -> AsyncIterator[Finding]:
        """Each finding as soon as it is there."""
        made = await self._coze.create_conversation()
        where = identifier(made.data.get("id"))
        if not where:
            yield Finding(
                "conversation",
                "unknown",
                "conversations can be made before a chat",
                str(made),
                "asks nothing further: put this right first (./run-service.sh check)",
                needed=True,
            )
            return
        yield await self._disconnect(where)
        async for finding in self._polled(await self._another(where)):
            yield finding
        yield await self._cancelled_stream(await self._another(where))
        where = await self._another(where)
        self._heard = await self._coze.hear(where, SHORT)
        chat = self._heard.chat
        self._ids = {"conversation_id": where, "chat_id": identifier(chat.get("id"))}
        for probe in (self._events, self._done, self._first_byte):
            yield probe()
        for asking in (
            self._retrieve,
            self._meta_data,
            self._list,
            self._history,
            self._usage,
            self._feedback,
            self._clear,
            self._unknown_chat,
            self._files,
            self._bot,
        ):
            yield await asking()

    async def _another(self, before: str) -> str:
        """A conversation of its own: what a probe left running must not be in the next one's way."""
        made = await self._coze.create_conversation()
        return identifier(made.data.get("id")) or before

    # -- chats and their connections -----------------------------------------------------------------------

    async def _disconnect(self, where: str) -> Finding:
        name, assumed = "disconnect", "a chat goes on when the connection of its stream is dropped"
        heard = await self._coze.hear(where, LONG, leave=lambda heard: heard.first_delta is not None)
        chat_id = identifier(heard.chat.get("id"))
        if not chat_id or heard.ended or heard.first_delta is None:
            does = "cannot say what a dropped connection costs: try again, or another bot"
            return Finding(name, "unknown", assumed, str(heard), does, needed=self._use_stream)
        after = await self._coze.settled(where, chat_id, _PATIENCE)
        kept = await self._stored_text(where, chat_id)
        if after.chat_status == "completed" and len(kept) > len(heard.answer):
            return Finding(
                name,
                "holds",
                assumed,
                f"completed, {len(kept)} characters kept of which {len(heard.answer)} had been sent",
                "fetches what a cut stream or a dead process did not bring",
                needed=self._use_stream,
            )
        if after.chat_status == "completed" and kept:
            does = "fetches the answer; the answer was over too early to tell more"
            seen = "completed before the connection was dropped"
            return Finding(name, "unknown", assumed, seen, does, needed=self._use_stream)
        state = after.chat_status or str(after)
        seen = f"{state} after the drop, {len(kept)} characters kept"
        does = (
            "cannot complete an answer whose stream was cut or whose process died: set "
            "COZE_USE_STREAM=false, then chats are made without a stream and polled (no words before the end)"
            if self._use_stream
            else "is not touched by it: COZE_USE_STREAM=false makes chats without a stream"
        )
        return Finding(name, "differs", assumed, seen, does, needed=self._use_stream)

    async def _stored_text(self, where: str, chat_id: str) -> str:
        ids = {"conversation_id": where, "chat_id": chat_id}
        listed = await self._coze.call("GET", "/v3/chat/message/list", ids)
        return "".join(shown_text(item.get("content")) for item in _answers(listed.items))

    async def _polled(self, where: str) -> AsyncIterator[Finding]:
        made = await self._coze.create(where, LONG)
        chat_id = identifier(made.data.get("id"))
        runs = made.chat_status in ("created", "in_progress")
        yield Finding(
            "polling",
            "holds" if runs else "differs",
            "a chat made without a stream runs by itself, to be polled",
            made.chat_status or str(made),
            "uses this with COZE_USE_STREAM=false" if runs else "cannot work with COZE_USE_STREAM=false",
            needed=not self._use_stream,
        )
        if not runs:
            return
        yield await self._busy(where)
        ids = {"conversation_id": where, "chat_id": chat_id}
        yield await self._cancel(ids)
        listed = await self._coze.call("GET", "/v3/chat/message/list", ids)
        state = f"{len(listed.items)} messages" if "data" in listed.body else "no data at all"
        yield Finding(
            "list-after-end",
            "holds" if listed.ok else "differs",
            "the messages of a chat that was not completed can be listed, maybe without data",
            state if listed.ok else str(listed),
            "takes what is there, and nothing for an empty answer",
        )

    async def _busy(self, where: str) -> Finding:
        name, assumed = "busy", f"a conversation with a running chat refuses another with {_BUSY}"
        heard = await self._coze.hear(where, SHORT, leave=lambda heard: bool(heard.events))
        code = heard.refusal.code if heard.refusal is not None else _code_of(heard)
        if code == _BUSY:
            form = "in a JSON answer" if heard.refusal is not None else "as the first event of a stream"
            does = "says so to its caller as 409, or lets the message wait (on_busy)"
            return Finding(name, "holds", assumed, f"{_BUSY} {form}", does)
        if identifier(heard.chat.get("id")):
            seen = "it takes a second chat beside the first"
            ids = {"conversation_id": where, "chat_id": identifier(heard.chat["id"])}
            await self._coze.call("POST", "/v3/chat/cancel", body=ids)
        else:
            seen = str(heard)
        return Finding(name, "differs", assumed, seen, "runs one chat of a session at a time by itself")

    async def _cancel(self, ids: dict[str, str]) -> Finding:
        name, assumed = "cancel", "a running chat can be cancelled, and says then what it cost"
        answer = await self._coze.call("POST", "/v3/chat/cancel", body=ids)
        after = await self._coze.settled(ids["conversation_id"], ids["chat_id"], _AFTER_CANCEL)
        tokens = count(_usage(after.data).get("token_count"))
        cost = f"usage {'told' if tokens else 'not told'}"
        if answer.ok and after.chat_status == "canceled":
            does = "cancels there too, and counts these tokens" if tokens else "counts no tokens for it"
            return Finding(name, "holds" if tokens else "differs", assumed, f"canceled, {cost}", does)
        seen = f"{answer}, then {after.chat_status or after}, {cost}"
        return Finding(name, "differs", assumed, seen, "ends such a chat here; Coze may go on, and be paid")

    async def _cancelled_stream(self, where: str) -> Finding:
        name, assumed = "stream-cancel", "a cancel does not cut the stream of its chat"

        async def cancel(heard: Heard) -> None:
            ids = {"conversation_id": where, "chat_id": identifier(heard.chat.get("id"))}
            await self._coze.call("POST", "/v3/chat/cancel", body=ids)

        heard = await self._coze.hear(where, LONG, on_delta=cancel)
        last = [course for course in heard.course if course.startswith("chat.")][-1:] or ["no end"]
        seen = f"its stream ends with {last[0]}, {'with' if heard.done is not None else 'without'} done"
        does = "asks for the chat's state where a stream ends without a word of its end"
        verdict: Verdict = "holds" if heard.ended and last[0] in _ENDS else "differs"
        if heard.first_delta is None:
            return Finding(name, "unknown", assumed, str(heard), does)
        return Finding(name, verdict, assumed, seen, does)

    # -- one answer, heard to its end ----------------------------------------------------------------------

    def _events(self) -> Finding:
        course = [name for name in self._heard.course if name in _ORDER]
        told = list(dict.fromkeys(name for name in course if name != "done"))
        right = [name for name in _ORDER[:-1] if name in course] == told
        whole = "chat.completed" in course and ("message.delta" in course or "message.completed" in course)
        return Finding(
            "events",
            "holds" if right and whole else "differs",
            "created, in_progress, deltas, completed messages, completed, in this order",
            str(self._heard),
            "reads them in any order, and asks for the stored answer where the end is missing",
        )

    def _done(self) -> Finding:
        found = self._heard.done
        form = {None: "nothing", b'"[DONE]"': '"[DONE]" in quotes', b"[DONE]": "[DONE] without quotes"}
        return Finding(
            "done",
            "holds" if found == b'"[DONE]"' else "differs",
            'a stream ends with done and "[DONE]"',
            form.get(found, "another text" if found else "an empty event"),
            "takes any of these, and the end of the connection behind the chat's own end",
        )

    def _first_byte(self) -> Finding:
        first, delta = self._heard.first_byte, self._heard.first_delta
        seen = f"first bytes after {_seconds(first)}, first words after {_seconds(delta)}"
        return Finding(
            "first-byte",
            "holds" if first is not None and first < 60 else "differs",
            "an answer begins within COZE_FIRST_BYTE_TIMEOUT",
            seen,
            "waits that long, then asks what became of the chat",
        )

    async def _retrieve(self) -> Finding:
        by_get = await self._coze.call("GET", "/v3/chat/retrieve", self._ids)
        by_post = await self._coze.call("POST", "/v3/chat/retrieve", self._ids)
        post = "taken, too" if by_post.ok else f"refused ({by_post})"
        return Finding(
            "retrieve",
            "holds" if by_get.chat_status in ENDED else "differs",
            "a chat can be asked for by GET when it is over",
            f"GET: {by_get.chat_status or by_get}, POST: {post}",
            "uses GET",
            needed=True,
        )

    async def _meta_data(self) -> Finding:
        chat = await self._coze.call("GET", "/v3/chat/retrieve", self._ids)
        kept = META_KEY in (chat.data.get("meta_data") or {})
        listed = [item for item in await self._conversation() if META_KEY in (item.get("meta_data") or {})]
        does = (
            "finds a chat again whose process died before Coze had told its id"
            if kept
            else "cannot find a chat whose process died before Coze had told its id: that one ends as "
            "failed, and is not asked a second time"
        )
        seen = f"{'kept' if kept else 'not there'} in retrieve, {'in' if listed else 'not in'} lists"
        verdict: Verdict = "holds" if kept else "differs"
        return Finding(
            "meta_data", verdict, "a chat keeps the meta_data it was given", seen, does, needed=True
        )

    async def _list(self) -> Finding:
        listed = await self._coze.call("GET", "/v3/chat/message/list", self._ids)
        answer = "".join(shown_text(item.get("content")) for item in _answers(listed.items))
        same = bool(answer) and answer.split() == self._final_text().split()
        question = any(item.get("role") == "user" for item in listed.items)
        kinds = ", ".join(str(item.get("type")) for item in listed.items) or str(listed)
        seen = f"{kinds}; {'the answer that was streamed' if same else 'not the answer that was streamed'}"
        return Finding(
            "list",
            "holds" if same else "differs",
            "the stored answer of a chat is the one that was streamed",
            seen + ("; with the question" if question else ""),
            "takes the stored answer for the right one",
            needed=True,
        )

    def _final_text(self) -> str:
        completed = "".join(shown_text(item.get("content")) for item in self._heard.messages("completed"))
        return completed or self._heard.answer

    async def _conversation(self) -> list[Mapping[str, Any]]:
        where = {"conversation_id": self._ids["conversation_id"]}
        listed = await self._coze.call(
            "POST", "/v1/conversation/message/list", where, {"order": "desc", "limit": 20}
        )
        return listed.items

    async def _history(self) -> Finding:
        items = await self._conversation()
        roles = [str(item.get("role")) for item in items]
        named = any(identifier(item.get("chat_id")) == self._ids["chat_id"] for item in items)
        return Finding(
            "history",
            "holds" if named else "differs",
            "the messages of a conversation name their chats",
            f"{roles.count('user')} questions, {roles.count('assistant')} answers, chat "
            + ("named" if named else "not named"),
            "looks through them for a chat that it has lost sight of",
            needed=True,
        )

    async def _usage(self) -> Finding:
        chat = await self._coze.call("GET", "/v3/chat/retrieve", self._ids)
        streamed = count(_usage(self._heard.chat).get("token_count"))
        stored = count(_usage(chat.data).get("token_count"))
        return Finding(
            "usage",
            "holds" if streamed and streamed == stored else "differs",
            "the stream's end tells the tokens that retrieve tells",
            f"{streamed} tokens in the stream, {stored} in retrieve",
            "counts those of the stream's end, else those of retrieve, for reports and quotas",
        )

    async def _feedback(self) -> Finding:
        answers = _answers(await self._conversation())
        where, message = self._ids["conversation_id"], identifier(answers[0].get("id")) if answers else "0"
        path = f"/v1/conversations/{where}/messages/{message}/feedback"
        given = await self._coze.call("POST", path, body={"feedback_type": "like"})
        taken = await self._coze.call("DELETE", path)
        return Finding(
            "feedback",
            "holds" if given.ok else "differs",
            "an answer can be given feedback, and that can be taken back",
            f"{'taken' if given.ok else given}, {'taken back' if taken.ok else taken}",
            "passes feedback on" if given.ok else "cannot pass feedback on: it answers with Coze's refusal",
        )

    # -- the rest ------------------------------------------------------------------------------------------

    async def _clear(self) -> Finding:
        answer = await self._coze.call("POST", f"/v1/conversations/{self._ids['conversation_id']}/clear")
        return Finding(
            "clear",
            "holds" if identifier(answer.data.get("id")) else "differs",
            "a conversation can be made to forget",
            "a new section" if identifier(answer.data.get("id")) else str(answer),
            "offers this for sessions, and erases users with it",
        )

    async def _unknown_chat(self) -> Finding:
        ids = {"conversation_id": self._ids["conversation_id"], "chat_id": "1"}
        answer = await self._coze.call("GET", "/v3/chat/retrieve", ids)
        return Finding(
            "unknown-chat",
            "holds" if answer.code in NOT_FOUND else "differs",
            "a chat that is not there is refused with a code that says so",
            str(answer),
            "takes these codes for it, and any other for a failure that may pass",
        )

    async def _files(self) -> Finding:
        kinds = {"text": ("check.txt", b"hello", "text/plain"), "image": ("check.png", _PNG, "image/png")}
        found = {}
        for kind, file in kinds.items():
            answer = await self._coze.call("POST", "/v1/files/upload", files={"file": file})
            found[kind] = "taken" if identifier(answer.data.get("id")) else str(answer)
        return Finding(
            "files",
            "holds" if set(found.values()) == {"taken"} else "differs",
            "texts and images can be uploaded",
            ", ".join(f"{kind} {what}" for kind, what in found.items()),
            "passes uploads through, and refusals to the caller",
        )

    async def _bot(self) -> Finding:
        answer = await self._coze.call("GET", "/v1/bot/get_online_info", {"bot_id": self._coze.bot_id})
        fields = [name for name in ("name", "icon_url", "onboarding_info") if answer.data.get(name)]
        return Finding(
            "bot",
            "holds" if answer.ok and fields else "differs",
            "a published bot tells its name, icon and opening words",
            ", ".join(fields) or str(answer),
            "shows what there is" if fields else "shows the bot by its id",
        )


_ENDS: Final = frozenset({"chat.completed", "chat.canceled", "chat.cancelled", "chat.failed"})


def _answers(items: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        item for item in items if item.get("role") == "assistant" and item.get("type") in ("answer", None)
    ]


def _usage(chat: Mapping[str, Any]) -> Mapping[str, Any]:
    found = chat.get("usage")
    return found if isinstance(found, dict) else {}


def _code_of(heard: Heard) -> int | None:
    """Of an error event."""
    for name, data in heard.events:
        if name == "error":
            body = json_object(data) or {}
            return integer(body.get("code"))
    return None


def _seconds(value: float | None) -> str:
    return f"{value:.2f} s" if value is not None else "never"
