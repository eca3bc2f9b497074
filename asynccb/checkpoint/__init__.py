"""
Checkpoints: folders that are complete or do not exist.

May import: _ground, distributed, _state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.checkpoint.folders import (
        ARGUMENTS_FILE,
        STATE_FILE,
        checkpoint_path,
        find_checkpoint,
        keep_only,
        last_checkpoint,
        list_checkpoints,
        load_part,
        named_by_rank,
        of_rank,
        rotate,
        save_part,
        step_of,
        with_state,
        writing,
    )

__all__ = [
    "ARGUMENTS_FILE",
    "STATE_FILE",
    "checkpoint_path",
    "find_checkpoint",
    "keep_only",
    "last_checkpoint",
    "list_checkpoints",
    "load_part",
    "named_by_rank",
    "of_rank",
    "rotate",
    "save_part",
    "step_of",
    "with_state",
    "writing",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "folders"))
