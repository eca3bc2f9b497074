"""
The parts of one `Trainer.train()`: data, optimizer, wrapped model, sums and position.

Promises: a checkpoint covers all parts, so that a resumed training continues bit for bit as the
interrupted training would have. The checkpoint may be from anywhere in an epoch or a logging
window, or from the end of an epoch. Not covered: random numbers drawn in loader workers.
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
from asynccb.trainer.checks import CHECKPOINTING
from asynccb.trainer.data import Epochs
from asynccb.trainer.learning.losses import Losses, Position
from asynccb.trainer.learning.optimization import Optimization
from asynccb.trainer.learning.shared_loss import SharedLoss
from asynccb.trainer.lost_flags import LostFlags
from asynccb.trainer.resumed import LOOP_FILE, Resumed
from asynccb.trainer.usage import Usage

logger = logging.getLogger("asynccb")

RANDOM_FILE = "rng_state.pth"


def enable_checkpointing(model: nn.Module, args: TrainingArguments) -> None:
    """Let the model compute activations again in the backward pass, if the arguments say so."""
    if not args.activation_checkpointing:
        return
    given: Any = args.activation_checkpointing_kwargs
    options = dict(given or {})
    # These are the model's; the others are those of `torch.utils.checkpoint`.
    own: dict[str, Any] = {
        name: options.pop(name) for name in ("every_n_layers", "offload") if name in options
    }
    method = next(name for name in CHECKPOINTING if hasattr(model, name))
    own[f"{method.removesuffix('_enable')}_kwargs"] = options or None
    getattr(model, method)(**own)


class TrainedModel:
    """A model as the loop calls it: under DDP with several ranks, compiled if requested."""

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
        """Whether `take_loss` returns the mean over the ranks."""
        return self._shared is not None

    def with_loss(self, loss: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the loss; its backward pass also shares `value` with the other ranks."""
        return loss if self._shared is None else self._shared.attach(loss, value)

    def take_loss(self) -> torch.Tensor | None:
        """Return the group's sum of values, averaged over the ranks; None if it is not shared."""
        return None if self._shared is None else self._shared.take()

    def exchanging(self, wanted: bool) -> AbstractContextManager[None]:
        """If `wanted`, let the backward pass exchange gradients; otherwise only accumulate."""
        if wanted or self._ddp is None:
            return nullcontext()
        return self._ddp.no_sync()


@dataclass
class Training:
    """The parts of a training in progress."""

    model: TrainedModel
    epochs: Epochs
    optimization: Optimization
    losses: Losses
    usage: Usage
    directory: Path
    """Absolute path for the checkpoints, because the program may change its directory."""
    planned: tuple[int, int]
    """Steps and epochs of a new run with these data and arguments."""
    position: Position = field(default_factory=Position)
    figures: dict[str, Any] = field(default_factory=dict)
    """Gradient norm and learning rate of the last step, to be logged."""
    decisions: dict[str, Any] | None = None
    """This rank's pending decisions, unless this rank writes the state."""
    saved: dict[int, Path] = field(default_factory=dict)
    """Checkpoints of this run by step, including the checkpoint that it resumed from."""
    lost: LostFlags = field(default_factory=LostFlags)
    tries_again: bool = False
    """Whether the step that has begun is to be made with smaller batches."""
    first_step: int = 0
    first_tokens: int = 0
    began: float = field(default_factory=time.perf_counter)
    _random: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Time since this training began; a resumed run's earlier time is not included."""
        return time.perf_counter() - self.began

    def save_own(self, folder: Path) -> None:
        """Write the parts that differ between ranks; reads from the device."""
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
        """Restore the parts from a checkpoint; parts missing there start anew, with a warning."""
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
                "%s lacks %s: the resumed run will differ from an uninterrupted run",
                *(folder, ", ".join(missing)),
            )

    def restore_random(self) -> None:
        """Restore the random generators from the checkpoint, once; do nothing in a new run."""
        if self._random is not None:
            random_state.restore(self._random)
            self._random = None
