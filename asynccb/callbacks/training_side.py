"""
The part of a tracker that stays in the training process.

Promises: what it tells goes through the ring and the journal like an event, to its own tracker
alone, in order with the events around it; telling waits for nothing but a full ring. A rank that
does not serve the tracker tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asynccb.callbacks.base import TrainerCallback

Tell = Callable[[str, Mapping[str, Any]], None]
"""Takes a word for what it is, and values as logs have them; a CUDA tensor does not wait."""


class TrainingSide(TrainerCallback):
    """
    Do for a tracker what can only be done where the model is.

    Its `def` hooks run beside the tracker's async ones, on the training thread of every rank. A
    tracker has one as `training_side`; what it tells is given to the tracker's `told`.
    """

    tell: Tell | None = None
    """None on ranks that do not serve the tracker."""

    def open(self) -> None:
        """Begin: the tracker is served here."""

    def drain(self, *, whole: bool) -> None:
        """Tell what has gathered, all of it or a part; on the training thread, every 200 ms."""

    def close(self) -> None:
        """Undo what was done to the process; called once, when the run is over."""
