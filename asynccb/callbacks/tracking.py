"""The attributes of a tracker that are read outside the trackers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Final

from asynccb._ground.events import Event
from asynccb.callbacks.base import TrainerCallback
from asynccb.callbacks.training_side import TrainingSide

LARGEST_STEP: Final = 2**63 - 1
"""The largest step of a service that stores steps in 64 bits, with a sign."""


class Tracking(TrainerCallback):
    """
    The base class by which a tracker is told from any other callback.

    Its attributes count on trackers alone: on another callback an attribute of the same name is the
    user's own, and so are methods such as `flush`. `trackers/base.py` documents them.
    """

    enabled: bool = True
    local: bool = False
    offline: bool = False
    training_side: TrainingSide | None = None
    uploads: Collection[Event] = ()
    offers: ClassVar[bool] = False
    largest_step: ClassVar[int | None] = None
    offer: Callable[[Mapping[str, float]], None]

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take back the attributes that `state()` gave."""
        raise NotImplementedError

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Take values from the training side."""
        raise NotImplementedError


def training_side(callback: object) -> TrainingSide | None:
    """Return a tracker's part in the training process; other callbacks have none."""
    return callback.training_side if isinstance(callback, Tracking) else None
