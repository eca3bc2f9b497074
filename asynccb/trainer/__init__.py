"""
`asynccb.Trainer`: our training loop and its parts. The room needs torch.

May import: _ground, arguments, distributed, _state, callbacks, checkpoint, trackers, _dispatch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.trainer.loop import Trainer

__all__ = [
    "Trainer",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "loop"))
