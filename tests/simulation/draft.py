"""What scenarios are made of: settings, sessions, chats, faults."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.simulation.scenario import Scenario, Step

_PEOPLE: Final = ("alice", "bob")


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
        self.topic = ""
        """Beyond ASCII, it is what characters can be cut in two of."""
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
            "tuned": not self.maybe(0.005),
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
        chosen += ["reasoning=0"] if self.maybe(0.8) or self.topic else []  # it would be long
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
                        f"cut={dice.randrange(1, 4000)};empty_list={dice.choice((2, 8, 99))}",
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
            "message": self.knobs() + f"tell me of {self.topic}{label}",
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
            "message": self.knobs() + f"tell me of {self.topic}{label}",
            "stream": self.maybe(0.7),
            "replica": self.slot(),
        }
        if self.maybe(0.5):
            args["key"] = f"key-{label}"
        elif self.maybe(0.3):
            args["hang_up"] = round(self.dice.uniform(0.1, 4.0), 2)
        self.add(at, "openai", **args)
        return label

    def coze(self, at: float) -> str:
        label, who = self.label("z"), self.dice.choice(_PEOPLE)
        args: dict[str, Any] = {
            "label": label,
            "user": f"u{self.dice.randrange(4)}",
            "who": who,
            "message": self.knobs() + f"tell me of {self.topic}{label}",
            "stream": self.maybe(0.7),
            "replica": self.slot(),
        }
        if self.maybe(0.3):
            args["hang_up"] = round(self.dice.uniform(0.1, 4.0), 2)
        self.add(at, "coze", **args)
        return label

    def chats(self, count: int, begin: float, end: float) -> list[str]:
        """And what people do with them."""
        labels = []
        for _ in range(count):
            at = self.dice.uniform(begin, end)
            if self.maybe(0.2):
                (self.openai if self.maybe(0.6) else self.coze)(at)
                continue
            label = self.send(at)
            labels.append(label)
            if self.maybe(0.12):
                self.add(at + self.dice.uniform(0.1, 6.0), "cancel", chat=label, replica=self.slot())
            if self.maybe(0.2):
                self.add(
                    at + self.dice.uniform(0.1, 9.0), "result", chat=label, replica=self.slot(), wait=5.0
                )
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
                self.add(
                    at, "upload", label=file, session=session, replica=self.slot(), breaks=self.maybe(0.2)
                )
                self.send(at + 5.0, session=session, file=file)
            if self.maybe(0.1):
                again = self.label("s")
                at = dice.uniform(begin, end) + 5.0
                self.add(at, "look", session=session, replica=self.slot())
                self.add(
                    at + 1.0,
                    "open",
                    label=again,
                    user=user,
                    who=who,
                    replica=self.slot(),
                    key="",
                    conversation_of=session,
                )
                self.send(at + 2.0, session=again)
        if self.maybe(0.3):
            self.add(
                dice.uniform(begin, end), "snoop", who=dice.choice(("mallory", "bob")), replica=self.slot()
            )
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
        self.add(
            at,
            "redis_weather",
            kind=kind,
            chance=chance,
            seconds=round(self.dice.uniform(0.5, 10.0), 1),
            slot=None,
        )

    def coze_fault(self, at: float) -> None:
        dice = self.dice
        if self.maybe(0.2):
            self.add(at, "coze_breaks")
            return
        kind = dice.choice(("refuse", "lost", "cut", "cut", "stall", "bad_gateway", "slow"))
        path = dice.choice(("", "", "/v3/chat", "/v1/conversation"))
        seconds = round(10 ** dice.uniform(0.0, 1.6), 1)
        self.add(
            at, "coze_weather", kind=kind, chance=round(dice.uniform(0.1, 1.0), 2), seconds=seconds, path=path
        )

    def foreign_fault(self, at: float) -> None:
        """What is neither Redis' nor Coze's as the manuals have them."""
        dice = self.dice
        kind = dice.choice(("spoiled", "spoiled", "refusal", "refuses", "refuses", "evicts"))
        seconds = round(10 ** dice.uniform(0.0, 1.6), 1)
        chance = round(dice.uniform(0.1, 1.0), 2)
        if kind in ("spoiled", "refusal"):
            path = dice.choice(("", "/v3/chat"))
            self.add(at, "coze_weather", kind=kind, chance=chance, seconds=seconds, path=path)
        elif kind == "refuses":
            how = dice.choice(("readonly", "oom", "noperm"))
            self.add(at, "redis_refuses", how=how, seconds=seconds)
        else:
            self.add(at, "redis_evicts", share=chance)
