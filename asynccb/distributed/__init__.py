"""
Exchange between ranks on the CPU, with a time limit and errors that name the missing ranks.

Nothing here depends on decisions.

May import: _ground.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.distributed.process_group import (
        barrier,
        choose_device,
        gather,
        join,
        local_rank,
        mean,
        rank,
        total,
        world_size,
    )

__all__ = [
    "barrier",
    "choose_device",
    "gather",
    "join",
    "local_rank",
    "mean",
    "rank",
    "total",
    "world_size",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "process_group"))
