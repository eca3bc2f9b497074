"""
Describe runs' folders from outside: which runs exist, and how far each tracker has come.

Promises: changes nothing, needs no callback's class, and is safe beside a live run.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from asynccb._ground.exceptions import JournalError
from asynccb._journal.cursor import Cursor
from asynccb._journal.run_folder import GoneError, RunFolder, StoredLane, is_live
from asynccb._journal.segments import last_record
from asynccb._ring.record import END, decode


@dataclass(frozen=True)
class Standing:
    """One callback's progress in the journal."""

    name: str
    behind: int
    """Records that were not delivered; 0 if `asynccb sync` cannot deliver them either."""
    lost: int
    """Records that the journal had dropped before they could be delivered."""


@dataclass(frozen=True)
class Overview:
    """A run's folder at the moment of the look."""

    path: Path
    ended: str
    """How the run ended, as in `RunStatus`; `live` while a process serves the run, or will."""
    size: int
    """Bytes of the folder's files."""
    lanes: list[Standing]
    trouble: str | None = None
    """Why the run cannot be read; a live run may be about to write the missing files."""

    @property
    def is_live(self) -> bool:
        """Whether a process serves the run, or will because the training lives."""
        return self.ended == "live"

    @property
    def hindrance(self) -> str | None:
        """Why a run that is not live cannot be delivered; None if it can be."""
        return None if self.is_live else self.trouble

    @property
    def is_waiting(self) -> bool:
        """Whether `asynccb sync` has something to deliver."""
        return not self.is_live and any(lane.behind for lane in self.lanes)


def look_at_all(paths: list[Path]) -> list[Overview]:
    """Describe the runs that still exist."""
    overviews = []
    for path in paths:
        with contextlib.suppress(GoneError):
            overviews.append(look_at(path))
    return overviews


def find_runs(directory: Path) -> tuple[list[Path], list[OSError]]:
    """
    Return the folders of all runs at or anywhere below a folder, sorted.

    Links are followed, and each run is listed once. The second value contains the errors of folders
    that could not be listed.
    """
    runs: list[Path] = []
    errors: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(directory, onerror=errors.append, followlinks=True):
        if not _is_new(place, seen):
            folders.clear()
        elif "lock" in files and "journal" in folders:
            runs.append(Path(place))
            folders.clear()
        else:  # real folders before links, so that a run is listed under its own name
            folders.sort(key=lambda name: os.path.islink(os.path.join(place, name)))
    # A folder that has disappeared meanwhile was delivered.
    return sorted(runs), [error for error in errors if not isinstance(error, FileNotFoundError)]


def _is_new(place: str, seen: set[tuple[int, int]]) -> bool:
    """Return whether a folder exists and was not seen before under another path."""
    try:
        status = os.stat(place)
    except OSError:
        return False
    folder = status.st_dev, status.st_ino
    if folder in seen:
        return False
    seen.add(folder)
    return True


def look_at(path: Path) -> Overview:
    """Describe one run; raise `GoneError` if it is removed meanwhile."""
    live, size = False, 0
    try:
        live = is_live(path)
        size = _size_of(path)
        return _describe(path, live, size)
    except (JournalError, OSError) as error:
        if _is_gone(path):
            raise GoneError(path) from None
        return Overview(path, "live" if live else "crashed", size, [], str(error))


def _describe(path: Path, live: bool, size: int) -> Overview:
    folder = RunFolder(path)
    lanes = folder.description().lanes
    last = last_record(path / "journal")
    cursors = folder.cursors()
    ended = "crashed"
    if last is not None and (record := decode(last[1])).kind == END:
        ended = (record.extra or {}).get("status", ended)
    end = 0 if last is None else last[0] + 1
    standings = [_standing(lane, cursors.get(lane.name, Cursor()), end) for lane in lanes]
    return Overview(path, "live" if live else ended, size, standings)


def _standing(lane: StoredLane, cursor: Cursor, end: int) -> Standing:
    behind = 0
    if not cursor.finished and lane.state is not None:
        behind = max(1, end - max(cursor.position, lane.first))  # 1: at least the run's end
    return Standing(lane.name, behind, cursor.lost)


def _is_gone(path: Path) -> bool:
    try:
        os.stat(path / "lock")
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _size_of(path: Path) -> int:
    return sum(
        _size(os.path.join(place, name)) for place, _, names in os.walk(path) for name in names
    )


def _size(file: str) -> int:
    try:
        return os.lstat(file).st_size
    except FileNotFoundError:  # a live run removed it
        return 0
