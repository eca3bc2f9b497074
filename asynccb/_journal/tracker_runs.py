"""
Choose the runs on trackers' servers that a training writes to: its own, or the resumed ones.

A checkpoint contains the key under which trackers find their run. For each tracker it contains the
attributes from which the tracker continues, run ids included, and the last acknowledged log. The
folder of the run that saved the checkpoint also covers the time after it;
`_companion/resumption.py` looks there.

Promises: plain values, no secrets. If nothing was tracked, nothing is written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from asynccb._ground.exceptions import ConfigurationError, JournalError
from asynccb._journal.cursor import load_cursor
from asynccb._state.run_description import describe_run

logger = logging.getLogger("asynccb")

CONTINUED: Final = "continued"
"""File in a run's folder with the path of the folder of the run that continued it."""
TRACKERS: Final = "trackers"
"""Key of the runs in the state that a checkpoint stores for the dispatcher."""
RESUMABLE: Final = "resumable"
"""File in a run's folder with the training's process. While the file exists, the cursors stay when
the rest of the folder is removed."""


class SavedLane(msgspec.Struct, frozen=True):
    """A tracker's progress at a checkpoint."""

    attributes: dict[str, Any]
    logged: tuple[int, int]
    """Step of the last log, and the number of logs at that step."""


class SavedRuns(msgspec.Struct, frozen=True):
    """A checkpoint's entry for the trackers' runs."""

    key: str
    started: int
    """Unix time in nanoseconds."""
    folder: str
    """Absolute path of the folder of the training that saved the checkpoint."""
    step: int
    logs: int
    """Number of logs at that step before the checkpoint."""
    lanes: dict[str, SavedLane]


def read_saved_runs(state: Mapping[str, Any]) -> SavedRuns | None:
    """Return the runs in a checkpoint's `state`; raise `ConfigurationError` if it is invalid."""
    try:
        return msgspec.convert(state.get(TRACKERS), SavedRuns | None)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"this is no state of a dispatcher ({error} in {TRACKERS!r}); pass the value that "
            "state_dict() returned"
        ) from None


class TrackerRuns:
    """The key of one dispatcher's tracker runs, and the runs that they resume."""

    def __init__(self, folder: Path, key: str, started: int) -> None:
        """Take this training's folder, which may not exist, and key and start of its own run."""
        self._folder = folder
        self._key = key
        self._started = started
        self._resumed: SavedRuns | None = None

    def describe(self, args: Any, model: Any, *, begins: bool = False) -> dict[str, Any]:
        """Return a record's description of the run; if training `begins`, with the resumed run."""
        described = describe_run(args, model, self._key, self._started)
        if begins and self._resumed is not None:
            described["resumed"] = msgspec.to_builtins(self._resumed)
            self._resumed = None
        return described

    def save(self, step: int, history: Sequence[Mapping[str, Any]]) -> SavedRuns | None:
        """Return the entry for a checkpoint at `step`; None if no tracker has a journal here."""
        if not self._folder.is_dir():
            return None
        lanes = {}
        for path in sorted((self._folder / "cursors").glob("*.cursor")):
            try:
                cursor = load_cursor(path)
            except JournalError as error:
                logger.error("%s", error)
                continue
            if cursor.attributes:
                lanes[path.stem] = SavedLane(cursor.attributes, cursor.logged)
        self._keep_cursors()
        logs = 0
        for entry in reversed(history):
            if entry.get("step") != step:
                break
            logs += 1
        return SavedRuns(self._key, self._started, str(self._folder), step, logs, lanes)

    def load(self, saved: SavedRuns) -> None:
        """Continue the runs of a checkpoint when the next training begins."""
        self._key, self._started = saved.key, saved.started
        self._resumed = saved
        if not self._folder.is_dir():  # no tracker has a journal here
            return
        self._keep_cursors()
        if earlier := chain(Path(saved.folder), self._folder):
            self._write(earlier[-1] / CONTINUED, str(self._folder))

    def _keep_cursors(self) -> None:
        self._write(self._folder / RESUMABLE, _identity(os.getpid()))

    def _write(self, path: Path, text: str) -> None:
        try:
            path.write_text(text)
        except OSError as error:
            logger.warning("%s cannot be written: %s; a resumed run may log twice", path, error)


def is_training(folder: Path) -> bool:
    """Return whether the process that trained in a folder lives, on this machine."""
    try:
        told = (folder / RESUMABLE).read_text()
    except OSError:
        return False
    return bool(told) and told == _identity(int(told.split()[0]))


def _identity(pid: int) -> str:
    """Return a process's id with the time of its start; the id alone if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return str(pid) if status[0] in "ZX" else f"{pid} {status[19]}"


def chain(folder: Path, own: Path) -> list[Path]:
    """Return a training's folder and the folders that continued it, in turn, before our own."""
    found: list[Path] = []
    while folder != own and folder.is_dir() and folder not in found:
        found.append(folder)
        try:
            folder = Path((folder / CONTINUED).read_text())
        except OSError:
            break
    return found
