"""
Which runs, at the trackers' servers, a training writes to: its own, or those of the one it resumes.

A checkpoint has the key under which trackers find their run, and for each tracker its cursor: the
attributes that it goes on from, run ids among them, and the last log that was acknowledged. The
folder of the run that saved it knows more, namely what came after; `_companion/_resumption.py`
looks there.

Promises: plain values, no secrets; where nothing was tracked, nothing is written.
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
"""File in a run's folder that names the folder of the run that went on from there."""
TRACKERS: Final = "trackers"
"""Key of the runs in the state that a checkpoint stores for the dispatcher."""
RESUMABLE: Final = "resumable"
"""File in a run's folder that has its cursors kept when the rest is removed; says who trains."""


class SavedLane(msgspec.Struct, frozen=True):
    """Hold how far a tracker had come."""

    attributes: dict[str, Any]
    logged: tuple[int, int]
    """Step of the last log, and how many there were at that step."""


class SavedRuns(msgspec.Struct, frozen=True):
    """Hold what a checkpoint says of the trackers' runs."""

    key: str
    started: int
    """Unix nanoseconds."""
    folder: str
    """Folder of the training that saved it; absolute."""
    step: int
    logs: int
    """How many logs there were at that step before the checkpoint."""
    lanes: dict[str, SavedLane]


def read_saved_runs(state: Mapping[str, Any]) -> SavedRuns | None:
    """Return what a checkpoint's `state` says of the runs; raises `ConfigurationError`."""
    try:
        return msgspec.convert(state.get(TRACKERS), SavedRuns | None)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"this is no state of a dispatcher ({error} in {TRACKERS!r}); give what state_dict() "
            "returned"
        ) from None


class TrackerRuns:
    """Know the key of one dispatcher's tracker runs, and what they go on from."""

    def __init__(self, folder: Path, key: str, started: int) -> None:
        """Take the folder of this training, which may not exist, and what a run of its own has."""
        self._folder = folder
        self._key = key
        self._started = started
        self._resumed: SavedRuns | None = None

    def describe(self, args: Any, model: Any, *, begins: bool = False) -> dict[str, Any]:
        """Return what a record says of the run; when training `begins`, what it goes on from."""
        described = describe_run(args, model, self._key, self._started)
        if begins and self._resumed is not None:
            described["resumed"] = msgspec.to_builtins(self._resumed)
            self._resumed = None
        return described

    def save(self, step: int, history: Sequence[Mapping[str, Any]]) -> SavedRuns | None:
        """Return what a checkpoint of a step needs; None where no tracker has a journal here."""
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
        """Go on with the runs of a checkpoint, from where the next training begins."""
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
    """Tell whether the process lives that trained in a folder, on this machine."""
    try:
        told = (folder / RESUMABLE).read_text()
    except OSError:
        return False
    return bool(told) and told == _identity(int(told.split()[0]))


def _identity(pid: int) -> str:
    """Return a process's id with the moment of its start; its id alone where it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return str(pid) if status[0] in "ZX" else f"{pid} {status[19]}"


def chain(folder: Path, own: Path) -> list[Path]:
    """Return a training's folder and those of all that went on from it, in turn, before our own."""
    found: list[Path] = []
    while folder != own and folder.is_dir() and folder not in found:
        found.append(folder)
        try:
            folder = Path((folder / CONTINUED).read_text())
        except OSError:
            break
    return found
