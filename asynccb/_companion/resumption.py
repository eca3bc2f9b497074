"""
In a resumed training, continues each tracker's earlier run.

The interrupted training may have logged beyond the checkpoint. Its companion may still be
delivering those logs, or nobody may have delivered them. A tracker's lane therefore waits until the
earlier journal is delivered, or delivers it as `asynccb sync` would. Then the lane takes over the
earlier tracker's attributes and skips the logs that the server already has.

Promises: a server receives each log once, however often the training was interrupted and whichever
checkpoint it resumed from. The interrupted training's end never arrives after the resumed
training's beginning.
If the earlier training's folder is gone, a tracker continues from the checkpoint's data, and logs
after the checkpoint are sent again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import anyio
import msgspec

from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import JournalError
from asynccb._journal.cursor import Cursor, load_cursor
from asynccb._journal.run_folder import RunFolder, is_starting
from asynccb._journal.segments import last_record
from asynccb._journal.tracker_runs import SavedLane, SavedRuns, chain, is_training
from asynccb._ring.record import ADDED_BIT, Record
from asynccb._state.trainer_state import whole_state
from asynccb.callbacks.tracking import Tracking

logger = logging.getLogger("asynccb")

_LOOK: Final = 0.1
"""Seconds between two checks of the earlier journal."""
_PATIENCE: Final = 3.0
"""Seconds of waiting for the earlier journal, after which a warning is logged."""
_LOG: Final = EVENTS.index(Event.LOG)

Place = tuple[int, int]
"""A log's step, and its number among the logs of that step, counted from 1."""
NOWHERE: Final[Place] = (0, 0)


@runtime_checkable
class Resumes(Protocol):
    """The methods of a tracker that are called here; the contract is in `trackers/base.py`."""

    rewinds: bool

    def resume(self, attributes: dict[str, Any]) -> bool: ...
    def state(self) -> dict[str, Any]: ...


class Earlier(Protocol):
    """A deliverer of interrupted trainings' journals, such as `sync.Deliveries`."""

    def begin(self, folder: Path) -> None: ...
    def is_over(self, folder: Path) -> bool: ...


class Resumption:
    """Continues an earlier run for one lane's tracker, and counts the tracker's logs."""

    earlier: Earlier
    """Delivers the interrupted training's journal; set before `begin`."""

    def __init__(self, name: str, callback: object, cursor: Cursor, directory: Path) -> None:
        """Take the lane's name, its newly created callback, its cursor, and the run's folder."""
        self._name = name
        self._directory = directory
        self._tracker: Resumes | None = None
        if isinstance(callback, Tracking) and isinstance(callback, Resumes):
            self._tracker = callback
        self._fresh = (
            whole_state(self._tracker.state())["attributes"] if self._tracker is not None else {}
        )
        self.logged: Place = cursor.logged
        """Place of the last log that this lane read."""
        self.sent: Place = cursor.sent
        """Place of the earlier training's last log on the server; only later logs are sent."""

    def skips(self, record: Record) -> bool:
        """Count a record; return whether it is a log that the server already has."""
        if record.kind != _LOG or record.flags & ADDED_BIT or self._tracker is None:
            return False
        step, number = self.logged
        self.logged = (record.step, number + 1 if record.step == step else 1)
        if self.sent == NOWHERE:
            return False
        if self.logged <= self.sent:
            return True
        self.sent = NOWHERE
        return False

    def save(self, cursor: Cursor) -> None:
        """Store the places of the last log and of the last log sent in a cursor."""
        cursor.logged, cursor.sent = self.logged, self.sent

    async def begin(self, described: dict[str, Any]) -> None:
        """Continue an earlier run if the run record `described` names one."""
        resumed = described.get("resumed")
        if resumed is None or self._tracker is None:
            return
        saved = msgspec.convert(resumed, SavedRuns)
        if Path(saved.folder) == self._directory:  # from an earlier training of this folder
            self._leave_out(max(self.logged, self.sent), saved)
            return
        earlier = await self._find(saved)
        if earlier is None:
            return
        if self._attributes(self._tracker) != self._fresh:
            logger.warning(
                "%s had begun a run of its own before the training was resumed, and keeps that run",
                self._name,
            )
        elif self._tracker.resume(earlier.attributes):
            self._leave_out(earlier.logged, saved)

    @staticmethod
    def _attributes(tracker: Resumes) -> dict[str, Any]:
        found: dict[str, Any] = whole_state(tracker.state())["attributes"]
        return found

    def _leave_out(self, sent: Place, saved: SavedRuns) -> None:
        """Skip the logs between the checkpoint and `sent`, the last log that the server has."""
        assert self._tracker is not None
        self.logged = (saved.step, saved.logs)
        if self._tracker.rewinds or sent <= self.logged:
            return
        self.sent = sent
        logger.info(
            "%s: logs after step %d, up to step %d, were sent before the training was resumed, "
            "and are not sent again",
            *(self._name, saved.step, sent[0]),
        )

    # -- the earlier training ----------------------------------------------------------------------

    async def _find(self, saved: SavedRuns) -> SavedLane | None:
        """Wait until the tracker's earlier journals are delivered; return its state after them."""
        for folder in reversed(chain(Path(saved.folder), self._directory)):
            cursor = await self._delivered(folder)
            # A cursor without attributes had not begun, unless its tracker never has attributes.
            if cursor is not None and (cursor.attributes or not self._fresh):
                return SavedLane(cursor.attributes, max(cursor.logged, cursor.sent))
        return saved.lanes.get(self._name)

    async def _delivered(self, folder: Path) -> Cursor | None:
        """Wait until the lane's cursor in a folder will not move any more, and return it."""
        begin: float | None = time.monotonic()
        while not self._is_over(folder):
            self.earlier.begin(folder)
            await anyio.sleep(_LOOK)
            if begin is not None and time.monotonic() - begin > _PATIENCE:
                begin = None
                logger.warning(
                    "%s waits until the logs of the interrupted training are delivered: %s",
                    *(self._name, folder),
                )
        return self._cursor(folder)

    def _is_over(self, folder: Path) -> bool:
        cursor = self._cursor(folder)
        finished = cursor is not None and cursor.finished
        if finished or self.earlier.is_over(folder) or not _is_waiting(folder):
            return True
        # The process may hold an unclosed Trainer and continue with another one. The end of the
        # first is written only when the process ends, so it is not waited for.
        return cursor is not None and is_training(folder) and cursor.position >= _end(folder)

    def _cursor(self, folder: Path) -> Cursor | None:
        path = folder / "cursors" / f"{self._name}.cursor"
        try:
            return load_cursor(path) if path.exists() else None
        except JournalError as error:
            logger.error("%s", error)
            return None


def _end(folder: Path) -> int:
    last = last_record(folder / "journal")
    return 0 if last is None else last[0] + 1


def _is_waiting(folder: Path) -> bool:
    """Return whether a folder holds a journal that can be, or soon will be, delivered."""
    if is_starting(folder):  # the training was killed before its companion had started
        return True
    if not ((folder / "lock").exists() and (folder / "run.json").exists()):
        return False
    try:
        RunFolder(folder).description()
    except JournalError as error:
        logger.error("%s", error)
        return False
    return True
