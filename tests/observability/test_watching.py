"""Dashboard, alerts and runbook are about what the service really tells, and about each other."""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from coze_simulator.auth_server import running_auth
from tests.docs.pages import LANGUAGES, anchors
from tests.support import RedisServer, RunningApp, SimControl, data_of, error_of, open_client
from tests.support.service import ROOT

from .queries import DASHBOARD, RULE_TESTS, RULES, Selection, grouped_by, rules, selections
from .record import HEAD, as_test
from .recording import Recording, notation, record
from .stories import STORIES
from .support import Scrape, scrape

StartApp = Callable[..., RunningApp]

OF_PROMETHEUS = {"instance", "job"}
"""Labels that the scraper adds."""
UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps", "cpm"}
"""Of Grafana's, those that the dashboard needs."""
WIDTH = 24
_LEGEND = re.compile(r"{{\s*(\w+)\s*}}")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each query of the dashboard, with its panel's title."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target


# -- what is asked for is there ------------------------------------------------------------------------------


@pytest.fixture
def oauth(tmp_path: Path) -> dict[str, str]:
    """A credential of which it is known when it expires."""
    path = tmp_path / "key.pem"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(key.private_bytes(*form))
    return {
        "COZE_API_TOKEN": "",
        "COZE_OAUTH_APP_ID": "app-1",
        "COZE_OAUTH_KEY_ID": "kid-1",
        "COZE_OAUTH_PRIVATE_KEY_FILE": str(path),
    }


async def some_of_everything(start_app: StartApp, redis: RedisServer, **values: str) -> Scrape:
    """What a service tells after a day in which much has happened."""
    with running_auth() as auth:
        service = start_app(
            REDIS_URL=redis.url,
            ENABLE_AUTH="true",
            HTY_VERIFY_URL=auth.verify_url,
            AUTH_TIMEOUT="1",
            MAX_CONCURRENT_CHATS="4",
            **values,
        )
        headers = {"HtySudoerToken": auth.app.issue("one"), "HtyHost": "app.moicen.com"}
        async with open_client(service.base_url, headers=headers) as client:
            session, other = await client.open_session("u-1"), await client.open_session("u-2")
            data_of(await client.send(session, "hello"))
            assert (await client.send(session, "[[sim:fail=4015]]")).status_code == 502
            waiting = data_of(await client.send(session, "[[sim:requires_action=function]]"))
            assert (await client.send(session, "hello")).status_code == 409
            await client.post(f"/coze/chats/{waiting['chat_id']}/cancel")
            running = [await client.start(other, "[[sim:delay=30]]")]
            refused = await client.send(session, "hello")  # half of four for one owner, and one runs
            running += [await client.start(session, "[[sim:delay=30]]")] if refused.is_success else []
            third = await client.open_session("u-3")
            assert error_of(await client.send(third, "hello"))["code"] == "RATE_LIMITED"
            for chat_id in running:
                await client.post(f"/coze/chats/{chat_id}/cancel")
            auth.app.mode = "off"
            unknown = {"HtySudoerToken": auth.app.issue("two")}
            response = await client.get("/coze/users/u/sessions", headers=unknown)
            assert error_of(response)["code"] == "AUTH_UNAVAILABLE"
        await asyncio.to_thread(service.wait_idle)
        return scrape(service.base_url)


def lacking(query: str, exported: Scrape) -> Iterator[str]:
    """What the query asks for and the service does not tell: metrics, labels, labels' values."""
    names = {name for name, _ in exported.samples}
    known = set(OF_PROMETHEUS)
    for metric, matchers in selections(query):
        if metric == "up":  # Prometheus' own
            continue
        if metric not in names:
            yield f"no metric {metric}"
            continue
        labels = {label for name, found in exported.samples if name == metric for label, _ in found}
        known |= labels
        for label, operator, value in matchers:
            if label in OF_PROMETHEUS:
                continue
            if label not in labels:
                yield f"{metric} has no label {label}"
                continue
            told = exported.labels(metric, label)
            for wanted in value.split("|") if "~" in operator else [value]:
                if wanted not in told:
                    yield f"{metric} has no {label}={wanted}: {sorted(told)}"
    yield from (f"no metric of the query has the label {label}" for label in grouped_by(query) - known)


