"""Enums of the training arguments that have a fixed set of values."""

from __future__ import annotations

from enum import StrEnum


class IntervalStrategy(StrEnum):
    """When to log or evaluate."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class SaveStrategy(StrEnum):
    """When to save; `best` saves after an evaluation that improved on the best metric."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"
    BEST = "best"


class SchedulerType(StrEnum):
    """The course of the learning rate after the warm-up; `constant` has no warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"


class HubStrategy(StrEnum):
    """Which models and checkpoints to push, for callbacks that push."""

    END = "end"
    EVERY_SAVE = "every_save"
    CHECKPOINT = "checkpoint"
    ALL_CHECKPOINTS = "all_checkpoints"
