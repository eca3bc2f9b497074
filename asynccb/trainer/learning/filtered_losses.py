"""
The losses that are NaN or infinite and therefore not in the logs: their number, and one warning.

Promises: nothing here waits for a GPU during a step or a log; there the number of a log is known
a step or so later.
"""

from __future__ import annotations

import logging
from typing import Final

import torch

from asynccb._dispatch.statistics import LossCount

logger = logging.getLogger("asynccb")

_WARNING: Final = (
    "%s: 'loss' was NaN or infinite in %d of %d batches until step %d. The logs and train_loss "
    "have the mean of the window so far in place of each, which is 0.0 if the window has no finite "
    "loss: a loss of 0.0 may mean that the model is NaN. To log such losses as they are, set "
    "logging_nan_inf_filter=False (said once; statistics() counts them)"
)


class FilteredLosses:
    """
    The number of losses of one training that the filter replaced, on this rank.

    The first that is found gives a warning.
    """

    def __init__(self, name: str, device: torch.device, count: LossCount) -> None:
        """Add to `count` what is found; the warning begins with `name`."""
        self._name = name
        self._count = count
        self._finite = torch.zeros((), device=device, dtype=torch.int64)
        self._added = 0
        self._found = 0
        self._asked: tuple[int, int, torch.cuda.Event] | None = None
        """Batches and steps at the copy that is under way, and the event after it."""
        if device.type == "cuda":
            self._landed = torch.zeros((), dtype=torch.int64, pin_memory=True)

    def add(self, finite: torch.Tensor) -> None:
        """Count a loss; `finite` is a boolean of the device."""
        self._finite += finite
        self._added += 1

    def ask(self, step: int) -> None:
        """Look for replaced losses, after so many steps; on a GPU only begin to."""
        if self._finite.device.type != "cuda":
            self.read(step)
        elif self._asked is None:
            self._landed.copy_(self._finite, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._finite.device))
            self._asked = self._added, step, event

    def settle(self) -> None:
        """Finish what `ask` began, if its value is there."""
        if self._asked is not None and self._asked[2].query():  # type: ignore[no-untyped-call]
            added, step, _ = self._asked
            self._asked = None
            self._take_in(added - int(self._landed), added, step)

    def read(self, step: int) -> None:
        """Look for replaced losses, after so many steps; waits for the device."""
        self._asked = None
        self._take_in(self._added - int(self._finite), self._added, step)

    def _take_in(self, filtered: int, added: int, step: int) -> None:
        if filtered and not self._found:
            logger.warning(_WARNING, self._name, filtered, added, step)
        self._count.filtered += filtered - self._found
        self._found = filtered
