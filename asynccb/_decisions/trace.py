"""
The trace of a run's decisions: a line of JSON for each, after a header that says whose they are.

Promises: a line is written when its decision is applied, in one system call. A trace of another run
is refused before it is followed, and the error says how the runs differ.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Final

import msgspec

from asynccb._decisions.schedule import Outcome
from asynccb._state.control import Decision

logger = logging.getLogger("asynccb")

FORMAT: Final = 1
TRACE_FILE: Final = "decisions.jsonl"

REQUEST: Final = "request"
"""Stands as the callback of requests from outside."""
RANKS: Final = "ranks"
"""Stands as the callback of decisions of other ranks."""


class Header(msgspec.Struct, frozen=True, tag_field="asynccb", tag="decisions"):
    """The description of the run that decided."""

    format: int
    deciders: list[tuple[str, str, int]]
    """Name, event and lag of each hook that decides."""
    max_steps: int
    seed: int | None


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision."""

    boundary: int
    """Step at whose boundary it was applied."""
    event: str
    step: int
    """Step of the event."""
    callback: str
    flags: dict[str, bool]
    """The opinions."""
    outcome: Outcome
    waited: float
    """Seconds for which the training waited for it."""
    emission: int = 0
    """Number of the event, counting only events that ask for decisions; 0 without an event."""
    training: int = 0
    """Number of the training in its process, from 0 on."""

    @property
    def decision(self) -> Decision:
        """The effect on the flags."""
        return Decision(**self.flags)


class Trace:
    """Write a run's trace; one process of a run does."""

    def __init__(self, path: Path, *, owner: bool) -> None:
        """Take the file; it is made with the first entry. Without `owner` nothing is written."""
        self.path = path
        self._writes = owner

    def write(self, header: Header, entry: Entry) -> None:
        """Append an entry, after the header if it is the first one."""
        if not self._writes:
            return
        try:
            if not self.path.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._append(header)
            self._append(entry)
        except OSError as error:
            self._writes = False
            logger.error("the decisions are not traced from here on: %s", error)

    @property
    def exists(self) -> bool:
        """Whether this process has written anything."""
        return self._writes and self.path.exists()

    def save(self, folder: Path) -> None:
        """Copy the trace so far into a folder, if there is any."""
        if self._writes and self.path.exists():
            shutil.copyfile(self.path, folder / TRACE_FILE)

    def resume(self, folder: Path) -> None:
        """Begin with the trace that was saved in a folder, if there is any."""
        saved = folder / TRACE_FILE
        if self._writes and saved.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(saved, self.path)

    def _append(self, line: Header | Entry) -> None:
        with open(self.path, "ab", buffering=0) as file:
            file.write(msgspec.json.encode(line) + b"\n")
