"""Scenarios from seeds. A kind says what a scenario is about; everything else comes from the seed.

``KINDS`` gives each kind its weight. The kind is drawn first, so a new kind changes other seeds' scenarios:
what must not change is kept as data under ``kept``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.scenario import Scenario, Step

_PEOPLE: Final = ("alice", "bob")
_HOUR: Final = 3600.0


class Draft:
    """A scenario in the making."""

    def __init__(self, seed: int, kind: str) -> None:
        self.dice = random.Random(f"scenario {seed} {kind}")
        self.seed = seed
        self.kind = kind
        self.settings: dict[str, str] = {}
        self.world: dict[str, Any] = {}
        self.steps: list[Step] = []
        self.sessions: list[tuple[str, str, str]] = []
        self.number = 0
        self.replicas = self.dice.choice((2, 2, 2, 3))

    def maybe(self, chance: float) -> bool:
        return self.dice.random() < chance

    def add(self, at: float, do: str, **args: Any) -> None:
        self.steps.append(Step(round(at, 3), do, args))

    def slot(self) -> int:
        return self.dice.randrange(self.replicas)

    def label(self, head: str) -> str:
        self.number += 1
        return f"{head}{self.number}"

    def finish(self, calm_after: float) -> Scenario:
        self.steps.sort(key=lambda step: step.at)
        world = {"replicas": self.replicas, **self.world}
        return Scenario(self.seed, self.kind, self.settings, world, self.steps, round(calm_after, 3))

    # -- parts ---------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Small limits make rare things common."""
        choose = self.dice.choice
        self.settings |= {
            "COZE_CHAT_TIMEOUT": choose(("20", "60", "120")),
            "COZE_SESSION_EXPIRE": choose(("120", "600", "3600", "36000")),
            "COZE_RESULT_EXPIRE": choose(("60", "1800")),
            "LEASE_SECONDS": choose(("5", "5", "15")),
            "COZE_USE_STREAM": choose(("true", "true", "true", "false")),
            "MAX_CHAT_LOG_BYTES": choose(("65536", "16777216")),
            "MAX_QUEUED_PER_SESSION": choose(("1", "3", "10")),
            "COZE_FIRST_BYTE_TIMEOUT": choose(("10", "60")),
            "COZE_IDLE_TIMEOUT": choose(("10", "60")),
            "COZE_MAX_RETRIES": choose(("0", "3")),
            "COZE_TIMEOUT": choose(("5", "30")),
            "COZE_MAX_SESSIONS_PER_USER": choose(("3", "10")),
            "SSE_HEARTBEAT_SECONDS": choose(("5", "15")),
        }
        self.world |= {
            "skew": choose((0.0, 0.0, 2.0, 100.0)),
            "scan_seconds": choose((0.7, 2.0, 5.0)),
            "on_disconnect": choose(("continue", "continue", "stop")),
            "tuned": not self.maybe(0.01),
        }

    def open_sessions(self, count: int, at: float = 0.1) -> None:
        for number in range(count):
            who, user = self.dice.choice(_PEOPLE), f"u{self.dice.randrange(4)}"
            label = self.label("s")
            self.sessions.append((label, user, who))
            key = f"open-{label}" if self.maybe(0.5) else ""
            self.add(at + 0.2 * number, "open", label=label, user=user, who=who, replica=self.slot(), key=key)

    def knobs(self) -> str:
        """How Coze's bot behaves. Most answers are short: each delta costs as much as a request."""
        dice, chosen = self.dice, []
        chosen.append(f"deltas={dice.choice((2, 4, 8, 12))}")
        chosen.append(f"gap={dice.choice((0.02, 0.2, 0.5, 1.5))}")
        chosen += ["reasoning=0"] if self.maybe(0.8) else []
        chosen.append(f"followups={dice.choice((0, 0, 1))}")
        chosen.append(f"verbose={dice.choice(('none', 'finish'))}")
        if self.maybe(0.25):
            chosen.append(
                dice.choice(
                    (
                        "multi=2",
                        "first_byte=2",
                        "delay=3",
                        "no_terminal=1",
                        "no_done=1",
                        "card=1",
                        "object_string=1",
                        "no_usage=1",
                        "fail_at=2",
                        "error_at=2",
                        "status_lag=3",
                        "empty_list=1",
                        f"cut={dice.randrange(1, 4000)}",
                        "stall=1:15",
                        "plugin=1",
                        "cancel_lag=3",
                        "fail=4013;times=1",
                        "http=503;times=1",
                        "fail=4009;times=2",
                    )
                )
            )
        return f"[[sim:{';'.join(chosen)}]] "

    def send(self, at: float, **more: Any) -> str:
        label, (session, _, _) = self.label("c"), self.dice.choice(self.sessions)
        mode = self.dice.choice(("stream", "stream", "wait", "async"))
        args: dict[str, Any] = {
            "label": label,
            "session": session,
            "message": self.knobs() + f"tell me of {label}",
            "mode": mode,
            "replica": self.slot(),
            "on_busy": self.dice.choice(("reject", "enqueue", "enqueue", "interrupt")),
        }
        if self.maybe(0.6):
            args["key"] = f"key-{label}"
        if mode == "stream" and self.maybe(0.3):
            args["hang_up"] = round(self.dice.uniform(0.1, 4.0), 2)
        if self.maybe(0.15):
            args["readers"] = 1
        self.add(at, "send", **(args | more))
        return label

    def openai(self, at: float) -> str:
        label, who = self.label("o"), self.dice.choice(_PEOPLE)
        args: dict[str, Any] = {
            "label": label,
            "user": f"u{self.dice.randrange(4)}",
            "who": who,
            "message": self.knobs() + f"tell me of {label}",
            "stream": self.maybe(0.7),
            "replica": self.slot(),
        }
        if self.maybe(0.5):
            args["key"] = f"key-{label}"
        elif self.maybe(0.3):
            args["hang_up"] = round(self.dice.uniform(0.1, 4.0), 2)
        self.add(at, "openai", **args)
        return label

    def chats(self, count: int, begin: float, end: float) -> list[str]:
        """And what people do with them."""
        labels = []
        for _ in range(count):
            at = self.dice.uniform(begin, end)
            if self.maybe(0.15):
                self.openai(at)
                continue
            label = self.send(at)
            labels.append(label)
            if self.maybe(0.12):
                self.add(at + self.dice.uniform(0.1, 6.0), "cancel", chat=label, replica=self.slot())
            if self.maybe(0.2):
                self.add(at + self.dice.uniform(0.1, 9.0), "result", chat=label, replica=self.slot(), wait=5.0)
        return labels

    def others(self, begin: float, end: float) -> None:
        """What else goes on."""
        dice = self.dice
        for session, user, who in self.sessions:
            if self.maybe(0.3):
                self.add(dice.uniform(begin, end), "look", session=session, replica=self.slot())
            if self.maybe(0.08):
                self.add(dice.uniform(begin, end), "delete", session=session, replica=self.slot())
            if self.maybe(0.04):
                self.add(dice.uniform(begin, end), "erase", user=user, who=who, replica=self.slot())
            if self.maybe(0.1):
                self.add(dice.uniform(begin, end), "history", session=session, replica=self.slot())
            if self.maybe(0.1):
                at, file = dice.uniform(begin, end), self.label("f")
                self.add(at, "upload", label=file, session=session, replica=self.slot(), breaks=self.maybe(0.2))
                self.send(at + 5.0, session=session, file=file)
            if self.maybe(0.1):
                again = self.label("s")
                at = dice.uniform(begin, end) + 5.0
                self.add(at, "look", session=session, replica=self.slot())
                self.add(at + 1.0, "open", label=again, user=user, who=who, replica=self.slot(),
                         key="", conversation_of=session)
                self.send(at + 2.0, session=again)
        if self.maybe(0.3):
            self.add(dice.uniform(begin, end), "snoop", who=dice.choice(("mallory", "bob")), replica=self.slot())
        if self.maybe(0.3) and self.sessions:
            self.add(end, "pages", session=dice.choice(self.sessions)[0], replica=self.slot())

    # -- faults --------------------------------------------------------------------------------------------

    def replica_fault(self, at: float) -> None:
        dice = self.dice
        kind = dice.choice(("crash", "crash", "freeze", "drain"))
        slot = self.slot()
        if kind == "crash":
            self.add(at, "crash", slot=slot, down=round(dice.choice((0.5, 3.0, 30.0)), 1))
        elif kind == "freeze":
            self.add(at, "freeze", slot=slot, seconds=round(10 ** dice.uniform(-0.5, 1.8), 1))
        else:
            again = round(dice.uniform(0.2, 4.0), 1) if self.maybe(0.3) else None
            self.add(at, "drain", slot=slot, down=1.0, again=again)

    def redis_fault(self, at: float) -> None:
        dice = self.dice
        kind = dice.choice(("away", "away", "weather", "weather", "weather", "cut_off", "empty", "failover"))
        seconds = round(10 ** dice.uniform(-0.7, 1.7), 2)
        if kind == "away":
            self.add(at, "redis_away", how=dice.choice(("refuse", "silent", "stall")), seconds=seconds)
        elif kind == "weather":
            name = dice.choice(("lost_request", "lost_reply", "cut", "partial", "slow"))
            slot = self.slot() if self.maybe(0.5) else None
            chance = round(10 ** dice.uniform(-2.0, -0.5), 3)
            self.add(at, "redis_weather", kind=name, chance=chance, seconds=seconds, slot=slot)
        elif kind == "cut_off":
            self.add(at, "redis_cut_off", slot=self.slot(), seconds=seconds)
        elif kind == "empty":
            self.add(at, "redis_empty", away=round(dice.uniform(0.1, 3.0), 1))
        else:
            lost = round(10 ** dice.uniform(-1.5, 0.7), 2)
            self.add(max(at, lost + 0.1), "redis_failover", lost=lost, away=round(dice.uniform(0.1, 3.0), 1))

    def odd_fault(self, at: float) -> None:
        kind = self.dice.choice(("odd_error", "odd_error", "odd_reply"))
        chance = round(10 ** self.dice.uniform(-1.7, -0.5), 3)
        self.add(at, "redis_weather", kind=kind, chance=chance, seconds=round(self.dice.uniform(0.5, 10.0), 1), slot=None)

    def coze_fault(self, at: float) -> None:
        dice = self.dice
        if self.maybe(0.2):
            self.add(at, "coze_breaks")
            return
        kind = dice.choice(("refuse", "lost", "cut", "cut", "stall", "bad_gateway", "slow"))
        path = dice.choice(("", "", "/v3/chat", "/v1/conversation"))
        seconds = round(10 ** dice.uniform(0.0, 1.6), 1)
        self.add(at, "coze_weather", kind=kind, chance=round(dice.uniform(0.1, 1.0), 2), seconds=seconds, path=path)


