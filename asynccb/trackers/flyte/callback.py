"""
Flyte: the training's checkpoints in the task's store, and its log history as a Deck.

Runs in the training process, because a task's surroundings exist only there; everything slow runs
on threads. Promises: a checkpoint whose upload was interrupted is never restored. A task that is
killed leaves the last published Deck.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio.to_thread

from asynccb._ground.exceptions import ConfigurationError
from asynccb._ground.types import Placement, RunStatus
from asynccb.callbacks.training_side import TrainingSide
from asynccb.trackers.base import Tracker
from asynccb.trackers.flyte.deck import TITLE, LogHistory, column
from asynccb.trackers.flyte.files import CheckpointSync
from asynccb.trackers.flyte.slots import newest_whole, put_back
from asynccb.trackers.flyte.task import current_task
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.packages import is_installed, require

if TYPE_CHECKING:
    from asynccb._state.control import TrainerControl
    from asynccb._state.trainer_state import TrainerState
    from asynccb.arguments.training_arguments import TrainingArguments

logger = logging.getLogger("asynccb")

PUBLISHED: Final = 10.0
"""Minimum seconds between two uploads of the Deck, which is rewritten as a whole each time."""


class FlyteCallback(Tracker):
    """
    Save checkpoints in a Flyte task's store and show the log history in its Deck.

    Make it in the task, on the thread that Flyte started the task on. Before the training begins,
    ask it for the checkpoint of a failed attempt:

        @flytekit.task(retries=3, enable_deck=True)
        def train() -> None:
            flyte = asynccb.FlyteCallback()
            args = asynccb.TrainingArguments("out", save_steps=100)
            with asynccb.Trainer(model, args, callbacks=[flyte]) as trainer:
                trainer.train(resume_from_checkpoint=flyte.restore_checkpoint(args.output_dir))

    With `sync_checkpoints`, checkpoints are uploaded one at a time. If a newer checkpoint is saved
    while one waits, the waiting one is skipped. The store keeps the last two. (transformers uploads
    them over one another, so the next attempt may find a mixture.) With `save_log_history`, the
    Deck "Log History" shows a chart for each metric, and the last logs. It is published at most
    every ten seconds, and at the end of the training. Metrics keep their names, whatever `names`
    is. The task needs `enable_deck=True` for it, but
    neither pandas nor the Deck plugin.

    Outside a task it only logs a warning. Raises `ConfigurationError` if `flytekit` is not
    installed (the extra `flyte`). `ASYNCCB_OFFLINE` does not affect it: no later sync could upload
    a checkpoint for the next attempt.
    """

    name: ClassVar[str] = "flyte"
    placement: Placement = "thread"
    local: bool = True
    interval: ClassVar[float] = 0.5

    def __init__(
        self,
        save_log_history: bool = True,
        sync_checkpoints: bool = True,
        *,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        require("flytekit", "flyte", type(self).__name__)
        for given in (save_log_history, sync_checkpoints):
            if not isinstance(given, bool):
                raise ConfigurationError(
                    f"save_log_history and sync_checkpoints take True or False, not {given!r}"
                )
        self._given: dict[str, Any] = {
            "save_log_history": save_log_history,
            "sync_checkpoints": sync_checkpoints,
            "names": self.names,
        }
        self._task = current_task()
        self.enabled = self._task is not None
        if self._task is None:
            logger.warning("FlyteCallback does nothing: no Flyte task runs on this thread")
        self._draws = save_log_history and self._may("draws", "log history", "enable_deck=True")
        self._history = LogHistory()
        self._curves = CurveNames("Flyte's Deck", column)
        self._published = 0.0
        self._changed = self._drawn = False
        self._publishing: threading.Thread | None = None
        self.beat = PUBLISHED if self._draws else None
        self._sync: CheckpointSync | None = None
        if sync_checkpoints and self._may("saves", "checkpoint", "a platform that stores them"):
            assert self._task is not None
            self._sync = CheckpointSync(self._task.save)
            self.training_side = _Side(self._sync)
        if self._draws and self._task is not None and self._task.output:
            self.address = f"{self._task.output.rstrip('/')}/deck.html"

    def _may(self, ability: str, what: str, needed: str) -> bool:
        """Return whether the task has an ability; log a warning if a task exists without it."""
        if self._task is not None and not getattr(self._task, ability):
            logger.warning("Flyte gets no %s: the task needs %s", what, needed)
        return self._task is not None and bool(getattr(self._task, ability))

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether a Flyte task runs in this process, on a cluster."""
        return bool(environ.get("FLYTE_INTERNAL_EXECUTION_ID")) and is_installed("flytekit")

    def restore_checkpoint(self, directory: str | Path) -> str | None:
        """
        Return the last checkpoint of a failed attempt, as a folder below `directory`.

        Returns None if no checkpoint was uploaded whole. The checkpoint is uploaded again for the
        next attempt, beside the training. Call it on the task's thread, which it blocks during the
        download. If the store cannot be read, its exception is raised, so that the training does
        not start over.
        """
        if self._task is None or self._sync is None:
            return None
        downloaded = self._task.restore()
        found = None if downloaded is None else newest_whole(downloaded)
        if found is None:
            if downloaded is not None:
                logger.warning("the earlier attempt has left no checkpoint that is whole")
            return None
        slot, manifest = found
        path = put_back(slot, manifest, Path(directory))
        self._sync.take(path, manifest.step)
        return str(path)

    async def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Copy the log history of the training that is resumed."""
        if self._history.count == 0:
            for entry in state.log_history:
                logs = {name: value for name, value in entry.items() if name != "step"}
                self._add(int(entry.get("step", 0)), logs)

    async def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the logs to the history."""
        self._add(state.global_step, logs or {})

    async def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Publish the whole history."""
        await self._publish_last()

    async def flush(self) -> None:
        """Publish the history if that is due; do not wait for the upload."""
        if time.monotonic() - self._published >= PUBLISHED:
            self._publish()

    async def heartbeat(self) -> None:
        """Publish logs that arrived since."""
        await self.flush()

    async def finish(self, status: RunStatus) -> None:
        """Publish the last logs, and wait until the last checkpoint is stored."""
        await self._publish_last()
        if self._sync is not None:
            await anyio.to_thread.run_sync(self._sync.finish, abandon_on_cancel=True)

    async def close(self) -> None:
        """Abandon checkpoints that are not stored yet, and log that."""
        if self._sync is not None:
            self._sync.leave()

    def state(self) -> dict[str, Any]:
        """Return the settings; everything else is in the task's store."""
        return {"args": dict(self._given), "attributes": {}}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._given), ()

    def _add(self, step: int, logs: Mapping[str, Any]) -> None:
        if self._draws:
            self._history.add(step, self._curves.of(logs, "given"))
            self._changed = True

    def _publish(self) -> None:
        """Publish changes on a thread, unless one is still at it: the store may be slow."""
        if self._changed and not (self._publishing and self._publishing.is_alive()):
            assert self._task is not None
            self._changed = False
            self._published = time.monotonic()
            self._publishing = threading.Thread(
                target=self._task.call, args=(self._draw,), name="asynccb-deck", daemon=True
            )
            self._publishing.start()

    async def _publish_last(self) -> None:
        """Publish the last changes, and wait until they are published."""
        await self._published_all()
        self._publish()
        await self._published_all()

    async def _published_all(self) -> None:
        if self._publishing is not None:
            await anyio.to_thread.run_sync(self._publishing.join, abandon_on_cancel=True)

    def _draw(self) -> None:
        """Publish the task's decks, ours included; flytekit logs failures."""
        from flytekit.deck import Deck

        if not self._drawn:
            self._drawn = True
            history = self._history

            class _LogHistoryDeck(Deck):  # type: ignore[misc]  # untyped if it is not installed
                """Draw the history when it is written, by us or by flytekit at the task's end."""

                @property
                def html(self) -> str:
                    return history.render()

            _LogHistoryDeck(TITLE)
        Deck.publish()


class _Side(TrainingSide):
    """Link a checkpoint as soon as it is saved, before it can be rotated away."""

    def __init__(self, sync: CheckpointSync) -> None:
        self._sync = sync

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Link the files of the checkpoint, on the rank that serves the callback."""
        if self.tell is not None:
            path = Path(args.output_dir, f"checkpoint-{state.global_step}")
            self._sync.take(path, state.global_step)
