"""A real Prometheus beside the run, and what the dashboard's queries answer of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.faults.support import Cluster
from tests.observability.queries import DASHBOARD, RULES
from tests.observability.recording import JOB
from tests.support import block_until, free_port

NO_PROMETHEUS = "no prometheus on PATH (Debian: apt-get install prometheus): the dashboard was not asked"
MAY_BE_EMPTY = frozenset({"coze_credential_expiry_seconds"})
"""Metrics that are not there under this load: these credentials say nothing of their end."""


@dataclass
class Prometheus:
    """``seconds``: from one scrape to the next."""

    base_url: str
    seconds: int
    began: float = field(default_factory=time.time)

    async def ask(self, query: str, start: float, end: float) -> Any:
        """The series of a query over that time. Raises AssertionError where it is no query."""
        step = max(self.seconds, int((end - start) / 240))
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            response = await http.post(
                f"{self.base_url}/api/v1/query_range",
                data={"query": query, "start": start, "end": end, "step": step},
            )
        body = response.json()
        assert body["status"] == "success", f"{query}: {body}"
        return body["data"]["result"]


@contextlib.contextmanager
def prometheus(pair: Cluster, seconds: int) -> Iterator[Prometheus | None]:
    """One that scrapes the replicas and knows the alerts; None where this machine has none."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    directory, port = Path(tempfile.mkdtemp(prefix="coze-test-prometheus-")), free_port()
    targets = [
        {"targets": [f"127.0.0.1:{replica.port}"], "labels": {"instance": f"replica-{number}"}}
        for number, replica in enumerate(pair.replicas, 1)
    ]
    config = {
        "global": {"scrape_interval": f"{seconds}s", "evaluation_interval": f"{seconds}s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": JOB, "metrics_path": "/coze/metrics", "static_configs": targets}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        base_url = f"http://127.0.0.1:{port}"
        block_until(
            lambda: httpx.get(f"{base_url}/-/ready", trust_env=False).status_code == 200,
            60,
            pause=0.1,
            not_yet=(httpx.HTTPError,),
        )
        yield Prometheus(base_url, seconds)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _filled_in(query: str, seconds: int) -> str:
    """As Grafana fills in its variables, with all replicas chosen."""
    return query.replace("$__rate_interval", f"{4 * seconds}s").replace("$instance", ".*")


async def ask_all(source: Prometheus) -> tuple[list[dict[str, Any]], list[str]]:
    """What each query of the dashboard answers over the run, and what is wrong with some."""
    await asyncio.sleep(source.seconds + 3)  # what happened last is scraped, too
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    answers, wrong = [], []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = _filled_in(target["expr"], source.seconds)
            try:
                series = await source.ask(query, source.began, time.time())
            except AssertionError as error:
                wrong.append(f"{panel['title']}: {error}")
                continue
            if not series and not any(metric in query for metric in MAY_BE_EMPTY):
                wrong.append(f"{panel['title']}: nothing to show for {query}")
            answers.append(
                {
                    "panel": panel["title"],
                    "id": panel["id"],
                    "type": panel["type"],
                    "place": panel["gridPos"],
                    "unit": panel["fieldConfig"]["defaults"]["unit"],
                    "legend": target["legendFormat"],
                    "query": query,
                    "series": series,
                }
            )
    return answers, wrong


async def alerts(source: Prometheus) -> list[str]:
    """The names of those that fired."""
    fired = await source.ask('count by (alertname) (ALERTS{alertstate="firing"})', source.began, time.time())
    return sorted(series["metric"]["alertname"] for series in fired)


def summary(answers: list[dict[str, Any]]) -> str:
    lines = [f"dashboard: {len(answers)} queries answered"]
    for answer in answers:
        values = [float(value) for series in answer["series"] for _, value in series["values"]]
        known = [value for value in values if not math.isnan(value)]
        shown = f"{min(known):.4g} to {max(known):.4g}" if known else "nothing"
        count = len(answer["series"])
        lines.append(f"  {answer['panel'][:58]:58} {answer['legend'][:24]:24} {count:3} series, {shown}")
    return "\n".join(lines)