# -- kinds ---------------------------------------------------------------------------------------------------


def _calm(draft: Draft) -> Scenario:
    """Nothing goes wrong but what clients and the bot do."""
    draft.configure()
    draft.open_sessions(draft.dice.randrange(3, 6))
    draft.chats(10, 1.5, 30.0)
    draft.others(2.0, 40.0)
    return draft.finish(60.0)


def _faulty(*faults: str, count: tuple[int, int] = (1, 4)) -> Callable[[Draft], Scenario]:
    def make(draft: Draft) -> Scenario:
        draft.configure()
        draft.open_sessions(draft.dice.randrange(3, 6))
        draft.chats(10, 1.5, 40.0)
        draft.others(2.0, 50.0)
        for _ in range(draft.dice.randint(*count)):
            at = draft.dice.uniform(1.0, 45.0)
            getattr(draft, f"{draft.dice.choice(faults)}_fault")(at)
        return draft.finish(80.0)

    return make


def _waiting(draft: Draft) -> Scenario:
    """Chats wait for tools, for minutes or hours; their sessions are looked at meanwhile."""
    draft.configure()
    expire = draft.dice.choice((600, 3600))
    draft.settings["COZE_SESSION_EXPIRE"] = str(expire)
    draft.open_sessions(3)
    hours = draft.dice.choice((0.02, 0.3, 3.2))
    every, end = expire / 2.0, hours * _HOUR
    for session, _, _ in draft.sessions:
        label = draft.label("c")
        message = f"[[sim:requires_action=function;deltas=4;reasoning=0;followups=0]] {label}"
        draft.add(2.0, "send", label=label, session=session, message=message, mode="stream",
                  replica=draft.slot(), on_busy="reject", key=f"key-{label}")
        draft.add(10.0, "look", session=session, replica=0, every=every, times=int(end / every) + 1)
        for number in range(draft.dice.randrange(0, 3)):
            draft.send(20.0 + number, session=session, on_busy="enqueue", mode="async", comes_back=end)
        what = draft.dice.choice(("answer", "answer", "answer", "answer_twice", "cancel", "interrupt", "delete", "nothing"))
        if what.startswith("answer"):
            draft.add(end, "answer_tools", chat=label, replica=draft.slot(), key=f"tools-{label}",
                      mode=draft.dice.choice(("wait", "stream")), loses=what == "answer_twice")
        elif what == "cancel":
            draft.add(end, "cancel", chat=label, replica=draft.slot())
        elif what == "interrupt":
            draft.send(end, session=session, on_busy="interrupt")
        elif what == "delete":
            draft.add(end, "delete", session=session, replica=draft.slot())
    if draft.maybe(0.4):
        draft.replica_fault(draft.dice.uniform(1.0, end))
    if draft.maybe(0.2):
        draft.redis_fault(draft.dice.uniform(1.0, end))
    return draft.finish(end + 30.0)


