"""
What exists for the time of one `Trainer.train()`: data, optimizer, wrapped model, sums and
position.

Promises: `save` and `load` cover all of it, so that a resumed training goes on bit by bit as the
interrupted one would have, wherever in an epoch, a logging window or an epoch's end it was saved.
Not covered: random numbers drawn in loader workers.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.checkpoint import folders as checkpoint
from asynccb.distributed import process_group as distributed
from asynccb.trainer import random_state
from asynccb.trainer.data import Epochs
from asynccb.trainer.losses import Losses, Position
from asynccb.trainer.lost_flags import LostFlags
from asynccb.trainer.optimization import Optimization
from asynccb.trainer.resumed import LOOP_FILE, Resumed
from asynccb.trainer.shared_loss import SharedLoss
from asynccb.trainer.usage import Usage

logger = logging.getLogger("asynccb")

RANDOM_FILE = "rng_state.pth"


class TrainedModel:
    """Hold a model as the loop calls it: under DDP with several ranks, compiled if asked."""

    def __init__(self, model: nn.Module, args: TrainingArguments, device: torch.device) -> None:
        self._ddp: DistributedDataParallel | None = None
        self._shared: SharedLoss | None = None
        if distributed.world_size() > 1:
            finds_unused = bool(args.ddp_find_unused_parameters)
            if not finds_unused:
                model = self._shared = SharedLoss(model, device)
            model = self._ddp = DistributedDataParallel(
                model,
                device_ids=[device] if device.type == "cuda" else None,
                find_unused_parameters=finds_unused,
                gradient_as_bucket_view=True,
            )
        if args.torch_compile:
            model = torch.compile(model, mode=args.torch_compile_mode)  # type: ignore[assignment]
        self.call = model

    @property
    def shares_loss(self) -> bool:
        """Whether `take_loss` gives the mean over the ranks."""
        return self._shared is not None

    def with_loss(self, loss: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the loss, whose backward pass also tells the other ranks `value`."""
        return loss if self._shared is None else self._shared.attach(loss, value)

    def take_loss(self) -> torch.Tensor | None:
        """Return the sum of the group's values, the mean over ranks; None where it is not known."""
        return None if self._shared is None else self._shared.take()

    def exchanging(self, wanted: bool) -> AbstractContextManager[None]:
        """Exchange gradients with the other ranks in the backward pass, or only add to them."""
        if wanted or self._ddp is None:
            return nullcontext()
        return self._ddp.no_sync()


@dataclass
class Training:
    """Hold the parts of a training under way."""

    model: TrainedModel
    epochs: Epochs
    optimization: Optimization
    losses: Losses
    usage: Usage
    directory: Path
    """Where its checkpoints go, also when the program changes its own directory."""
    planned: tuple[int, int]
    """Steps and epochs of the run, had it begun with these data and arguments."""
    position: Position = field(default_factory=Position)
    figures: dict[str, Any] = field(default_factory=dict)
    """Norm of the gradient and learning rate of the last step, as they are logged."""
    decisions: dict[str, Any] | None = None
    """This rank's pending decisions, where it is another than the one that writes the state."""
    saved: dict[int, Path] = field(default_factory=dict)
    """Checkpoints of this run by step, with the one that it goes on from."""
    lost: LostFlags = field(default_factory=LostFlags)
    first_step: int = 0
    first_tokens: int = 0
    began: float = field(default_factory=time.perf_counter)
    _random: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Time since the training began, without what a resumed one did before."""
        return time.perf_counter() - self.began

    def save_own(self, folder: Path) -> None:
        """Write what differs by rank; reads from the device."""
        loop = {
            "position": self.position.state(),
            "losses": self.losses.state(),
            "figures": self.figures,
            "samples": self.epochs.samples,
            "plan": self.epochs.plan(self.planned),
            "decisions": self.decisions,
            "classes": self.optimization.classes(),
        }
        checkpoint.save_part(loop, folder, checkpoint.of_rank(LOOP_FILE))
        checkpoint.save_part(random_state.capture(), folder, checkpoint.of_rank(RANDOM_FILE))

    def load(self, resumed: Resumed) -> None:
        """Go on from a checkpoint; what it lacks starts anew, with a warning."""
        folder = resumed.folder
        self.saved[resumed.state.global_step] = folder
        self.position = resumed.position
        loop = resumed.loop or {}
        missing = self.optimization.load(folder, loop.get("classes", {}))
        if loop:
            self.losses.restore(loop["losses"])
            self.figures = loop["figures"]
            self.decisions = loop.get("decisions")
        else:
            missing.append(LOOP_FILE)
        self._random = checkpoint.load_part(folder, checkpoint.of_rank(RANDOM_FILE))
        if self._random is None:
            missing.append(RANDOM_FILE)
        if missing:
            logger.warning(
                "%s lacks %s: the resumed run will differ from an uninterrupted one",
                *(folder, ", ".join(missing)),
            )

    def restore_random(self) -> None:
        """Set the random generators back to the checkpoint's, once; do nothing in a new run."""
        if self._random is not None:
            random_state.restore(self._random)
            self._random = None
