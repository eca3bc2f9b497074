"""
How far the loop has come, beyond what `TrainerState` says, and the losses it has summed up.

Promises: the losses stay on the device until they are logged; together with the random generators
this is all that an exact resume in the middle of an epoch, and of a logging window, needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from asynccb.distributed import process_group as distributed


@dataclass
class Position:
    """Say where in the data the loop is; kept in each checkpoint."""

    epoch: int = 0
    batches: int = 0
    """Micro-batches of this epoch that are done, on each rank."""
    cut: bool = False
    """Whether a callback ended this epoch early: a resumed run takes no more steps of it."""

    def next_epoch(self) -> Position:
        """Return the beginning of the epoch after this one."""
        return Position(self.epoch + 1)

    def state(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


class Losses:
    """
    Sum up the losses on the device: of the group under way, of the logging window, of the whole
    run.

    With `filter_nonfinite` a NaN or infinite loss counts as the mean of the window so far (0 at its
    start) instead, chosen on the device, without asking it. `shared` says that `commit` gets means
    over the ranks; otherwise each window is averaged when it is taken, with a collective.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        filter_nonfinite: bool,
        shared: bool = False,
        step: int = 0,
    ) -> None:
        self._zero = torch.zeros((), device=device)
        self._filter = filter_nonfinite
        self._shared = shared
        self._group = self._zero
        self._window = self._zero
        # In double precision, because a long run adds many small numbers to a large one.
        self._total = torch.zeros((), device=device, dtype=torch.float64)
        self._first_step = step
        self.last_logged = step

    def add(self, loss: torch.Tensor, step: int) -> torch.Tensor:
        """
        Add one micro-batch's share of its group's loss, and return what is counted for it.

        `step` is the number of steps done.
        """
        loss = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
        if self._filter:
            mean = (self._window + self._group) / (1 + step - self.last_logged)
            loss = torch.where(torch.isfinite(loss), loss, mean)
        self._group = self._group + loss
        return loss

    def commit(self, shared: torch.Tensor | None = None) -> None:
        """Count the group: its step was made; `shared` is its mean over the ranks."""
        self._window = self._window + (self._group if shared is None else shared)
        self._group = self._zero

    def discard(self) -> None:
        """Forget the group: its step was not made."""
        self._group = self._zero

    def take(self, step: int) -> torch.Tensor:
        """Return the mean loss per step and rank since the last call, and start a new window."""
        window = self._close_window()
        steps, self.last_logged = step - self.last_logged, step
        return window / steps

    def finish(self, step: int) -> float:
        """Return the mean loss per step of the whole run; waits for the device."""
        self._close_window()
        return float(self._total) / max(step - self._first_step, 0.001)

    def _close_window(self) -> torch.Tensor:
        window = self._window if self._shared else distributed.mean(self._window)
        self._total = self._total + window
        self._window = self._zero
        return window

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs; of the window, what this rank has summed or was told."""
        return {
            "window": self._window,
            "total": self._total,
            "first_step": self._first_step,
            "last_logged": self.last_logged,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._window = state["window"].to(self._zero.device)
        self._total = state["total"].to(self._zero.device)
        self._first_step = state["first_step"]
        self.last_logged = state["last_logged"]
