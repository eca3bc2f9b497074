"""
The part of a tracker that stays in the training process.

Promises: the values that it sends pass through the ring and the journal like an event, in order
with the events around them, to its own tracker alone. Sending waits only if the ring is full. A
rank that does not serve the tracker sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asynccb.callbacks.base import TrainerCallback

Tell = Callable[[str, Mapping[str, Any]], None]
"""Accepts a word for the kind of values, and values as in logs. A CUDA tensor does not make it
wait."""


class TrainingSide(TrainerCallback):
    """
    The part of a tracker that needs the training process, because the model is there.

    Its `def` hooks run in addition to the tracker's async hooks, on the training thread of every
    rank. A tracker has it as `training_side`; the tracker's `told` receives the values that it
    sends with `tell`.
    """

    tell: Tell | None = None
    """None on ranks that do not serve the tracker."""

    def open(self) -> None:
        """Start; called on ranks that serve the tracker."""

    def describe(self) -> dict[str, Any]:
        """
        Return what the tracker must know of this process before it continues or begins a run.

        Called on the training thread when a training begins. `told` receives the values under the
        word `process`, before any hook, and again in each new companion.
        """
        return {}

    def drain(self, *, whole: bool) -> None:
        """Send all or part of the collected values; called on the training thread every 200 ms."""

    def close(self) -> None:
        """Undo the changes made to the process; called once, when the run is over."""
