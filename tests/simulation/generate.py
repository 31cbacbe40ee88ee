"""Scenarios from seeds. A kind says what a scenario is about; everything else comes from the seed.

``KINDS`` gives each kind its weight. The kind is drawn first, so a new kind changes other seeds' scenarios:
what must not change is kept as data under ``kept``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.simulation.draft import Draft
from tests.simulation.scenario import Scenario

_HOUR: Final = 3600.0


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


def _foreign(draft: Draft) -> Scenario:
    """Redis and Coze say what their manuals do not, sometimes with other faults beside it."""
    draft.topic = draft.dice.choice(("", "\u97f3\u4e50\U0001f3b5", "caf\u00e9 \U0001f480 "))
    faults = draft.dice.choice((("foreign",), ("foreign", "foreign", "replica", "coze")))
    return _faulty(*faults, count=(1, 5))(draft)


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
        draft.add(
            2.0,
            "send",
            label=label,
            session=session,
            message=message,
            mode="stream",
            replica=draft.slot(),
            on_busy="reject",
            key=f"key-{label}",
        )
        draft.add(10.0, "look", session=session, replica=0, every=every, times=int(end / every) + 1)
        for number in range(draft.dice.randrange(0, 3)):
            draft.send(20.0 + number, session=session, on_busy="enqueue", mode="async", comes_back=end)
        what = draft.dice.choice(
            ("answer", "answer", "answer", "answer_twice", "cancel", "interrupt", "delete", "nothing")
        )
        if what.startswith("answer"):
            draft.add(
                end,
                "answer_tools",
                chat=label,
                replica=draft.slot(),
                key=f"tools-{label}",
                mode=draft.dice.choice(("wait", "stream")),
                loses=what == "answer_twice",
            )
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


def _shares(draft: Draft) -> Scenario:
    """Greedy callers of one root make users up; modest ones of another root keep within what is left."""
    draft.configure()
    choose = draft.dice.choice
    draft.settings |= {
        "COZE_SESSION_EXPIRE": choose(("600", "3600", "36000")),
        "COZE_MAX_ACTIVE_USERS": "10",
        "COZE_MAX_TOTAL_SESSIONS": choose(("10", "14", "40")),
        "COZE_OWNER_SHARE": choose(("0.3", "0.5")),
        "COZE_ROOT_SHARE": choose(("0.6", "0.7")),
        "RATE_LIMIT_MESSAGES_PER_MINUTE": choose(("0", "5", "60")),
        "RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE": choose(("20", "40")),
        "RATE_LIMIT_SESSIONS_PER_MINUTE": choose(("0", "30")),
        "RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE": choose(("20", "40")),
    }
    for who, latest in (("alice", 5.0), ("bob", 5.0), ("alice", 70.0)):
        at, count, at_once = draft.dice.uniform(0.5, latest), draft.dice.randrange(8, 16), choose((1, 4, 16))
        label, slot = draft.label("greedy"), draft.slot()
        draft.add(at, "make_up", label=label, who=who, count=count, at_once=at_once, replica=slot)
    for number in range(2):
        who, user = f"{choose(('dave', 'erin'))}@huiwings.cn", f"u{number}"
        label, at = draft.label("s"), draft.dice.uniform(3.0, 30.0)
        draft.sessions.append((label, user, who))
        draft.add(at, "open", label=label, user=user, who=who, replica=draft.slot(), key=f"open-{label}")
        for _ in range(2):
            draft.send(at + draft.dice.uniform(1.0, 60.0), session=label)
    if draft.maybe(0.5):
        getattr(draft, f"{choose(('replica', 'redis', 'coze'))}_fault")(draft.dice.uniform(1.0, 60.0))
    return draft.finish(120.0)


def _long_queue(draft: Draft) -> Scenario:
    """A queue of slow answers: the last one waits for longer than a session lives."""
    draft.configure()
    draft.settings |= {
        "COZE_SESSION_EXPIRE": "120",
        "COZE_CHAT_TIMEOUT": "60",
        "MAX_QUEUED_PER_SESSION": "10",
        "COZE_FIRST_BYTE_TIMEOUT": "60",
        "COZE_IDLE_TIMEOUT": "60",
    }
    draft.open_sessions(1)
    for number in range(9):
        label = draft.label("c")
        draft.add(
            2.0 + 0.5 * number,
            "send",
            label=label,
            session=draft.sessions[0][0],
            mode="async",
            message=f"[[sim:delay={draft.dice.choice((30, 50, 55))};deltas=2;reasoning=0]] {label}",
            replica=draft.slot(),
            on_busy="enqueue",
            key=f"key-{label}",
        )
    draft.add(10.0, "look", session=draft.sessions[0][0], replica=0, every=50.0, times=13)
    return draft.finish(640.0)


def _shutdown(draft: Draft) -> Scenario:
    """Redis goes away for longer than a chat may take, and replicas are told to end just then."""
    draft.configure()
    draft.settings["COZE_CHAT_TIMEOUT"] = "20"
    draft.open_sessions(3)
    draft.chats(8, 1.5, 15.0)
    away = draft.dice.uniform(8.0, 16.0)
    draft.add(
        away,
        "redis_away",
        how=draft.dice.choice(("refuse", "silent", "stall")),
        seconds=round(draft.dice.uniform(30.0, 90.0), 1),
    )
    if draft.maybe(0.6):
        kind = draft.dice.choice(("stall", "slow"))
        draft.add(away, "coze_weather", kind=kind, chance=0.8, seconds=60.0, path="/v3/chat/cancel")
    for slot in range(draft.replicas):
        draft.add(
            away + draft.dice.uniform(0.0, 30.0),
            "drain",
            slot=slot,
            down=1.0,
            again=draft.dice.choice((None, 0.5, 3.0)),
        )
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


def _beginnings(draft: Draft) -> Scenario:
    """First messages come while Coze is still making their session's conversation, at any replica."""
    draft.configure()
    draft.open_sessions(draft.dice.randrange(4, 7))
    if draft.maybe(0.8):
        kind = draft.dice.choice(("late", "late", "late", "slow", "lost", "bad_gateway"))
        seconds = round(draft.dice.uniform(1.0, 4.0), 1)
        draft.add(0.0, "coze_weather", kind=kind, chance=0.9, seconds=seconds, path="/v1/conversation")
    for number, (session, _, _) in enumerate(draft.sessions):
        opened = 0.1 + 0.2 * number
        for _ in range(draft.dice.randint(1, 3)):
            draft.send(opened + draft.dice.uniform(0.05, 3.0), session=session)
        draft.send(draft.dice.uniform(12.0, 25.0), session=session, on_busy="enqueue")
    if draft.maybe(0.4):
        getattr(draft, f"{draft.dice.choice(('replica', 'redis'))}_fault")(draft.dice.uniform(0.1, 4.0))
    return draft.finish(60.0)


KINDS: Final[dict[str, tuple[int, Callable[[Draft], Scenario]]]] = {
    "calm": (10, _calm),
    "replicas": (18, _faulty("replica")),
    "redis": (18, _faulty("redis")),
    "coze": (12, _faulty("coze")),
    "everything": (18, _faulty("replica", "redis", "coze", "odd", "foreign", count=(2, 6))),
    "odd": (5, _faulty("odd")),
    "foreign": (14, _foreign),
    "waiting": (10, _waiting),
    "many_sessions": (2, _many_sessions),
    "shares": (5, _shares),
    "long_queue": (2, _long_queue),
    "shutdown": (3, _shutdown),
    "refused_start": (2, _refused_start),
    "hours_away": (1, _hours_away),
    "beginnings": (5, _beginnings),
}


def scenario_of(seed: int, kind: str = "") -> Scenario:
    """The scenario of a seed; ``kind`` chooses its kind instead."""
    if not kind:
        weights = [weight for weight, _ in KINDS.values()]
        kind = random.Random(f"kind {seed}").choices([*KINDS], weights)[0]
    return KINDS[kind][1](Draft(seed, kind))
