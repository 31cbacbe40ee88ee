"""Everything at once, for a short while; ``python -m tests.faults.chaos`` for as long as one likes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support import RedisServer

from .chaos import chaos
from .chaos.run import KINDS
from .chaos.watch import MOST_SECONDS, Watch, hasten
from .support import Cluster


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_minute_of_random_faults_at_all_doors_loses_nothing(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    report = await chaos(60, seed, record=file)
    assert report.wrong == [], report.text()
    assert report.counts["completed"] > 60, report.text()
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [sample for sample in record["samples"] if sample["redis"] is not None]
    assert not record["dashboard"] or len(record["dashboard"]) > 40  # empty where there is no Prometheus


def test_clients_come_by_every_door_and_each_kind_has_a_name_of_its_own() -> None:
    assert {kind.door for kind in KINDS} == {"own", "openai", "coze"}
    assert Counter(kind.name for kind in KINDS).most_common(1)[0][1] == 1


def watched(growth: dict[str, float], seconds: float = 3600) -> list[str]:
    """What a run of that length finds in samples that grow by so much from the first to the last."""
    watch = Watch(Cluster(None, None, []), 15)  # type: ignore[arg-type]  # nobody is asked
    count = int(seconds / 15)
    for number in range(count):
        done = number / count

        def at(name: str, least: float, done: float = done) -> float:
            return least + growth.get(name, 0) * done

        replica = {"memory MiB": at("memory MiB", 100), "tasks": at("tasks", 20), "threads": 6}
        kept: dict[str, Any] | None = {"keys": at("keys", 5000), "Redis MiB": 8}
        if number % 7 == 0:
            kept = None  # Redis was away
        watch.samples.append(
            {
                "at": number * 15,
                "load": 1.0,
                "replicas": [replica | {"descriptors": 40}, None],
                "redis": kept,
            }
        )
    return watch.table(seconds)[1]


def test_what_grows_over_an_hour_is_told_and_what_does_not_is_not() -> None:
    assert watched({}) == []
    assert [text.partition(" grows")[0] for text in watched({"tasks": 100})] == ["tasks"]
    assert [text.partition(" grows")[0] for text in watched({"keys": 5000})] == ["keys"]
    assert watched({"memory MiB": 10}) == []
    assert watched({"memory MiB": 60}) != []


def test_a_run_of_some_minutes_says_nothing_of_growth() -> None:
    assert watched({"tasks": 100}, seconds=300) == []


def test_what_is_kept_for_days_goes_within_minutes_and_the_rest_is_not_touched(redis: RedisServer) -> None:
    with redis.client() as client:
        client.set("for days", "x", ex=86_400)
        client.set("for a minute", "x", ex=60)
        client.set("for ever", "x")
        hasten(client)
        assert 0 < client.ttl("for days") <= MOST_SECONDS
        assert 0 < client.ttl("for a minute") <= 60
        assert client.ttl("for ever") == -1
        client.delete("for ever")