async def test_every_query_asks_for_what_a_service_tells(
    start_app: StartApp, redis: RedisServer, simulator: SimControl, oauth: dict[str, str]
) -> None:
    exported = await some_of_everything(start_app, redis, **oauth)
    asked = [(title, target["expr"]) for title, target in targets()]
    asked += [(rule["alert"], rule["expr"]) for rule in rules()]
    assert len(asked) > 50
    wrong = [f"{title}: {lack}" for title, query in asked for lack in lacking(query, exported)]
    assert wrong == []
    legends = [
        f"{title}: {label}"
        for title, target in targets()
        for label in _LEGEND.findall(target["legendFormat"])
        if label not in grouped_by(target["expr"]) | {"instance"}
    ]
    assert legends == []


async def test_every_metric_of_the_service_is_on_the_dashboard(start_app: StartApp) -> None:
    page = (await fetch(start_app)).splitlines()
    families = {line.split()[2] for line in page if line.startswith("# TYPE coze_")}
    shown = {selection.metric for _, target in targets() for selection in selections(target["expr"])}
    shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert families - shown == set()


async def fetch(start_app: StartApp) -> str:
    async with open_client(start_app().base_url) as client:
        return (await client.get("/coze/metrics")).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("up", [Selection("up", [])]),
        (
            'sum by (a, b) (rate(one_total{x="1",y=~"2|3"}[5m])) / on (c) max(two) > 0.5',
            [Selection("one_total", [("x", "=", "1"), ("y", "=~", "2|3")]), Selection("two", [])],
        ),
        ('a{b!="c"} or time() - d', [Selection("a", [("b", "!=", "c")]), Selection("d", [])]),
    ],
)
def test_what_a_query_asks_for_is_read_from_it(query: str, found: list[Selection]) -> None:
    assert selections(query) == found


# -- the dashboard as Grafana reads it -----------------------------------------------------------------------


def test_the_dashboard_can_be_imported() -> None:
    """Grafana's schema of a dashboard: what it says of ids, places, data sources and variables."""
    found = dashboard()
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time", "refresh"} <= found.keys()
    assert "id" not in found, "the number of a dashboard in somebody's database"
    variables = {each["name"]: each for each in found["templating"]["list"]}
    assert variables["DS_PROMETHEUS"]["type"] == "datasource"
    assert variables["DS_PROMETHEUS"]["query"] == "prometheus"
    assert variables["instance"]["type"] == "query"
    assert (variables["instance"]["multi"], variables["instance"]["includeAll"]) == (True, True)
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    assert variables["instance"]["datasource"] == source
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    for panel in found["panels"]:
        assert panel["type"] in ("row", "stat", "timeseries")
        assert panel["title"][0].isupper()
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(letters) == len(set(letters))
        for target in panel["targets"]:
            assert target["datasource"] == source
            used = set(re.findall(r"\$\{?(\w+)", target["expr"]))
            assert used <= {*variables, "__rate_interval"}, panel["title"]


def test_no_panel_lies_on_another_and_each_row_has_some() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]
    kinds = [panel["type"] for panel in dashboard()["panels"]]
    assert kinds[0] == "row"
    assert kinds[-1] != "row"
    assert ("row", "row") not in itertools.pairwise(kinds)


def test_each_panel_shows_the_replicas_that_were_chosen() -> None:
    for title, target in targets():
        for metric, matchers in selections(target["expr"]):
            assert metric == "up" or ("instance", "=~", "$instance") in matchers, title


