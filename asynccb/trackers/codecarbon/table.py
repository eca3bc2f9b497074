"""
Write CodeCarbon's table of measurements, `emissions.csv`: each session updates its row in place.

Columns and values are the same as in CodeCarbon 3.3 (`FileOutput`), so CodeCarbon's own readers and
writer can use the file. Promises: whatever process dies, the file is either the version before a
row was written or the version after it. Processes of one machine, or of machines that share a file
system with locks, do not lose one another's rows.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

SUMS: Final = (
    "duration",
    "emissions",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
)
"""Columns that are summed over sessions: seconds, kg of CO2 equivalents, kWh."""

UNREADABLE: Final = (OSError, ValueError, csv.Error)
"""Errors of reading or writing a table: disk errors, and invalid contents by other programs."""

MOMENTS: Final = ("emissions_rate", "cpu_power", "gpu_power", "ram_power")
"""Columns with a session's averages, in kg/s and W."""


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """
    Write a session's row, replacing the row with its `run_id` or else at the end.

    Creates the folder. If the file has different columns, it is renamed to `….bak`, as CodeCarbon
    does. Raises one of `UNREADABLE`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        header, rows = _read(path)
        if header is not None and sorted(header) != sorted(row):
            path.rename(_free_name(path))
            header = None
        if header is None:
            header, rows = list(row), []
        written = [_text(row[name]) for name in header]
        place = header.index("run_id")
        kept = [
            other for other in rows if len(other) != len(header) or other[place] != row["run_id"]
        ]
        before = next((n for n, other in enumerate(rows) if other not in kept), len(kept))
        _replace(path, [header, *kept[:before], written, *kept[before:]])


def sums_of(path: Path, sessions: Sequence[str]) -> dict[str, float]:
    """Return the sums of several sessions, by column; values that cannot be read count as 0."""
    total = dict.fromkeys(SUMS, 0.0)
    try:
        header, rows = _read(path)
    except UNREADABLE:
        return total
    if header is None or not {"run_id", *SUMS} <= set(header):
        return total
    for row in (dict(zip(header, row, strict=False)) for row in rows):
        if row["run_id"] in sessions:
            for name in SUMS:
                with contextlib.suppress(ValueError):
                    total[name] += float(row.get(name) or 0)
    return total


def _read(path: Path) -> tuple[list[str] | None, list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        return None, []
    return (lines[0], lines[1:]) if lines else (None, [])


def _text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _replace(path: Path, lines: list[list[str]]) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _free_name(path: Path) -> Path:
    """Return an unused name for a copy."""
    name, number = path.with_name(f"{path.name}.bak"), 0
    while name.exists():
        name, number = path.with_name(f"{path.name}_{number}.bak"), number + 1
    return name


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder's table against our other processes; if locking fails, continue without."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
