"""What a query of Prometheus asks for: metrics, labels that it selects by, and labels that it groups by."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from tests.support.service import ROOT

RULES = ROOT / "deploy/prometheus/alerts.yml"
RULE_TESTS = ROOT / "deploy/prometheus/alerts_test.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"

_WORDS = {"and", "or", "unless", "bool", "offset"}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^{}]*\})?(\s*\()?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


class Selection(NamedTuple):
    """One metric in a query. ``matchers``: label, operator and value."""

    metric: str
    matchers: list[tuple[str, str, str]]


def selections(query: str) -> list[Selection]:
    text = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", query))  # without ranges such as [5m]
    return [
        Selection(name, _MATCHER.findall(matchers))
        for name, matchers, opens in _SELECTOR.findall(text)
        if not opens and name not in _WORDS
    ]


def grouped_by(query: str) -> set[str]:
    return {label.strip() for labels in _GROUPING.findall(query) for label in labels.split(",")} - {""}


def rules() -> list[dict[str, Any]]:
    """The alerts, in the order of their file."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]
