"""
The values of a run for SwanLab: numbers under keys, and lines of the console.

Source of the rules of keys and times: `swanlab` 0.10.3. Pure functions: the same logs make the same
rows in any process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from asynccb.trackers.names import MARK, SINGLE_VALUES, Names, marked
from asynccb.trackers.shared.curve_names import CurveNames

STEP: Final = "train/global_step"
SYSTEM: Final = "__swanlab__."
"""Prefix of the keys of the machine's readings."""
_LONGEST: Final = 512
_LONGEST_LINE: Final = 1024
_ODD: Final = re.compile(r"[\x00-\x1f\x7f]")
_EDGES: Final = " \t\n\r./"

_SAMPLES: Final = {
    "cpu": "cpu.pct",
    "proc.cpu.threads": "cpu.thds",
    "memory_percent": "mem.pct",
    "proc.memory.rssMB": "mem.proc",
    "proc.memory.percent": "mem.proc.pct",
    "proc.memory.availableMB": "mem.proc.avail",
}
_GPU_SAMPLES: Final = {
    "gpu": "pct",
    "memoryAllocated": "mem.pct",
    "temp": "temp",
    "powerWatts": "power",
}


class Row(msgspec.Struct, frozen=True):
    """One number; the server has one for each key and index."""

    key: str
    index: int
    data: float | str
    create_time: str


class Line(msgspec.Struct, frozen=True):
    """A line of the console; `epoch` is its number, from 1."""

    level: str
    epoch: int
    message: str
    create_time: str


def named(logs: Mapping[str, float], curves: CurveNames, names: Names) -> dict[str, float]:
    """
    Return a log's numbers by their keys at SwanLab.

    Under grouped names, the figures of the whole run are `single_value/…`, as in transformers.
    """
    if names == "given":
        return curves.of(logs, names)
    single = {f"single_value/{name}": logs[name] for name in logs if name in SINGLE_VALUES}
    others = {name: value for name, value in logs.items() if name not in SINGLE_VALUES}
    return {**single, **curves.of(others, names)}


def key_of(name: str) -> str:
    """
    Return a key that SwanLab accepts: at most 512 characters, no control character, no `.` or `/`
    at an end. A changed key ends in a checksum, which keeps it apart from others; so do the keys of
    our own, the global step and the machine's readings.
    """
    text = name.encode("utf-8", "backslashreplace").decode()
    key = _ODD.sub("_", text).strip(_EDGES)
    is_ours = key == STEP or key.startswith(SYSTEM)
    if key == name and 0 < len(key) <= _LONGEST and not is_ours:
        return key
    return marked(key.removeprefix(SYSTEM)[: _LONGEST - MARK], text)


def row(key: str, step: int, value: float, time: int) -> Row:
    """Return a number's row; the server has one word for all that are not finite."""
    return Row(key, step, value if math.isfinite(value) else "nan", moment(time))


def lines_of(told: Iterable[tuple[bool, int, str]], first: int) -> list[Line]:
    """Return lines that the training has printed, numbered from `first` on."""
    return [
        Line("INFO", number, text[:_LONGEST_LINE], moment(time))
        for number, (_, time, text) in enumerate(told, first)
    ]


def sample_key(name: str) -> str | None:
    """Return SwanLab's key of a reading of `trackers/shared/system_metrics.py`, or None."""
    if name in _SAMPLES:
        return SYSTEM + _SAMPLES[name]
    place, _, kind = name.rpartition(".")
    return f"{SYSTEM}{place}.{_GPU_SAMPLES[kind]}" if kind in _GPU_SAMPLES else None


@lru_cache(1)
def moment(nanoseconds: int) -> str:
    """Return a Unix time as SwanLab writes it: RFC 3339, in UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    date = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{date}.{rest // 1000:06d}Z"