def _many_sessions(draft: Draft) -> Scenario:
    """One user opens far more sessions than he may have, several at a time."""
    draft.configure()
    draft.settings["COZE_MAX_SESSIONS_PER_USER"] = draft.dice.choice(("3", "10"))
    draft.add(0.1, "open_many", user="many", who="alice", count=40, at_once=5, replica=0)
    draft.open_sessions(2)
    draft.chats(6, 1.0, 10.0)
    return draft.finish(40.0)


def _long_queue(draft: Draft) -> Scenario:
    """A queue of slow answers: the last one waits for longer than a session lives."""
    draft.configure()
    draft.settings |= {"COZE_SESSION_EXPIRE": "120", "COZE_CHAT_TIMEOUT": "60", "MAX_QUEUED_PER_SESSION": "10",
                       "COZE_FIRST_BYTE_TIMEOUT": "60", "COZE_IDLE_TIMEOUT": "60"}
    draft.open_sessions(1)
    for number in range(9):
        label = draft.label("c")
        draft.add(2.0 + 0.5 * number, "send", label=label, session=draft.sessions[0][0], mode="async",
                  message=f"[[sim:delay={draft.dice.choice((30, 50, 55))};deltas=2;reasoning=0]] {label}",
                  replica=draft.slot(), on_busy="enqueue", key=f"key-{label}")
    return draft.finish(700.0)