# -- alerts and runbook --------------------------------------------------------------------------------------


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/en/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_alert_has_its_section_in_the_runbook_and_nothing_else_has(language: str) -> None:
    page = ROOT / "docs" / language / "runbook.md"
    sections = re.findall(r"^## (Coze\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    assert {name.lower() for name in sections} <= anchors(page)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_runbook_names_panels_that_are_there(language: str) -> None:
    text = (ROOT / "docs" / language / "runbook.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titles = {panel["title"] for panel in dashboard()["panels"]}
    for section in sections:
        named = re.findall(r"\*\*([^*]+)\*\*", section)
        assert named, f"no panel: {section[:40]}"
        assert set(named) <= titles, section[:40]


def log_messages() -> Iterator[str]:
    """All that the service can log, before anything is put into it."""
    for file in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                said = node.args[0]
                is_log = node.func.attr in ("debug", "info", "warning", "error")
                if is_log and isinstance(said, ast.Constant):
                    yield str(said.value)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_runbook_quotes_what_the_log_says(language: str) -> None:
    text = (ROOT / "docs" / language / "runbook.md").read_text(encoding="utf-8")
    quoted = set(re.findall(r'`"([^"`]+)"`', text))
    assert len(quoted) > 10
    logged = list(log_messages())
    assert {message for message in quoted if not any(message in each for each in logged)} == set()


def test_each_failure_is_recorded_and_each_alert_fires_in_one() -> None:
    recorded = re.findall(r"^  - name: (.+)$", RULE_TESTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert recorded == [story.name for story in STORIES]
    fired = {alert for story in STORIES for alert in story.fires}
    assert fired == {rule["alert"] for rule in rules()}


NO_PROMTOOL = "no promtool on PATH (Debian: apt-get install prometheus)"


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip(NO_PROMTOOL)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_the_rules_in_order() -> None:
    promtool("check", "rules", RULES)


def test_promtool_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [target["expr"].replace("$__rate_interval", "1m") for _, target in targets()]
    recorded = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}), encoding="utf-8")
    promtool("check", "rules", file)


def test_each_alert_fires_at_its_failure_and_none_in_a_quiet_hour() -> None:
    promtool("test", "rules", RULE_TESTS)


@pytest.mark.full
@pytest.mark.parametrize("name", ["Redis is killed", "an owner is killed"])
async def test_what_is_recorded_now_fires_as_what_was_recorded_then(name: str, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip(NO_PROMTOOL)
    [story] = [story for story in STORIES if story.name == name]
    shutil.copy(RULES, tmp_path)
    file = tmp_path / RULE_TESTS.name
    file.write_text(HEAD + as_test(story, await record(story)), encoding="utf-8")
    await asyncio.to_thread(promtool, "test", "rules", file)


# -- how series are written down -----------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([1], "1"),
        ([1, 1, 1, 2.5], "1+0x2 2.5"),
        ([None, None, 3], "_x2 3"),
        ([3, None], "3 stale"),
        ([3, None, None, 4], "3 stale _ 4"),
        ([3, None, None, None], "3 stale _x2"),
        ([NAN, 0], "NaN 0"),
    ],
)
def test_series_are_written_as_promtool_reads_them(values: list[float | None], written: str) -> None:
    assert notation(values) == written


def test_a_replica_that_does_not_answer_is_down_and_its_series_end() -> None:
    recording = Recording(["a:1", "b:1"])
    page = "coze_redis_away 0.0\ncoze_takeovers_total 7.0\ncoze_nobody_asks 1.0\n"
    page += 'coze_recoveries_total 0.0\ncoze_chats_total{outcome="completed"} 2.0\n'
    page += 'coze_chats_total{outcome="failed"} 1.0\n'
    recording.add([page, page])
    recording.add([None, page.replace("7.0", "8.0")])
    assert dict(recording.series()) == {  # of the chats one for each replica
        'coze_chats_total{instance="a:1",job="coze-fastapi",outcome="completed"}': "2 stale",
        'coze_chats_total{instance="b:1",job="coze-fastapi",outcome="completed"}': "2+0x1",
        'coze_redis_away{instance="a:1",job="coze-fastapi"}': "0 stale",
        'coze_redis_away{instance="b:1",job="coze-fastapi"}': "0+0x1",
        'coze_recoveries_total{instance="a:1",job="coze-fastapi"}': "0 stale",
        'coze_recoveries_total{instance="b:1",job="coze-fastapi"}': "0+0x1",
        'coze_takeovers_total{instance="a:1",job="coze-fastapi"}': "7 stale",
        'coze_takeovers_total{instance="b:1",job="coze-fastapi"}': "7 8",
        'up{instance="a:1",job="coze-fastapi"}': "1 0",
        'up{instance="b:1",job="coze-fastapi"}': "1+0x1",
    }
