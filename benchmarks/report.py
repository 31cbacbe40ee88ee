"""The tables: for the terminal, and in Markdown for ``results/`` and the documentation.

A run that is kept, and ``python -m benchmarks.report`` again, puts them into docs/zh and
docs/en/benchmarks.md, between the lines ``<!-- benchmark -->`` and ``<!-- /benchmark -->``, three lines of
them into the first page (``benchmarks.headlines``), and the costs of users with what follows from them into
docs/zh and docs/en/capacity.md.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from benchmarks.headlines import with_headlines
from benchmarks.processes import ROOT
from scripts.capacity import plan, row
from scripts.capacity_model import Costs, Demand

RESULTS: Final = ROOT / "benchmarks" / "results"
BEGIN: Final = "<!-- benchmark -->\n"
END: Final = "<!-- /benchmark -->"

_COLUMNS: Final = {
    "rate": ("per second", "每秒", "{:.0f}"),
    "cpu_ms": ("server CPU, ms each", "服务 CPU，毫秒/次", "{:.2f}"),
    "cpu_us_per_delta": ("µs per delta", "微秒/增量", "{:.0f}"),
    "redis_ms": ("Redis CPU, ms", "Redis CPU，毫秒", "{:.2f}"),
    "first.median": ("first delta, ms", "首个增量，毫秒", "{:.1f}"),
    "whole.p99": ("whole, p99 ms", "全程 p99，毫秒", "{:.0f}"),
    "faults": ("lost / doubled / errors", "丢失/重复/错误", "{}"),
}
_MORE: Final = {
    "cpu_spread": "spread of CPU",
    "late.max": "latest frame ms",
    "late_worst": "latest of all rounds ms",
    "held_ms": "longest callback or step ms",
    "turn_ms": "longest turn of the loop ms",
    "collection_ms": "longest collection ms",
    "busy": "share of its core",
    "kib_per_stream": "KiB per stream",
    "idle_mib": "idle MiB",
    "early_mib": "second quarter MiB",
    "late_mib": "last quarter MiB",
    "grown_kib": "grown KiB",
    "extra_cpu": "extra share of a core",
    "resident_mib": "resident MiB",
    "held": "s until the last was read",
    "factor": "factor of two workers",
    "fuller_worker": "share of the busier worker",
    "fuller_accepted": "share of connections of the fuller worker",
    "redis_busy": "Redis' share of its core",
    "driver_busy": "driver's",
    "upstream_busy": "upstream's",
    "pipelines_per_second": "pipelines/s",
    "commands_per_chat": "commands per chat",
    "xadd_per_chat": "XADDs per chat",
    "bytes_in_per_chat": "bytes in",
    "bytes_out_per_chat": "bytes out",
    "kib_kept": "KiB kept per chat",
    "kib_of_keys": "KiB by MEMORY USAGE",
    "predicted": "predicted",
    "found": "measured",
}
"""What only some parts have, named beside its value."""


def markdown(found: dict[str, Any], language: str = "en") -> str:
    """One table of figures by scenario, one of the checks; ``found`` as ``results.as_json`` makes it."""
    at = 0 if language == "en" else 1
    parts = found["parts"].values()
    lines = [*_about(found, language), ""]
    heads = [*(heads[at] for heads in _COLUMNS.values()), "more" if language == "en" else "其他"]
    first = ["scenario", "contestant", "ratio of CPU"] if language == "en" else ["场景", "对象", "CPU 之比"]
    lines += _head([*first, *heads])
    for part in parts:
        lines += [_line(row) for row in part["rows"]]
    checks = ["#", "what", "measured", "limit", ""] if language == "en" else ["#", "内容", "实测", "目标", ""]
    lines += ["", *_head(checks)]
    for check in (check for part in parts for check in part["checks"]):
        verdict = "pass" if check["passed"] else "**FAIL**"
        limit = f"{'≤' if check['sign'] == '<=' else '≥'} {check['limit']:g}"
        lines.append(f"| {check['number']} | {check['text']} | {check['value']:.3g} | {limit} | {verdict} |")
    if notes := [note for part in parts for note in part["notes"]]:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _about(found: dict[str, Any], language: str) -> list[str]:
    """The machine, and when each part was measured: a run with ``--only`` leaves the other parts' figures."""
    about, english = found["about"], language == "en"
    comma = ", " if english else "，"
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "fastapi", "httpx", "uvicorn"))
    machine = f"{about['cores']} x {about['cpu']}, Linux {about['kernel']}"
    by_run: dict[str, list[str]] = {}
    for name, part in found["parts"].items():
        by_run.setdefault(part["measured"], []).append(name)
    medians = "medians of the rounds." if english else "取各轮中位数。"
    return [
        comma.join([machine, versions, medians]),
        "",
        *(f"- {', '.join(names)}: {measured}" for measured, names in by_run.items()),
    ]


