"""The calculator of size: its arithmetic, the settings that it names, and where a Cluster puts the shards."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from redis.crc import key_slot

from app.config import Settings
from app.redis_client import Keys
from app.redis_client.servers import BLOCKING_READS
from app.stores import event_log
from app.utils import SHARDS
from scripts import capacity_model as model
from scripts.capacity import COSTS, ROOT, main, plan, words
from scripts.capacity_model import Costs, Demand, Flow, Kept

ROUND = Costs(
    memory=dict.fromkeys(
        [
            *("user", "session_index", "session", "caller", "recent_user", "records", "record", "log"),
            *("log_least", "key", "talker", "conversation", "usage_row", "usage_row_in_large", "usage_key"),
            *("running", "base", "process"),
        ],
        100.0,
    )
    | {"record_byte": 1.0, "log_byte": 0.5, "log_delta": 2.0, "running_delta": 10.0},
    commands={"chat": 50.0, "session": 40.0, "key": 2.0, "idle_second": 100.0, "running_second": 1.0},
    redis_us={
        "chat": 1000.0,
        "session": 500.0,
        "commit": 10.0,
        "pipeline": 100.0,
        "idle_second": 3000.0,
        "chat_index_share": 0.2,
        "session_index_share": 0.5,
    },
    cpu_us={
        "chat": 5000.0,
        "delta": 100.0,
        "pipeline": 1000.0,
        "session": 1000.0,
        "idle_second": 2000.0,
        "running_second": 0.0,
        "delivered": 50.0,
    },
    process={"idle": 100e6, "chat": 50e3, "stream": 50e3},
)
"""Costs that can be reckoned with in the head."""


def measured() -> Costs:
    return Costs.of(json.loads(COSTS.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("flow", "commits"),
    [
        (Flow(0.001, 10, 10.0), 10),  # a second apart: each is a commit of its own
        (Flow(0.001, 1, 0.0), 0),
        (Flow(100, 1000, 10.0), 10 / 0.025),  # more than can be written: one for each pipeline
    ],
)
def test_a_chat_is_written_at_most_once_a_delta_and_once_a_tick(flow: Flow, commits: float) -> None:
    assert flow.commits_per_chat == pytest.approx(commits, rel=0.02)


@pytest.mark.parametrize(
    ("flow", "cores"),
    [
        (Flow(0, 0, 0), 0.002),
        (Flow(10, 100, 5), 0.002 + 0.05 + 0.1 + Flow(10, 100, 5).pipelines * 0.001),
        (Flow(10, 100, 5, readers=0), 0.002 + 0.05 + 0.05 + Flow(10, 100, 5).pipelines * 0.001),
        (Flow(0, 0, 0, sessions=10), 0.002 + 0.01),
    ],
)
def test_cores_of_a_process_are_the_sum_of_what_it_does(flow: Flow, cores: float) -> None:
    assert model.service_cores(ROUND, flow) == pytest.approx(cores)


@pytest.mark.parametrize(
    ("kept", "size"),
    [
        (Kept(), 200),
        (Kept(sessions=1), 200 + 100 + 100 + 100),
        (Kept(tombstones=1), 200 + 100),
        (Kept(records=1), 200 + 100 + 1000),
        (Kept(logs=1), 200 + 100 + 200 + 500),
        (Kept(keys=3), 200 + 300),
        (Kept(conversations=1, talkers=1), 200 + 200),
        (Kept(running=1), 200 + 100 + 500),
        (Kept(usage_rows=1, usage_keys=1), 200 + 200),
    ],
)
def test_what_is_kept_in_redis_is_added_up(kept: Kept, size: float) -> None:
    assert model.redis_bytes(ROUND, kept, deltas=100, answer_bytes=1000).total == pytest.approx(size)


def test_a_log_takes_no_less_than_its_least() -> None:
    roomy = replace(ROUND, memory={**ROUND.memory, "log_least": 4800.0})
    assert model.redis_bytes(roomy, Kept(logs=1), deltas=1, answer_bytes=10).logs == 4800


def test_what_is_kept_for_long_counts_for_all_its_days() -> None:
    demand = Demand(100, 10, hours_a_day=2, sessions_per_day=3, conversation_days=180, usage_days=35)
    kept = model.kept_by(demand)
    assert (kept.conversations, kept.usage_rows, kept.tombstones) == (100 * 3 * 180, 100 * 3 * 35, 300)
    assert (kept.keys, kept.records) == (2000, pytest.approx(100 * 20 / 3))
    assert model.kept_by(replace(demand, messages_per_hour=1000)).records == 100 * 100


def test_processes_are_the_fewest_that_stay_within_their_share() -> None:
    demand = Demand(10_000, 30)
    found = model.processes_for(ROUND, demand)
    assert model.service_cores(ROUND, model.flow_of(demand, found)) <= 0.6
    assert model.service_cores(ROUND, model.flow_of(demand, found - 1)) > 0.6


def test_there_are_no_more_pipelines_however_many_chats_there_are() -> None:
    assert Flow(1000, 100, 5).pipelines == pytest.approx(1 / model.SPACING_SECONDS, rel=0.01)
    assert Flow(1, 100, 5).pipelines < 1 / model.TICK_SECONDS
    assert Flow(1, 100, 5, late=1.0).pipelines < 1


# -- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "settings"),
    [
        (Demand(100, 5), {}),
        (
            Demand(1000, 5),
            {"COZE_MAX_ACTIVE_USERS": 1300, "COZE_ROOT_SHARE": 1},
        ),
        (
            Demand(10_000, 10),
            {
                "COZE_MAX_ACTIVE_USERS": 13_000,
                "COZE_MAX_TOTAL_SESSIONS": 13_000,
                "RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE": 3400,
                "COZE_ROOT_SHARE": 1,
            },
        ),
        (Demand(300, 5, one_caller=True), {"COZE_ROOT_SHARE": None, "COZE_OWNER_SHARE": 1}),
        (Demand(100, 5, session_hours=2), {"COZE_SESSION_EXPIRE": 7200}),
        (Demand(100, 5, answer_seconds=400), {"COZE_CHAT_TIMEOUT": 800}),
    ],
)
def test_a_setting_is_named_where_its_default_would_refuse(
    demand: Demand, settings: dict[str, float | None]
) -> None:
    found = {each.name: each.value for each in plan(demand, ROUND).settings}
    assert found == {name: value for name, value in settings.items() if value is not None}


def test_the_settings_that_are_named_exist_and_have_these_defaults() -> None:
    huge = Demand(1_000_000, 60, sessions_at_once=20, answer_seconds=900, result_hours=9, session_hours=9)
    named = [
        *plan(replace(huge, one_caller=True), ROUND).settings,
        *plan(replace(huge, messages_per_hour=900), ROUND).settings,
    ]
    fields: dict[str, Any] = {
        info.validation_alias.choices[0]: info.default  # type: ignore[union-attr]
        for info in Settings.model_fields.values()
    }
    # Unset they are twenty times a user's.
    fields |= {"RATE_LIMIT_TOTAL_MESSAGES_PER_MINUTE": 1200, "RATE_LIMIT_TOTAL_SESSIONS_PER_MINUTE": 600}
    ours = {each.name: each.default for each in named if "redis.conf" not in each.name}
    assert len(ours) > 10
    assert {name: fields.get(name) for name in ours} == ours


def test_the_numbers_that_the_model_takes_from_the_service_are_its_own() -> None:
    assert (model.TICK_SECONDS, model.SPACING_SECONDS) == (event_log.TICK_SECONDS, event_log.SPACING_SECONDS)
    assert model.SHARDS == SHARDS
    pool = Settings.model_fields["redis_pool_size"].default
    assert pool + BLOCKING_READS == model.CONNECTIONS_OF_A_PROCESS
    days = ("conversation_days", "usage_retention_days")
    assert tuple(Settings.model_fields[name].default for name in days) == (180, 35)
    hours = ("session_expire", "result_expire")
    defaults = Demand(1, 1)
    assert [Settings.model_fields[name].default / 3600 for name in hours] == [
        defaults.session_hours,
        defaults.result_hours,
    ]


# -- where a Cluster puts the shards ----------------------------------------------------------------------


def test_slots_are_those_of_redis_for_the_names_of_our_keys() -> None:
    keys = Keys("coze:")
    for shard in keys.shards:
        assert model.slot_of(f"{shard:02d}") == key_slot(keys.leases(shard).encode())
    assert model.slot_of("index") == key_slot(keys.all_sessions.encode())


@pytest.mark.parametrize(
    ("masters", "ends", "shards"),
    [
        (3, [5460, 10922, 16383], [15, 9, 8]),
        (4, [4095, 8191, 12287, 16383], [8, 8, 8, 8]),
        (5, [3276, 6553, 9829, 13106, 16383], [8, 8, 7, 4, 5]),
        (8, None, [8, 0, 8, 0, 8, 0, 8, 0]),
    ],
)
def test_the_usual_ranges_deal_the_shards_out_unfairly(
    masters: int, ends: list[int] | None, shards: list[int]
) -> None:
    ranges = model.usual_ranges(masters)
    assert ends is None or [part.stop - 1 for part in ranges] == ends
    found = model.dealt(ranges)
    assert [count for count, _ in found] == shards
    assert [has_index for _, has_index in found].index(True) == 0


@pytest.mark.parametrize("masters", range(1, 33))
def test_there_are_ranges_that_deal_them_out_fairly(masters: int) -> None:
    ranges = model.fair_ranges(masters)
    assert [slot for part in ranges for slot in part] == list(range(model.SLOTS))
    found = model.dealt(ranges)
    assert max(count for count, _ in found) - min(count for count, _ in found) <= 1
    [with_index] = [count for count, has_index in found if has_index]
    assert masters > 6 or with_index == min(count for count, _ in found)


# -- the program ------------------------------------------------------------------------------------------


def test_it_runs_with_the_standard_library_alone() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "scripts/capacity.py")]
    asked = ["--users", "1000", "--messages-per-hour", "5"]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip("\n") == words(plan(Demand(1000, 5), measured()))
    as_json = subprocess.run([*command, *asked, "--json"], capture_output=True, text=True, check=False)
    assert json.loads(as_json.stdout)["processes"] == plan(Demand(1000, 5), measured()).processes


@pytest.mark.parametrize("wrong", [["--users", "0"], ["--users", "9", "--headroom", "1"]])
def test_what_cannot_be_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*wrong, "--messages-per-hour", "5"])
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err or "headroom" in capsys.readouterr().err


def test_more_users_need_no_less_of_anything() -> None:
    costs = measured()
    plans = [plan(Demand(10**power, 6), costs) for power in range(2, 7)]
    for smaller, larger in itertools.pairwise(plans):
        assert smaller.processes <= larger.processes
        assert smaller.redis.total < larger.redis.total
        assert smaller.commands < larger.commands
    assert plans[0].masters == 1


def test_it_says_in_words_where_one_redis_ends(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--users", "100", "--messages-per-hour", "5"])
    said = capsys.readouterr().out
    assert "One Redis will do" in said
    assert "The defaults are enough" in said
    main(["--users", "1000000", "--messages-per-hour", "20"])
    said = capsys.readouterr().out
    assert "Cluster" in said
    assert "COZE_MAX_ACTIVE_USERS=1.3e6" in said or "COZE_MAX_ACTIVE_USERS=1300000" in said
