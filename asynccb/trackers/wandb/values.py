"""
A run as W&B describes it: configuration, summary and lines of the history.

Promises: the same records make the same lines, byte by byte. Each line has its own number, so that
no line is lost if global steps repeat or go back.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from asynccb._state.run_description import RunDescription
from asynccb.trackers.names import marked, run_config

STEP: Final = "train/global_step"
_METRICS: Final = [{"1": STEP, "6": [3], "7": []}, {"2": "*", "5": 1, "6": [1], "7": []}]
"""The vendor's `define_metric` in this form: the global step is a metric, and the x axis of every
other metric. The numbers are the fields of a protobuf message."""
_PRIVATE: Final = "_wandb"
_OURS: Final = frozenset({STEP, "_step", "_runtime", "_timestamp", _PRIVATE})
"""Keys of a line or of the summary that say something else than a metric."""
_WATCHED: Final = ("gradients/", "parameters/")
"""Beginnings of the names of histograms, which are logged beside a run's metrics."""
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Bases(msgspec.Struct, frozen=True):
    """The beginning of our own part of a run, which another process may have begun."""

    history: int = 0
    """Offset of our first line."""
    console: int = 0
    step: int = 0
    """`_step` of our first line."""
    runtime: float = 0.0
    """Seconds that the run had lasted."""


def history_key(name: str, *, watched: bool) -> str:
    """
    Return a metric's key in the history; one that is in use otherwise ends in a checksum.

    If the model is `watched`, its histograms are in the history, too.
    """
    is_histogram = watched and name.startswith(_WATCHED)
    if name in _OURS or is_histogram or not name:
        return marked(name.lstrip("_"), name)  # W&B's pages hide keys that begin with `_`
    return name


def base36(number: int, length: int) -> str:
    """Return a number in letters and digits, its last `length` places."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def config_of(run: RunDescription, bases: Bases, others: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the whole configuration of a run as the server keeps it.

    `others` is the configuration of earlier parts of the run; ours goes over it. The beginning of
    our part is noted, so that a process that starts over finds it.
    """
    private = dict((others.get(_PRIVATE) or {}).get("value") or {})
    python = platform.python_version()
    part = {
        "writerId": run.key,
        "startedAt": datetime.fromtimestamp(run.started / 1e9, UTC)
        .isoformat(timespec="microseconds")
        .replace("+00:00", "Z"),
        "host": run.host,
        "program": run.script,
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {python}",
        "training": run.training,
        "begin": msgspec.to_builtins(bases),
    }
    private |= {
        "t": private.get("t") or {"4": python},
        "m": _METRICS,
        "python_version": python,
        "e": {**(private.get("e") or {}), run.key: part},
    }
    values = run_config(run)
    if run.model is not None:
        values["model/num_parameters"] = run.model.parameters
    config = {key: {"value": value} for key, value in values.items() if key != _PRIVATE}
    return {**others, **config, _PRIVATE: {"value": private}}


def bases_in(config: Mapping[str, Any], run: RunDescription) -> Bases | None:
    """Return the note of an earlier process of the same training, or None."""
    try:
        part = config[_PRIVATE]["value"]["e"][run.key]
        if part["training"] != run.training:
            return None
        return msgspec.convert(part["begin"], Bases)
    except (KeyError, TypeError, msgspec.ValidationError):
        return None


def histogram(row: Sequence[float]) -> dict[str, Any] | None:
    """Return a row of `_staging/histograms.py` in the server's form; None if it counts nothing."""
    least, most, *counts = row
    if not least <= most:
        return None
    if least == most:
        least, most = least - 0.5, most + 0.5
        counts = [0.0] * (len(counts) // 2) + [sum(counts)] + [0.0] * (len(counts) // 2 - 1)
    width = (most - least) / len(counts)
    bins = [least + width * number for number in range(len(counts))]
    return {"_type": "histogram", "values": list(map(int, counts)), "bins": [*bins, most]}


class History:
    """Make the lines of the history, and the summary that goes with them."""

    def __init__(self) -> None:
        self.bases = Bases()
        self.step = 0
        """`_step` of the next line."""
        self.summary: dict[str, Any] = {}

    def begin(self, bases: Bases, summary: Mapping[str, Any]) -> None:
        """Continue where another part of the run has ended; before the first line."""
        self.bases = bases
        self.step = bases.step
        self.summary = dict(summary)

    def line(self, values: Mapping[str, Any], time: int, started: int) -> dict[str, Any]:
        """Return a line; the times are Unix nanoseconds, of the record and of the run's begin."""
        runtime = self.bases.runtime + (time - started) / 1e9
        head = {"_step": self.step, "_runtime": runtime, "_timestamp": time / 1e9}
        self.step += 1
        return {**values, **head}

    def summarize(self, line: Mapping[str, Any]) -> None:
        """Take a line's values as the last ones."""
        self.summary |= line
        self.summary[_PRIVATE] = {"runtime": int(line["_runtime"])}

    def numbers(self) -> dict[str, float]:
        """Return the numbers of the summary that are metrics."""
        return {
            name: value
            for name, value in self.summary.items()
            if not name.startswith("_") and isinstance(value, int | float)
        }
