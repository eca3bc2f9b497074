"""
Draw the log history as HTML for a Flyte Deck: a chart for each metric, a table of the last logs.

Promises: the size of the HTML and of the data kept for it is limited, however long the training is.
Every name and value is escaped as text. The page needs no package and no network to be displayed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from asynccb.trackers.names import marked, scalars

TITLE: Final = "Log History"
STEP: Final = "step"
POINTS: Final = 2000
"""Maximum points of a chart; whenever there are more, every second point is removed."""
_ROWS: Final = 200
"""Maximum logs in the table; the last logs are kept."""
_CHARTS: Final = 100
"""Maximum metrics with a chart; the first metrics are drawn."""
_WIDTH: Final = 720
_HEIGHT: Final = 180


def column(name: str) -> str:
    """Return the name of a metric's column and chart; the first column is the global step."""
    return marked(name, name) if name == STEP else name


class _Series:
    """One metric's points, evenly thinned out."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self.last: tuple[int, float] | None = None
        self._each = 1
        self._seen = 0

    def add(self, step: int, value: float) -> None:
        if self._seen % self._each == 0:
            self.points.append((step, value))
            if len(self.points) > POINTS:
                del self.points[1::2]
                self._each *= 2
        self._seen += 1
        self.last = (step, value)


class LogHistory:
    """The logs of a training, as they are drawn."""

    def __init__(self) -> None:
        self.count = 0
        """Number of logs so far."""
        self._series: dict[str, _Series] = {}
        self._rows: deque[dict[str, Any]] = deque(maxlen=_ROWS)

    def add(self, step: int, logs: Mapping[str, Any]) -> None:
        """Add a log."""
        self.count += 1
        self._rows.append({STEP: step, **logs})
        numbers, _ = scalars(logs)
        for name, value in numbers.items():
            if name == "epoch":
                continue
            if name not in self._series:
                if len(self._series) >= _CHARTS:
                    continue
                self._series[name] = _Series()
            self._series[name].add(step, value)

    def render(self) -> str:
        """Return the HTML."""
        charts = "\n".join(_chart(name, series) for name, series in list(self._series.items()))
        return f"{charts}\n{_table(list(self._rows), self.count)}"


def _chart(name: str, series: _Series) -> str:
    points = [*series.points]
    if series.last is not None and points[-1] != series.last:
        points.append(series.last)
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    step, last = series.last or points[-1]
    caption = f"<b>{escape(name)}</b> {last:.6g} at step {step}"
    if not finite:
        return f"<figure><figcaption>{caption}</figcaption></figure>"
    steps, values = [step for step, _ in finite], [value for _, value in finite]
    low, high = min(values), max(values)
    if len(finite) < len(points):
        caption += f", {len(points) - len(finite)} of {len(points)} points not finite"
    line = " ".join(
        f"{_place(step, steps[0], max(steps), _WIDTH):.1f},"
        f"{_HEIGHT - _place(value, low, high, _HEIGHT):.1f}"
        for step, value in finite
    )
    drawn = f'<polyline points="{line}" fill="none" stroke="#7652a2" stroke-width="1.5"/>'
    if len(finite) == 1:
        x, y = line.split(",")
        drawn = f'<circle cx="{x}" cy="{y}" r="3" fill="#7652a2"/>'
    return (
        f"<figure><figcaption>{caption}; {low:.6g} to {high:.6g}, steps {min(steps)} to "
        f"{max(steps)}</figcaption>"
        f'<svg viewBox="-4 -4 {_WIDTH + 8} {_HEIGHT + 8}" width="{_WIDTH}" role="img">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#ccc"/>{drawn}'
        "</svg></figure>"
    )


def _place(value: float, low: float, high: float, length: int) -> float:
    """Return a value's position along a length, correct even between the largest floats."""
    span = high / 2 - low / 2
    return length * ((value / 2 - low / 2) / span) if span > 0 else length / 2


def _table(rows: list[dict[str, Any]], count: int) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(str(name))}</th>" for name in names)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_cell(row, name)}</td>" for name in names) + "</tr>" for row in rows
    )
    shown = f"the last {len(rows)} of {count} logs" if count > len(rows) else f"{count} logs"
    return (
        f'<table border="1" cellpadding="4" style="border-collapse: collapse"><caption>{shown}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    )


def _cell(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return ""
    text = str(row[name])
    return escape(text if len(text) <= 1000 else f"{text[:1000]}…")
