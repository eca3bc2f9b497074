"""
The schedule of the arguments: the learning rate at each step.

Names, options and values are those of transformers 5.24.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from asynccb.arguments.strategies import SchedulerType
from asynccb.arguments.training_arguments import TrainingArguments

_NO_WARMUP_TIMESCALE = 10_000
"""Steps of the time scale of `inverse_sqrt` without a warm-up, as in transformers."""


def make_scheduler(optimizer: Optimizer, args: TrainingArguments, max_steps: int) -> LRScheduler:
    """Return the schedule of the arguments over `max_steps`; "constant" has no warm-up."""
    kind = SchedulerType(args.lr_scheduler_type)
    options: Any = args.lr_scheduler_kwargs or {}
    if kind is SchedulerType.REDUCE_ON_PLATEAU:
        return ReduceLROnPlateau(optimizer, **options)
    warmup = 0 if kind is SchedulerType.CONSTANT else args.get_warmup_steps(max_steps)
    if kind is SchedulerType.INVERSE_SQRT:
        scale = options.get("timescale") or warmup or _NO_WARMUP_TIMESCALE
        return LambdaLR(optimizer, _warmed(warmup, lambda step: math.sqrt(scale / (step + scale))))
    after = _after_warmup(kind, options, args.learning_rate)
    steps = max(1, max_steps - warmup)
    return LambdaLR(optimizer, _warmed(warmup, lambda step: after(min(step / steps, 1.0))))


def _warmed(warmup: int, after: Callable[[int], float]) -> Callable[[int], float]:
    """Return the factor at a step; `after` receives the steps since the end of the warm-up."""
    return lambda step: step / warmup if step < warmup else after(step - warmup)


def _after_warmup(
    kind: SchedulerType, options: dict[str, Any], learning_rate: float
) -> Callable[[float], float]:
    """Return the factor of the learning rate by the finished share of the steps after warm-up."""
    match kind:
        case SchedulerType.LINEAR:
            return lambda progress: 1.0 - progress
        case SchedulerType.COSINE:
            return _cosine(options.get("num_cycles", 0.5))
        case SchedulerType.COSINE_WITH_MIN_LR:
            least = options.get("min_lr_rate", options.get("min_lr", 0.0) / (learning_rate or 1.0))
            wave = _cosine(options.get("num_cycles", 0.5))
            return lambda progress: least + (1.0 - least) * wave(progress)
        case SchedulerType.COSINE_WITH_RESTARTS:
            cycles = options.get("num_cycles", 1)
            half = _cosine(0.5)
            return lambda progress: half(cycles * progress % 1.0) if progress < 1.0 else 0.0
        case SchedulerType.POLYNOMIAL:
            power, end = options.get("power", 1.0), options.get("lr_end", 1e-7) / learning_rate
            return lambda progress: end + (1.0 - end) * (1.0 - progress) ** power
        case _:
            return lambda progress: 1.0


def _cosine(cycles: float) -> Callable[[float], float]:
    """Return a cosine from 1 that makes so many cycles between 1 and 0."""
    return lambda progress: 0.5 * (1.0 + math.cos(2.0 * math.pi * cycles * progress))
