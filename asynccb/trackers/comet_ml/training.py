"""
The Comet tracker's part in the training process: describe the model's layers.

Promises: once for each training, in the time that `str(model)` takes; nothing waits for a device.
"""

from __future__ import annotations

from typing import Any, Final

from asynccb.callbacks.training_side import TrainingSide

GRAPH: Final = "graph"
_LONGEST: Final = 1 << 20
"""Characters of a description; a model that has more is shown by its beginning."""


class CometTraining(TrainingSide):
    """Send the tracker the model's layers."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell it at the beginning of training."""
        model = kwargs.get("model")
        if self.tell is not None and model is not None:
            text = str(model)[:_LONGEST].encode("utf-8", "backslashreplace").decode()
            self.tell(GRAPH, {GRAPH: text})
