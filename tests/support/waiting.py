"""Waiting for a condition, with a deadline, instead of sleeping."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PROMPT = 20.0
"""Seconds within which what keeps a deadline of about one has returned, however busy the machine;
less than the 30 that a close takes by default."""

_PAUSE = threading.Event()


def eventually(predicate: Callable[[], T], timeout: float = 60.0) -> T:
    """Return the predicate's value as soon as it is true; fail when it never is."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not true within {timeout} s"
        _PAUSE.wait(0.005)
    return value


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, reaped by whoever its parent is now or not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in ("Z", "X")


def open_descriptors() -> dict[str, str]:
    """Return this process's open descriptors with what they refer to."""
    found: dict[str, str] = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
    return found
