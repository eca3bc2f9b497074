"""
Going on, in a resumed training, with the run that a tracker had before.

The training that was interrupted may have logged beyond the checkpoint, its companion may still be
delivering that, or nobody may have. A tracker's lane therefore waits until the earlier journal is
delivered, or delivers it as `asynccb sync` would; takes over the attributes that its tracker had
then; and leaves out the logs that are there already.

Promises: a server gets each log once, however often a training was interrupted and from which of
its checkpoints it resumed; the end of one that was interrupted does not come after the resumed
one's beginning.
Where the earlier training's folder is gone, a tracker goes on from what the checkpoint says, and
what was logged after that is sent again.
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

logger = logging.getLogger("asynccb")

_LOOK: Final = 0.1
"""Seconds between two looks at what has become of the earlier journal."""
_PATIENCE: Final = 3.0
"""Seconds after which it is said that a lane waits for it."""
_LOG: Final = EVENTS.index(Event.LOG)

Place = tuple[int, int]
"""A log's step, and its number among those of that step, from 1 on."""
NOWHERE: Final[Place] = (0, 0)


@runtime_checkable
class Resumes(Protocol):
    """What is called on a tracker; the contract is in `trackers/base.py`."""

    rewinds: bool

    def resume(self, attributes: dict[str, Any]) -> bool: ...
    def state(self) -> dict[str, Any]: ...


class Earlier(Protocol):
    """Deliver the journals of interrupted trainings; `_sync.Deliveries` does."""

    def begin(self, folder: Path) -> None: ...
    def is_over(self, folder: Path) -> bool: ...


class Resumption:
    """Let one lane's tracker go on with an earlier run, and count its logs."""

    earlier: Earlier
    """What delivers that of the interrupted training; set before `begin`."""

    def __init__(self, name: str, callback: object, cursor: Cursor, directory: Path) -> None:
        """Take the lane's name, its callback as it was made, its cursor, and the run's folder."""
        self._name = name
        self._directory = directory
        self._tracker = callback if isinstance(callback, Resumes) else None
        self._fresh = self._tracker.state()["attributes"] if self._tracker is not None else {}
        self.logged: Place = cursor.logged
        """The last log that came."""
        self.sent: Place = cursor.sent
        """The last log of the earlier training that the server has; later ones are wanted."""

    def skips(self, record: Record) -> bool:
        """Count a record, and tell whether it holds a log that the server has already."""
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
        """Write into a cursor how far the logs have come."""
        cursor.logged, cursor.sent = self.logged, self.sent

    async def begin(self, described: dict[str, Any]) -> None:
        """Look at what a record says of the run: go on with an earlier one, if it says so."""
        resumed = described.get("resumed")
        if resumed is None or self._tracker is None:
            return
        saved = msgspec.convert(resumed, SavedRuns)
        if Path(saved.folder) == self._directory:  # a second training, from the first one's
            self._leave_out(max(self.logged, self.sent), saved)
            return
        earlier = await self._find(saved)
        if earlier is None:
            return
        if self._tracker.state()["attributes"] != self._fresh:
            logger.warning(
                "%s had begun a run of its own before the training was resumed, and stays there",
                self._name,
            )
        elif self._tracker.resume(earlier.attributes):
            self._leave_out(earlier.logged, saved)

    def _leave_out(self, sent: Place, saved: SavedRuns) -> None:
        """Take it that the training goes on at the checkpoint, and the server has logs up to."""
        assert self._tracker is not None
        self.logged = (saved.step, saved.logs)
        if self._tracker.rewinds or sent <= self.logged:
            return
        self.sent = sent
        logger.info(
            "%s: what was logged after step %d, up to step %d, was sent before the training was "
            "resumed, and is not sent again",
            *(self._name, saved.step, sent[0]),
        )

    # -- the earlier training ----------------------------------------------------------------------

    async def _find(self, saved: SavedRuns) -> SavedLane | None:
        """Return what is known of the tracker's run, when all of its earlier journals is sent."""
        for folder in reversed(chain(Path(saved.folder), self._directory)):
            cursor = await self._delivered(folder)
            # One without attributes had not begun, unless its tracker has none.
            if cursor is not None and (cursor.attributes or not self._fresh):
                return SavedLane(cursor.attributes, max(cursor.logged, cursor.sent))
        return saved.lanes.get(self._name)

    async def _delivered(self, folder: Path) -> Cursor | None:
        """Return the lane's last cursor in a folder, when it will not move any more."""
        begin: float | None = time.monotonic()
        while not self._is_over(folder):
            self.earlier.begin(folder)
            await anyio.sleep(_LOOK)
            if begin is not None and time.monotonic() - begin > _PATIENCE:
                begin = None
                logger.warning(
                    "%s waits until what the interrupted training has logged is delivered: %s",
                    *(self._name, folder),
                )
        return self._cursor(folder)

    def _is_over(self, folder: Path) -> bool:
        cursor = self._cursor(folder)
        finished = cursor is not None and cursor.finished
        if finished or self.earlier.is_over(folder) or not _is_waiting(folder):
            return True
        # A Trainer that nobody has closed, in a process that goes on with another one: its end will
        # come when that ends, and is not waited for.
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
    """Tell whether a folder holds a journal that somebody may deliver, or will."""
    if is_starting(folder):  # its training was killed before its companion had come to life
        return True
    if not ((folder / "lock").exists() and (folder / "run.json").exists()):
        return False
    try:
        RunFolder(folder).description()
    except JournalError as error:
        logger.error("%s", error)
        return False
    return True
