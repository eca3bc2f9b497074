"""
Training arguments, checked at construction.

May import: _ground.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynccb._ground.faces import lazily

if TYPE_CHECKING:
    from asynccb.arguments.strategies import (
        HubStrategy,
        IntervalStrategy,
        OptimizerNames,
        SaveStrategy,
        SchedulerType,
    )
    from asynccb.arguments.training_arguments import TrainingArguments

__all__ = [
    "HubStrategy",
    "IntervalStrategy",
    "OptimizerNames",
    "SaveStrategy",
    "SchedulerType",
    "TrainingArguments",
]

__getattr__, __dir__ = lazily(__name__, dict.fromkeys(__all__, "training_arguments"))
