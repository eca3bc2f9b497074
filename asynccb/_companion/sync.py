"""
Delivers an earlier run's journal, for `asynccb sync` and for resumed trainings.

Promises: the same lanes as in the companion read the same journal, so the server ends up with the
same data. Safe beside a live run, because its training or companion holds a lock.
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
from asynccb._state.trainer_state import whole_state
from asynccb.callbacks.base import find_hooks

logger = logging.getLogger("asynccb")

_MOVED: Final = {"asynccb.testing._recording": "asynccb.testing"}
"""Modules named in run folders of asynccb 0.1.0, with the current modules of their classes."""


@dataclass(frozen=True)
class Synced:
    """The outcome of a sync for one tracker, as counts of records."""

    delivered: int
    pending: int
    lost: int
    """Records that were damaged or that the journal had dropped, over all attempts."""
    address: str | None


class Deliveries:
    """
    The deliveries of interrupted trainings' journals; lanes of resumed trainings wait for them.

    One task delivers each journal, for all of its trackers and all waiting lanes. The task is not
    cancelled when the lane that asked first is served. Another tracker's request to create a run
    might be under way: the server would complete that request unnoticed, and the request would be
    made again later.
    """

    def __init__(self, group: TaskGroup) -> None:
        """Take the task group to run in."""
        self._group = group
        self._running: set[Path] = set()
        self._over: set[Path] = set()

    def begin(self, folder: Path) -> None:
        """Start delivering a run's folder, unless a process serves it already."""
        if folder not in self._running and not self.is_over(folder) and not _is_served(folder):
            self._running.add(folder)
            self._group.start_soon(self._deliver, folder)

    def is_over(self, folder: Path) -> bool:
        """Return whether the delivery of a folder has ended: it succeeded or cannot."""
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
    *,
    remove: bool = False,
) -> dict[str, Synced]:
    """
    Deliver the remaining records of a run's folder, for at most `timeout` seconds.

    Delivers even in offline mode. If `tracker` is given, delivers only to the tracker of that name.
    `on_progress` receives the number of delivered records and of all records, over all trackers. A
    tracker that cannot be recreated here is skipped, and the reason is logged. With `remove`, a
    run that is delivered to all its trackers, without a loss, is removed then. Raises
    `JournalError` if the folder holds no run, `BusyError` if another process is delivering it or
    its training is alive, and `GoneError` if it is removed meanwhile.
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
        if remove and _is_over(folder, lanes):
            await folder.journal.close()
            folder.remove()
        return synced | {
            name: Synced(0, _left(cursor, total), cursor.lost, None)
            for name, cursor in left_out.items()
        }
    finally:
        await folder.close()


def _is_over(folder: RunFolder, lanes: list[JournalLane]) -> bool:
    """Return whether all is delivered and nothing happened that needs a look at the folder."""
    cursors = folder.cursors()
    finished = (cursors.get(lane.name, Cursor()) for lane in folder.description().lanes)
    return all(cursor.finished and not cursor.lost for cursor in finished) and not any(
        lane.counts.is_troubled for lane in lanes
    )


async def _run_lanes(lanes: list[JournalLane], total: int, show: Callable[[], None]) -> None:
    async with anyio.create_task_group() as group:
        earlier = Deliveries(group)
        for lane in lanes:
            lane.hurry(total)
            group.start_soon(lane.run, earlier)
        while not all(lane.done for lane in lanes):
            show()
            await anyio.sleep(0.05)
        group.cancel_scope.cancel()  # ends deliveries of an earlier training's other trackers


def _is_served(folder: Path) -> bool:
    try:
        return is_live(folder)
    except FileNotFoundError:  # the folder has just been removed
        return True


def _left(cursor: Cursor, total: int) -> int:
    return 0 if cursor.finished else max(1, total - cursor.position)


def _make_lanes(
    folder: RunFolder, stored: list[StoredLane]
) -> tuple[list[JournalLane], dict[str, Cursor]]:
    """Return the lanes of unfinished trackers, and the cursors of trackers without a lane."""
    cursors = folder.cursors()
    lanes: list[JournalLane] = []
    left_out: dict[str, Cursor] = {}
    for spec in stored:
        cursor = cursors.get(spec.name, Cursor(position=spec.first))
        if cursor.finished:
            continue
        if spec.state is None:
            logger.warning("%s exports no state and cannot be recreated", spec.name)
            continue
        lane = _make_lane(folder, spec, spec.state)
        if lane is None:
            left_out[spec.name] = cursor
        else:
            lanes.append(lane)
    return lanes, left_out


def _make_lane(folder: RunFolder, spec: StoredLane, state: dict[str, Any]) -> JournalLane | None:
    """Return a callback's lane; log the reason and return None if the lane cannot be made."""
    try:
        callback = _load(spec.path).from_state(whole_state(state))
    except Exception as error:  # noqa: BLE001 - loading a stored class runs anyone's code
        logger.error(
            "%s receives nothing here: %s cannot be recreated (%s); run this where it can be",
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
        logger.error("%s receives nothing: its cursor cannot be read: %s", spec.name, error)
        return None


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = import_module(_MOVED.get(module, module))
    for part in name.split("."):
        found = getattr(found, part)
    return found