def _head(names: list[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _line(row: dict[str, Any]) -> str:
    values = row["values"]
    ratio = f"{values['cpu_ratio']:.2f}" if "cpu_ratio" in values else ""
    cells = [row["scenario"], row["contestant"], ratio]
    for name, (_, _, form) in _COLUMNS.items():
        if name == "faults":
            counts = [values.get(key) for key in ("lost", "doubled", "errors")]
            cells.append(" / ".join(f"{count:.0f}" for count in counts if count is not None))
        else:
            cells.append(form.format(values[name]) if name in values else "")
    cells.append(", ".join(f"{name} {values[key]:.3g}" for key, name in _MORE.items() if key in values))
    return "| " + " | ".join(cells) + " |"


def terminal(found: dict[str, Any]) -> str:
    """The Markdown with its columns aligned."""
    out: list[str] = []
    block: list[list[str]] = []
    for line in [*markdown(found).splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if block:
            widths = [max(len(row[i]) for row in block) for i in range(len(block[0]))]
            for row in block:
                filled = ["-" * w if c == "---" else c.ljust(w) for c, w in zip(row, widths, strict=True)]
                out.append("  ".join(filled).rstrip())
            block = []
        out.append(line)
    return "\n".join(out)


def put_into_pages(found: dict[str, Any]) -> list[str]:
    """The files that have the marks and were changed."""
    changed = []
    for language in ("zh", "en"):
        name = f"docs/{language}/benchmarks.md"
        file = ROOT / name
        text = file.read_text()
        before, marked, rest = text.partition(BEGIN)
        _, ends, after = rest.partition(END)
        if not marked or not ends:
            continue
        new = f"{before}{BEGIN}\n{markdown(found, language)}\n{END}{after}"
        if new != text:
            file.write_text(new)
            changed.append(name)
    for name, language in (("README.md", "zh"), ("README.en.md", "en")):
        file = ROOT / name
        text = file.read_text()
        if (new := with_headlines(text, found, language)) != text:
            file.write_text(new)
            changed.append(name)
    return changed


# -- the pages on size ------------------------------------------------------------------------------------

_USERS_OF_ROWS: Final = (1_000, 10_000, 100_000, 1_000_000)
MESSAGES_PER_HOUR: Final = 6
"""What the table of users assumes of each."""


def with_costs(page: str, costs: dict[str, dict[str, Any]], language: str) -> str:
    """docs/*/capacity.md with the tables that follow from ``results/capacity.json``."""
    known = Costs.of(costs)
    rows = [row(plan(Demand(users, MESSAGES_PER_HOUR), known)) for users in _USERS_OF_ROWS]
    page = _between(page, "capacity", lambda _, number: rows[number])
    shown = {
        f"`{part}.{name}`": f"{value:,.4g}"
        for part, values in costs.items()
        if part != "about"
        for name, value in values.items()
    }
    page = _between(page, "costs", lambda cells, _: [*cells[:2], shown[cells[1]]])
    about, english = costs["about"], language == "en"
    comma, stop, load = (", ", ".", "load average ") if english else ("，", "。", "平均负载 ")
    machine = f"{about['cores']} x {about['cpu']}{comma}Linux {about['kernel']}"
    versions = f"Python {about['python']}{comma}Redis {about['redis']}"
    line = f"{machine}{comma}{versions}{comma}{about['date']}{comma}{load}{about['load_average']}{stop}"
    before, mark, rest = page.partition("<!-- costs -->\n\n")
    return f"{before}{mark}{line}\n{rest.partition(chr(10))[2]}"


def _between(page: str, mark: str, cells_of: Callable[[list[str], int], list[str]]) -> str:
    """The table between two marks, with other cells in its rows; head and rule stay."""
    before, begin, rest = page.partition(f"<!-- {mark} -->")
    table, end, after = rest.partition(f"<!-- /{mark} -->")
    lines, seen = table.split("\n"), 0
    for place, line in enumerate(lines):
        if line.startswith("|"):
            seen += 1
            if seen > 2:
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                lines[place] = "| " + " | ".join(cells_of(cells, seen - 3)) + " |"
    return before + begin + "\n".join(lines) + end + after


def put_costs_into_pages() -> list[str]:
    """The pages that were changed."""
    costs = json.loads((RESULTS / "capacity.json").read_text())
    changed = []
    for language in ("zh", "en"):
        file = ROOT / "docs" / language / "capacity.md"
        text = file.read_text()
        if (new := with_costs(text, costs, language)) != text:
            file.write_text(new)
            changed.append(f"docs/{language}/capacity.md")
    return changed


def main() -> None:
    """Also at the end of a run that is kept."""
    changed = put_into_pages(json.loads((RESULTS / "latest.json").read_text())) + put_costs_into_pages()
    print("changed:", ", ".join(changed) or "nothing")


if __name__ == "__main__":
    main()
