"""A run's bars and curves as SVG, written by hand: a plotting library would be the largest dependency."""

from collections.abc import Sequence
from html import escape
from typing import Any, Final

_WIDTH: Final = 860
_LEFT: Final = 300
_BAR: Final = 18
_CURVE_HEIGHT: Final = 150
_COLOURS: Final = {"ours": "#2a7", "passthrough": "#888", "upstream": "#bbb"}


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}"{weight}'
    return f"<text {place}>{escape(text)}</text>"


def _bars(title: str, values: Sequence[tuple[str, float]], top: float) -> tuple[list[str], float]:
    out, highest = [_text(10, top + 16, title, size=14, bold=True)], max(value for _, value in values)
    y = top + 26
    for label, value in values:
        length = (_WIDTH - _LEFT - 80) * value / highest
        colour = _COLOURS.get(label.rsplit(": ", 1)[-1].split(",")[0], "#c73")
        out.append(_text(_LEFT - 8, y + 13, label, anchor="end"))
        out.append(
            f'<rect x="{_LEFT}" y="{y:.0f}" width="{length:.1f}" height="{_BAR - 4}" fill="{colour}"/>'
        )
        out.append(_text(_LEFT + length + 6, y + 13, f"{value:.3g}"))
        y += _BAR
    return out, y + 14


def _curve(title: str, points: Sequence[Sequence[float]], top: float) -> tuple[list[str], float]:
    """The y axis begins at 0: what is flat shall look flat, and what is not shall not be hidden."""
    base, right = top + 26 + _CURVE_HEIGHT, _WIDTH - 80
    last, highest = points[-1][0] or 1, max(y for _, y in points) * 1.1 or 1
    dots = [(60 + (right - 60) * x / last, base - _CURVE_HEIGHT * y / highest) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    out = [
        _text(10, top + 16, title, size=14, bold=True),
        f'<path d="M60 {top + 26:.0f} V{base:.0f} H{right}" fill="none" stroke="#444"/>',
        f'<polyline points="{line}" fill="none" stroke="#2a7" stroke-width="2"/>',
        _text(54, base, "0", anchor="end"),
        _text(54, top + 36, f"{highest:.3g}", anchor="end"),
        _text(right, base + 15, f"{last:g}", anchor="end"),
    ]
    return out, base + 34


def svg(found: dict[str, Any]) -> str:
    """CPU time by scenario and contestant, then the curves."""
    bars: dict[str, list[tuple[str, float]]] = {}
    curves: dict[str, list[list[float]]] = {}
    for part in found["parts"].values():
        curves |= part["curves"]
        for row in part["rows"]:
            if "cpu_ms" in row["values"]:
                bars.setdefault(row["scenario"], []).append((row["contestant"], row["values"]["cpu_ms"]))
    body, y = [], 10.0
    for scenario, values in bars.items():
        lines, y = _bars(f"{scenario}: server CPU, ms each", values, y)
        body += lines
    for title, points in curves.items():
        lines, y = _curve(title, points, y)
        body += lines
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y:.0f}" font-family="sans-serif">'
    )
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{y:.0f}" fill="#fff"/>', *body, "</svg>"]) + "\n"
