"""
Upload checkpoints on a thread, one at a time, the latest first.

Promises: taking a checkpoint costs the training thread only the hard links; the checkpoint may be
rotated away at once. If a newer checkpoint arrives, a waiting one is left out. A failed upload is
retried into the same slot, until it succeeds or a newer checkpoint is there. No files are left
behind.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asynccb.trackers.flyte.slots import SLOTS, link, write_manifest

logger = logging.getLogger("asynccb")

_PLACE: Final = ".asynccb-flyte"
"""Folder for waiting checkpoints, beside the others and therefore on the same file system."""
_PAUSES: Final = (0.2, 1.0, 5.0, 15.0)
"""Seconds before each further attempt; the last value repeats."""


@dataclass(eq=False)
class _Waiting:
    """A checkpoint that waits for its upload."""

    checkpoint: Path
    step: int
    folder: Path
    linked: bool
    """Whether its files are linked in `folder`; if not, they must be copied before the upload."""


class CheckpointSync:
    """The uploader of one training's checkpoints."""

    def __init__(self, save: Callable[[Path], None]) -> None:
        """Upload with `save`, which takes a folder or a file and blocks until it is stored."""
        self._save = save
        self._changed = threading.Condition()
        self._next: _Waiting | None = None
        self._thread: threading.Thread | None = None
        self._over = False
        self._left = False
        self._count = 0
        self._slot = 0
        self._place: Path | None = None
        self._said: set[str] = set()
        self.failures = 0
        self.synced: int | None = None
        """Step of the last checkpoint that is completely uploaded."""
        self.wanted: int | None = None
        """Step of the last checkpoint that was taken."""

    def take(self, checkpoint: Path, step: int) -> None:
        """Queue a checkpoint for the upload; called on the training thread."""
        checkpoint = checkpoint.absolute()
        with self._changed:
            if self._place is None:
                self._place = checkpoint.parent / _PLACE
                shutil.rmtree(self._place, ignore_errors=True)  # left by a killed attempt
            self._count += 1
            folder = self._place / f"{step}-{self._count}"
            try:
                link(checkpoint, folder)
                linked = True
            except OSError:
                linked = False
            self._next = _Waiting(checkpoint, step, folder, linked)
            self.wanted = step
            self._over = False
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="asynccb-flyte", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Wait until everything is uploaded, or until `leave` is called."""
        with self._changed:
            self._over = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def leave(self) -> None:
        """Stop retrying, and warn if the last checkpoint is not stored; wait for no upload."""
        with self._changed:
            self._over = self._left = True
            self._changed.notify()
        if self.wanted != self.synced:
            logger.warning(
                "the checkpoint of step %s is not in Flyte's store; another attempt of the task "
                "will continue from %s",
                self.wanted,
                "the beginning" if self.synced is None else f"step {self.synced}",
            )

    # -- on the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while (waiting := self._take_next()) is not None:
            upload = self._arrange(waiting)
            failures = 0
            while upload is not None and not self._send(waiting, upload):
                failures += 1
                if self._is_superseded(_PAUSES[min(failures, len(_PAUSES)) - 1]):
                    break

    def _take_next(self) -> _Waiting | None:
        """Wait for a checkpoint and return it; return None if the thread must end."""
        with self._changed:
            self._clear()
            self._changed.wait_for(lambda: self._next is not None or self._over)
            waiting, self._next = self._next, None
            if waiting is None or self._left:
                self._clear()
                self._thread = None
                return None
            return waiting

    def _clear(self) -> None:
        """Remove the folder of waiting checkpoints, unless a checkpoint still waits in it."""
        if self._next is None and self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)

    def _is_superseded(self, pause: float) -> bool:
        """Wait before another attempt; return whether the attempt must be skipped."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next is not None or self._left, pause)

    def _arrange(self, waiting: _Waiting) -> Path | None:
        """Return a folder with the slot to upload; None if the checkpoint's files are gone."""
        upload = waiting.folder.with_name(f"{waiting.folder.name}-upload")
        slot = upload / SLOTS[self._slot]
        try:
            upload.mkdir(parents=True)
            if waiting.linked:
                waiting.folder.rename(slot)
            else:
                shutil.copytree(waiting.checkpoint, slot)
        except OSError as error:
            self._complain(waiting, error, "it is left out")
            return None
        return upload

    def _send(self, waiting: _Waiting, upload: Path) -> bool:
        """Upload a slot and then its manifest; return whether both are stored."""
        slot = SLOTS[self._slot]
        try:
            manifest = write_manifest(upload / slot, waiting.checkpoint.name, waiting.step)
            manifest = manifest.rename(upload.with_name(manifest.name))
            self._save(upload)
            self._save(manifest)
        except Exception as error:  # noqa: BLE001 - whatever the store's client raises
            self._complain(waiting, error, "the upload will be retried")
            return False
        self.synced = waiting.step
        self._slot = 1 - self._slot
        return True

    def _complain(self, waiting: _Waiting, error: Exception, outcome: str) -> None:
        self.failures += 1
        if type(error).__name__ not in self._said:
            self._said.add(type(error).__name__)
            logger.warning(
                "the checkpoint of step %d could not be uploaded to Flyte's store: %s: %s; %s "
                "(logged once)",
                *(waiting.step, type(error).__name__, error, outcome),
            )