def _shutdown(draft: Draft) -> Scenario:
    """Redis goes away for longer than a chat may take, and replicas are told to end just then."""
    draft.configure()
    draft.settings["COZE_CHAT_TIMEOUT"] = "20"
    draft.open_sessions(3)
    draft.chats(8, 1.5, 15.0)
    away = draft.dice.uniform(8.0, 16.0)
    draft.add(away, "redis_away", how=draft.dice.choice(("refuse", "silent", "stall")),
              seconds=round(draft.dice.uniform(30.0, 90.0), 1))
    for slot in range(draft.replicas):
        draft.add(away + draft.dice.uniform(0.0, 30.0), "drain", slot=slot, down=1.0,
                  again=draft.dice.choice((None, 0.5, 3.0)))
    return draft.finish(away + 150.0)


def _refused_start(draft: Draft) -> Scenario:
    """Redis refuses what redis-py says first on a connection, while replicas start and end."""
    draft.configure()
    draft.open_sessions(2)
    draft.chats(5, 1.5, 20.0)
    draft.add(5.0, "redis_refuses_names", seconds=round(draft.dice.uniform(5.0, 40.0), 1))
    draft.add(draft.dice.uniform(3.0, 10.0), "crash", slot=0, down=1.0)
    draft.add(draft.dice.uniform(8.0, 30.0), "drain", slot=draft.slot(), down=1.0)
    return draft.finish(90.0)


def _hours_away(draft: Draft) -> Scenario:
    """Redis is away for hours; who waited is served afterwards."""
    draft.configure()
    draft.settings["COZE_SESSION_EXPIRE"] = "36000"
    draft.open_sessions(3)
    draft.chats(8, 1.5, 15.0)
    how = draft.dice.choice(("refuse", "silent", "stall"))
    hours = draft.dice.uniform(0.5, 4.0) if how != "refuse" else draft.dice.uniform(0.1, 0.4)
    seconds = round(hours * _HOUR, 0)  # one that refuses is asked five times a second
    draft.add(draft.dice.uniform(2.0, 15.0), "redis_away", how=how, seconds=seconds)
    return draft.finish(seconds + 60.0)


KINDS: Final[dict[str, tuple[int, Callable[[Draft], Scenario]]]] = {
    "calm": (10, _calm),
    "replicas": (18, _faulty("replica")),
    "redis": (18, _faulty("redis")),
    "coze": (12, _faulty("coze")),
    "everything": (18, _faulty("replica", "redis", "coze", "odd", count=(2, 6))),
    "odd": (5, _faulty("odd")),
    "waiting": (10, _waiting),
    "many_sessions": (2, _many_sessions),
    "long_queue": (2, _long_queue),
    "shutdown": (3, _shutdown),
    "refused_start": (2, _refused_start),
    "hours_away": (1, _hours_away),
}


def scenario_of(seed: int, kind: str = "") -> Scenario:
    """The scenario of a seed; ``kind`` chooses its kind instead."""
    if not kind:
        weights = [weight for weight, _ in KINDS.values()]
        kind = random.Random(f"kind {seed}").choices([*KINDS], weights)[0]
    return KINDS[kind][1](Draft(seed, kind))
