"""
Delivering an old journal: what `asynccb sync` does, and a training that is resumed.

Promises: the same lanes as in the companion read the same journal, so that a server ends up with
what it would have had; safe beside a live run, whose training or companion holds a lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from asynccb._companion.journal_lane import JournalLane
from asynccb._ground.exceptions import BusyError, JournalError
from asynccb._journal.cursor import Cursor
from asynccb._journal.run_folder import GoneError, RunFolder, StoredLane, is_live
from asynccb._lanes.bell import Bell
from asynccb.callbacks.base import find_hooks

logger = logging.getLogger("asynccb")

_MOVED: Final = {"asynccb.testing._recording": "asynccb.testing"}
"""Modules that run folders of asynccb 0.1.0 name, and where their classes are now."""


@dataclass(frozen=True)
class Synced:
    """Say what became of one tracker's records."""

    delivered: int
    pending: int
    lost: int
    """Records that the journal had dropped, or that were damaged, over all attempts."""
    address: str | None


class Deliveries:
    """
    Deliver the journals of interrupted trainings, for which lanes of resumed ones wait.

    Each by one task, for all of its trackers and whoever asks. It is not cut off where the lane
    that asked first has what it wants: another's request that creates a run might be under way,
    which the server would finish for nobody before it was made again.
    """

    def __init__(self, group: TaskGroup) -> None:
        """Take the tasks' group."""
        self._group = group
        self._running: set[Path] = set()
        self._over: set[Path] = set()

    def begin(self, folder: Path) -> None:
        """Deliver a run's folder, unless somebody does."""
        if folder not in self._running and not self.is_over(folder) and not _is_served(folder):
            self._running.add(folder)
            self._group.start_soon(self._deliver, folder)

    def is_over(self, folder: Path) -> bool:
        """Tell whether what could be delivered is."""
        return folder in self._over

    async def _deliver(self, folder: Path) -> None:
        try:
            await sync_run(folder, None, lambda done, total: None)
            self._over.add(folder)
        except (BusyError, GoneError):
            pass
        except (JournalError, OSError) as error:
            logger.error("%s cannot be delivered: %s", folder, error)
            self._over.add(folder)
        finally:
            self._running.discard(folder)


async def sync_run(
    path: Path,
    timeout: float | None,
    on_progress: Callable[[int, int], None],
    tracker: str | None = None,
) -> dict[str, Synced]:
    """
    Deliver what is left in a run's folder, for at most `timeout` seconds; offline or not.

    `tracker` is the name of the only one to deliver to. `on_progress` gets the number of records
    that are delivered and of all that there are, over all trackers; one that cannot be made again
    here is left out, which is logged. Raises `JournalError` for a folder that holds no run,
    `BusyError` for one that is being delivered already, or whose training lives, and `GoneError`
    for one that is removed meanwhile.
    """
    folder = RunFolder(path)
    await folder.open(left_behind=True)
    try:
        stored = [
            lane for lane in folder.description().lanes if tracker is None or lane.name == tracker
        ]
        await folder.record_crash_unless_ended()
        total = folder.journal.next
        lanes, left_out = _make_lanes(folder, stored)
        started = {lane.name: lane.position - lane.cursor.lost for lane in lanes}

        def show() -> None:
            on_progress(sum(lane.position for lane in lanes), total * len(lanes))

        with anyio.move_on_after(timeout):
            await _run_lanes(lanes, total, show)
        show()
        synced = {
            lane.name: Synced(
                lane.position - lane.cursor.lost - started[lane.name],
                _left(lane.cursor, total),
                lane.cursor.lost,
                lane.counts.address,
            )
            for lane in lanes
        }
        return synced | {
            name: Synced(0, _left(cursor, total), cursor.lost, None)
            for name, cursor in left_out.items()
        }
    finally:
        await folder.close()


async def _run_lanes(lanes: list[JournalLane], total: int, show: Callable[[], None]) -> None:
    async with anyio.create_task_group() as group:
        earlier = Deliveries(group)
        for lane in lanes:
            lane.hurry(total)
            group.start_soon(lane.run, earlier)
        while not all(lane.done for lane in lanes):
            show()
            await anyio.sleep(0.05)
        group.cancel_scope.cancel()  # an earlier training's other trackers, which have no lane


def _is_served(folder: Path) -> bool:
    try:
        return is_live(folder)
    except FileNotFoundError:  # it has just been removed
        return True


def _left(cursor: Cursor, total: int) -> int:
    return 0 if cursor.finished else max(1, total - cursor.position)


def _make_lanes(
    folder: RunFolder, stored: list[StoredLane]
) -> tuple[list[JournalLane], dict[str, Cursor]]:
    """Return lanes for what is not finished, and how far those have come that cannot be made."""
    cursors = folder.cursors()
    lanes: list[JournalLane] = []
    left_out: dict[str, Cursor] = {}
    for spec in stored:
        cursor = cursors.get(spec.name, Cursor(position=spec.first))
        if cursor.finished:
            continue
        if spec.state is None:
            logger.warning("%s exports no state and cannot be made again", spec.name)
            continue
        lane = _make_lane(folder, spec, spec.state)
        if lane is None:
            left_out[spec.name] = cursor
        else:
            lanes.append(lane)
    return lanes, left_out


def _make_lane(folder: RunFolder, spec: StoredLane, state: dict[str, Any]) -> JournalLane | None:
    """Return a callback's lane; None, with the reason logged, where it cannot be made."""
    try:
        callback = _load(spec.path).from_state(state)
    except Exception as error:  # noqa: BLE001 - what is stored comes to life: anyone's code
        logger.error(
            "%s gets nothing here: %s cannot be made again (%s); run this where it can",
            *(spec.name, spec.path, error),
        )
        return None
    try:
        return JournalLane(
            spec.name,
            callback,
            find_hooks(callback).asynchronous,
            lambda error: None,
            directory=folder.path,
            journaled=lambda: folder.journal.next,
            grown=Bell(),
            first=spec.first,
        )
    except (JournalError, OSError) as error:
        logger.error("%s gets nothing: its cursor cannot be read: %s", spec.name, error)
        return None


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = import_module(_MOVED.get(module, module))
    for part in name.split("."):
        found = getattr(found, part)
    return found
