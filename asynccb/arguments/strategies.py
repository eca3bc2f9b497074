"""The values that some training arguments choose from."""

from __future__ import annotations

from enum import StrEnum


class IntervalStrategy(StrEnum):
    """Say when to log or evaluate."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class SaveStrategy(StrEnum):
    """Say when to save; `best` saves after an evaluation that improved on the best metric."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"
    BEST = "best"


class SchedulerType(StrEnum):
    """Say how the learning rate goes on after the warm-up; `constant` has none."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"


class HubStrategy(StrEnum):
    """Say what is pushed, for callbacks that push."""

    END = "end"
    EVERY_SAVE = "every_save"
    CHECKPOINT = "checkpoint"
    ALL_CHECKPOINTS = "all_checkpoints"
