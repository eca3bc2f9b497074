"""
From the arguments as they are given to the form in which they are read.

Promises: what is done twice changes nothing the second time; a value of the wrong type is an error
before any conversion.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.checks import (
    as_directory,
    as_enum,
    as_integral,
    as_names,
    as_texts,
    check_kinds,
)
from asynccb.arguments.options import as_mapping, as_optimizer
from asynccb.arguments.strategies import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType

logger = logging.getLogger("asynccb")

_MAPPINGS: Final = (
    "lr_scheduler_kwargs",
    "activation_checkpointing_kwargs",
    "gradient_checkpointing_kwargs",
)


def set_defaults(args: Any) -> None:
    """Replace None by the value that it stands for, and check types, before any conversion."""
    args.output_dir = as_directory("output_dir", args.output_dir, "trainer_output")
    check_kinds(args)
    if args.disable_tqdm is None:
        args.disable_tqdm = logger.getEffectiveLevel() > logging.WARNING
    for name in ("max_grad_norm", "eval_delay"):
        if getattr(args, name) is None:
            setattr(args, name, 0)
    plateau = args.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU
    if args.metric_for_best_model is None and (args.load_best_model_at_end or plateau):
        args.metric_for_best_model = "loss"
    if args.greater_is_better is None and args.metric_for_best_model is not None:
        args.greater_is_better = not args.metric_for_best_model.endswith("loss")
    if args.torch_compile_mode is not None:
        args.torch_compile = True
    if args.use_cpu:
        args.dataloader_pin_memory = False
    for ending in ("", "_kwargs"):
        old, new = f"gradient_checkpointing{ending}", f"activation_checkpointing{ending}"
        if getattr(args, new) is None:
            setattr(args, new, getattr(args, old))
        setattr(args, old, getattr(args, new))
    if args.activation_checkpointing is None:
        args.activation_checkpointing = args.gradient_checkpointing = False


def convert(args: Any) -> None:
    """Convert strategies, intervals and names to the form in which they are read."""
    args.logging_strategy = as_enum(IntervalStrategy, "logging_strategy", args.logging_strategy)
    args.eval_strategy = as_enum(IntervalStrategy, "eval_strategy", args.eval_strategy)
    args.save_strategy = as_enum(SaveStrategy, "save_strategy", args.save_strategy)
    args.lr_scheduler_type = as_enum(SchedulerType, "lr_scheduler_type", args.lr_scheduler_type)
    args.hub_strategy = as_enum(HubStrategy, "hub_strategy", args.hub_strategy)
    args.optim = as_optimizer(args.optim)
    for name in _MAPPINGS:
        setattr(args, name, as_mapping(name, getattr(args, name)))
    args.include_for_metrics = as_texts("include_for_metrics", args.include_for_metrics) or []
    args.label_names = as_texts("label_names", args.label_names)
    args.report_to = as_names("report_to", args.report_to)
    if isinstance(args.include_num_input_tokens_seen, bool):
        args.include_num_input_tokens_seen = "all" if args.include_num_input_tokens_seen else "no"
    for name in ("logging_steps", "save_steps", "warmup_steps"):
        setattr(args, name, as_integral(name, getattr(args, name)))
    if args.eval_strategy == IntervalStrategy.STEPS and not args.eval_steps:
        args.eval_steps = _fall_back_to_logging_steps(args)
    elif args.eval_steps is not None:
        args.eval_steps = as_integral("eval_steps", args.eval_steps)
    if args.eval_strategy != IntervalStrategy.NO:
        args.do_eval = True


def _fall_back_to_logging_steps(args: Any) -> float:
    if args.logging_steps <= 0:
        raise ConfigurationError(
            f"eval_steps is {args.eval_steps!r}, which means logging_steps, and that is "
            f"{args.logging_steps!r}; eval_strategy='steps' needs one of them above 0"
        )
    steps: float = args.logging_steps
    return steps
