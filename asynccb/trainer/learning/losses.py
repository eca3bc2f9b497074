"""
The loop's position in the data, which `TrainerState` does not contain, and its sums of losses.

Promises: the losses stay on the device until they are logged. Together with the random generators,
position and losses are sufficient for an exact resume in the middle of an epoch and of a logging
window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from asynccb.distributed import process_group as distributed
from asynccb.trainer.learning.filtered_losses import FilteredLosses


@dataclass
class Position:
    """The loop's position in the data; stored in each checkpoint."""

    epoch: int = 0
    batches: int = 0
    """Micro-batches of this epoch that are done, on each rank."""
    cut: bool = False
    """Whether a callback ended this epoch early; a resumed run then makes no more steps of it."""

    def next_epoch(self) -> Position:
        """Return the beginning of the epoch after this one."""
        return Position(self.epoch + 1)

    def state(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


class Losses:
    """
    Sums of the losses on the device: of the current group, the logging window and the whole run.

    With `filtered`, the mean of the window so far (0 at its start) replaces a NaN or infinite loss,
    and is counted there. The device makes that choice, without a synchronization. `shared` means
    that `commit` receives means over the ranks. Otherwise a collective averages each window when it
    is taken.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        filtered: FilteredLosses | None,
        shared: bool = False,
        step: int = 0,
    ) -> None:
        self._zero = torch.zeros((), device=device)
        self._filtered = filtered
        self._shared = shared
        self._group = self._zero
        self._window = self._zero
        # In double precision, because a long run adds many small numbers to a large one.
        self._total = torch.zeros((), device=device, dtype=torch.float64)
        self._first_step = step
        self.last_logged = step

    def add(self, loss: torch.Tensor, step: int) -> torch.Tensor:
        """
        Add one micro-batch's share of its group's loss, and return the value that was added.

        `step` is the number of steps done.
        """
        loss = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
        if self._filtered is not None:
            finite = torch.isfinite(loss)
            self._filtered.add(finite)
            mean = (self._window + self._group) / (1 + step - self.last_logged)
            loss = torch.where(finite, loss, mean)
        self._group = self._group + loss
        return loss

    def commit(self, shared: torch.Tensor | None = None) -> None:
        """Count the group, after its step was made; `shared` is its mean over the ranks."""
        self._window = self._window + (self._group if shared is None else shared)
        self._group = self._zero
        if self._filtered is not None:
            self._filtered.settle()

    def discard(self) -> None:
        """Drop the group, whose step was not made."""
        self._group = self._zero

    def take(self, step: int) -> torch.Tensor:
        """Return the mean loss per step and rank since the last call, and start a new window."""
        window = self._close_window()
        steps, self.last_logged = step - self.last_logged, step
        if self._filtered is not None:
            self._filtered.ask(step)
        return window / steps

    def finish(self, step: int) -> float:
        """Return the mean loss per step of the whole run; waits for the device."""
        self._close_window()
        if self._filtered is not None:
            self._filtered.read(step)
        return float(self._total) / max(step - self._first_step, 0.001)

    def _close_window(self) -> torch.Tensor:
        window = self._window if self._shared else distributed.mean(self._window)
        self._total = self._total + window
        self._window = self._zero
        return window

    def state(self) -> dict[str, Any]:
        """Return the sums for a checkpoint; the window is this rank's sum, or the shared sum."""
        return {
            "window": self._window,
            "total": self._total,
            "first_step": self._first_step,
            "last_logged": self.last_logged,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the values that `state` returned."""
        self._window = state["window"].to(self._zero.device)
        self._total = state["total"].to(self._zero.device)
        self._first_step = state["first_step"]
        self.last_logged = state["last_logged"]
