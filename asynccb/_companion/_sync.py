"""
Delivering an old journal: what `asynccb sync` does, and a training that is resumed.

Promises: the same lanes as in the companion read the same journal, so that a server ends up with
what it would have had; safe beside a live run, which holds the lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from asynccb._callback import find_hooks
from asynccb._companion._bell import Bell
from asynccb._companion._journal_lane import JournalLane
from asynccb._companion._run_folder import RunFolder, StoredLane, is_live, is_starting
from asynccb._exceptions import BusyError, JournalError

logger = logging.getLogger("asynccb")


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
        except BusyError:
            pass
        except Exception as error:  # noqa: BLE001 - what is stored comes to life: anyone's code
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
    that are delivered and of all that there are, over all trackers. Raises `JournalError` for a
    folder that holds no run, and `BusyError` for one that is being delivered already.
    """
    folder = RunFolder(path)
    await folder.open()
    try:
        stored = [
            lane for lane in folder.description().lanes if tracker is None or lane.name == tracker
        ]
        await folder.record_crash_unless_ended()
        lanes = [lane for spec in stored if (lane := _make_lane(folder, spec)) is not None]
        total = folder.journal.next
        started = {lane.name: lane.position - lane.cursor.lost for lane in lanes}
        with anyio.move_on_after(timeout):
            async with anyio.create_task_group() as group:
                earlier = Deliveries(group)
                for lane in lanes:
                    lane.hurry(total)
                    group.start_soon(lane.run, earlier)
                while not all(lane.done for lane in lanes):
                    on_progress(sum(lane.position for lane in lanes), total * len(lanes))
                    await anyio.sleep(0.05)
                group.cancel_scope.cancel()  # an earlier one's other trackers, which have no lane
        on_progress(sum(lane.position for lane in lanes), total * len(lanes))
        return {
            lane.name: Synced(
                lane.position - lane.cursor.lost - started[lane.name],
                0 if lane.cursor.finished else max(1, total - lane.position),
                lane.cursor.lost,
                lane.counts.address,
            )
            for lane in lanes
        }
    finally:
        await folder.close()


def _is_served(folder: Path) -> bool:
    try:
        return is_starting(folder) or is_live(folder)
    except FileNotFoundError:  # it has just been removed
        return True


def _make_lane(folder: RunFolder, spec: StoredLane) -> JournalLane | None:
    if spec.state is None:
        logger.warning("%s exports no state and cannot be made again; it is left out", spec.name)
        return None
    callback = _load(spec.path).from_state(spec.state)
    lane = JournalLane(
        spec.name,
        callback,
        find_hooks(callback).asynchronous,
        lambda error: None,
        directory=folder.path,
        journaled=lambda: folder.journal.next,
        grown=Bell(),
        first=spec.first,
    )
    return None if lane.cursor.finished else lane


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise JournalError(
            f"the journal's callback {path} cannot be imported ({error}); run this where it can"
        ) from None
    return found
