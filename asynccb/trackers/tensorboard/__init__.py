"""
The tracker for TensorBoard.

May import: base, server, names, shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.trackers.tensorboard.callback import TensorBoardCallback

__all__ = [
    "TensorBoardCallback",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "callback"))
