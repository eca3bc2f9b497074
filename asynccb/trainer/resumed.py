"""
The checkpoint that a run resumes from: its state, its position in the data, and the run's length.

Promises: if data and arguments are unchanged, the length of the run is unchanged. Otherwise the
remaining epochs determine the length, because earlier steps may have been of another size.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.checkpoint import folders as checkpoint
from asynccb.trainer.data import Epochs
from asynccb.trainer.learning.losses import Position

LOOP_FILE = "loop.pt"


class Resumed:
    """
    The data of a checkpoint about its run.

    A checkpoint of transformers has no `loop.pt`. Its position is then computed from the step, as
    if no epoch had ended early.
    """

    def __init__(self, folder: Path, epochs: Epochs) -> None:
        self.folder = folder
        self.state = TrainerState.load_from_json(str(folder / checkpoint.STATE_FILE))
        self.loop = self._read(checkpoint.of_rank(LOOP_FILE))
        # All ranks were at the same position. If the number of ranks has changed, this rank reads
        # the position from the file of another rank.
        files = (LOOP_FILE, checkpoint.named_by_rank(LOOP_FILE, 0))
        self._any_loop = self.loop or next(filter(None, map(self._read, files)), None)
        self.position = self._position(epochs)

    def _read(self, name: str) -> dict[str, Any] | None:
        loop: dict[str, Any] | None = checkpoint.load_part(self.folder, name)
        return loop

    def _position(self, epochs: Epochs) -> Position:
        if self._any_loop is None:
            return epochs.position_of(self.state.global_step)
        position = Position(**self._any_loop["position"])
        whole, done = self._any_loop.get("plan", {}).get("batches"), position.batches
        # If the batch size has changed: the number of whole new batches within the samples already
        # seen. The samples of a partial batch are seen again.
        position.batches = done * self._any_loop["samples"] // epochs.samples
        if epochs.batches is not None and (done == whole or position.batches > epochs.batches):
            position.batches = epochs.batches
        return position

    def length(
        self, epochs: Epochs, args: TrainingArguments, planned: tuple[int, int]
    ) -> tuple[int, int]:
        """Return the last step and the epochs of the run; `planned` is the result for a new run."""
        if self._any_loop is not None and self._any_loop.get("plan") == epochs.plan(planned):
            return self.state.max_steps, self.state.num_train_epochs
        return remaining_length(epochs, args, planned, self.position, self.state.global_step)


def remaining_length(
    epochs: Epochs,
    args: TrainingArguments,
    planned: tuple[int, int],
    position: Position,
    step: int,
) -> tuple[int, int]:
    """Return the last step and the epochs of a run that goes on from here with these batches."""
    if not epochs.steps:
        return planned
    last, there = planned[0], epochs.steps_to(position)
    if args.max_steps >= 0:
        left = max(last - step, 0)
    else:
        left = max(last - there, 0)
        last = step + left
    return last, math.ceil((there + left) / epochs.steps)


def batch_size_of(folder: Path) -> int | None:
    """Return the samples in a micro-batch of the run that wrote a checkpoint, if it says so."""
    return TrainerState.load_from_json(str(folder / checkpoint.STATE_FILE)).train_batch_size
