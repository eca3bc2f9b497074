"""The processes that a process has started, and their CPU time, read from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PARENT: Final = 1  # index among the fields of /proc/PID/stat after the name
_TIMES: Final = slice(11, 15)  # user and kernel mode: its own, then those of children waited for


def find_children(pid: int) -> set[int]:
    """Return the children that this process has started and not waited for."""
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = ((int(entry.name), _fields(int(entry.name))) for entry in entries)
    return {child for child, fields in found if fields and int(fields[_PARENT]) == pid}


def find_family(pid: int) -> set[int]:
    """Return this process and all its descendants."""
    return {pid}.union(*(find_family(child) for child in find_children(pid)))


def spent_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of these processes, to 10 ms each, including their ended children."""
    fields = (_fields(pid) for pid in pids)
    return sum(sum(map(int, words[_TIMES])) for words in fields) / _TICKS


def _fields(pid: int) -> list[str]:
    """Return the fields after the name, or an empty list if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()
