"""
Checks of a Trainer's arguments, before anything runs.

Promises: each error names the argument and says what to do.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.utils.data import IterableDataset

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.intervals import exact
from asynccb.arguments.strategies import IntervalStrategy, SaveStrategy
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.trainer.data import Epochs, size_of

logger = logging.getLogger("asynccb")

CHECKPOINTING: Final = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
"""Methods of transformers' models: of version 5.24, and of earlier ones."""


def check_trainer(model: Any, args: TrainingArguments, optimizers: Any, callbacks: Any) -> None:
    """Raise `ConfigurationError` if a training with these arguments could never work."""
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"model is {model!r}; it takes a torch.nn.Module")
    if not isinstance(args, TrainingArguments):
        raise ConfigurationError(f"args is {args!r}; it takes asynccb.TrainingArguments")
    if callbacks is not None and not isinstance(callbacks, list | tuple):
        raise ConfigurationError(f"callbacks is {callbacks!r}; it takes a list of callbacks")
    if args.save_strategy == SaveStrategy.BEST and args.metric_for_best_model is None:
        raise ConfigurationError("save_strategy='best' needs metric_for_best_model")
    if not isinstance(optimizers, tuple | list) or len(optimizers) != 2:
        raise ConfigurationError(
            f"optimizers is {optimizers!r}; it takes (optimizer, scheduler), either may be None"
        )
    if optimizers[1] is not None and optimizers[0] is None:
        raise ConfigurationError("optimizers holds a scheduler without the optimizer it drives")
    if args.auto_find_batch_size and args.world_size > 1:
        raise ConfigurationError(
            f"auto_find_batch_size=True, but there are {args.world_size} processes: one that runs "
            "out of memory cannot tell the others, which wait for it; set "
            "per_device_train_batch_size"
        )
    if args.activation_checkpointing and not any(hasattr(model, name) for name in CHECKPOINTING):
        raise ConfigurationError(
            f"activation_checkpointing=True, but {type(model).__name__} has no method for it "
            f"({' or '.join(CHECKPOINTING)}); call torch.utils.checkpoint in its forward instead"
        )
    if args.push_to_hub:
        raise ConfigurationError(
            "push_to_hub=True, but this Trainer does not do that: upload in a callback's on_save"
        )


def check_datasets(args: TrainingArguments, train_dataset: Any, eval_dataset: Any) -> None:
    """Raise `ConfigurationError` if a dataset is missing or is not a dataset."""
    if args.eval_strategy != IntervalStrategy.NO and eval_dataset is None:
        raise ConfigurationError(
            f"eval_strategy is '{args.eval_strategy}', but no eval_dataset was given; give one, or "
            "set eval_strategy='no'"
        )
    if isinstance(eval_dataset, Mapping) and not eval_dataset:
        raise ConfigurationError("eval_dataset is an empty mapping; give at least one dataset")
    evaluated = eval_dataset.values() if isinstance(eval_dataset, Mapping) else [eval_dataset]
    for dataset in (train_dataset, *evaluated):
        if dataset is None or isinstance(dataset, IterableDataset):
            continue
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise ConfigurationError(
                f"{dataset!r} is not a dataset; give an object with __getitem__ and __len__, or "
                "a torch.utils.data.IterableDataset"
            )


def precision_of(args: TrainingArguments, device: torch.device) -> torch.dtype | None:
    """Return the dtype to compute in, or None to compute in the dtype of the weights."""
    if args.fp16 and device.type == "cpu":
        raise ConfigurationError("fp16=True needs a GPU; on the CPU take bf16=True or neither")
    if args.fp16:
        return torch.float16
    return torch.bfloat16 if args.bf16 else None


def length_of(epochs: Epochs, args: TrainingArguments) -> tuple[int, int]:
    """
    Return the steps and the epochs of a run; a `max_steps` of 0 or more wins over the epochs.

    Raises `ConfigurationError` if neither the data nor `max_steps` defines the length of the run.
    """
    steps = epochs.steps
    if args.max_steps >= 0:
        # Data without a length is restarted until the steps are done.
        return args.max_steps, -(
            -args.max_steps // max(steps, 1)
        ) if steps is not None else sys.maxsize
    if steps is None:
        raise ConfigurationError(
            "train_dataset has no length, so the end of training is unknown; set max_steps"
        )
    exact_steps = exact(args.num_train_epochs) * steps
    return -int(-exact_steps // 1), -int(-exact(args.num_train_epochs) // 1)


def check_train_dataset(dataset: Any) -> Any:
    """Return the dataset; raise `ConfigurationError` if it is None."""
    if dataset is None:
        raise ConfigurationError("there is nothing to train on; give Trainer a train_dataset")
    if size_of(dataset) == 0:
        logger.warning("train_dataset is empty: no step will be made")
    return dataset


def check_output_dir(args: TrainingArguments) -> None:
    """Raise `ConfigurationError` if checkpoints are wanted but cannot be written."""
    if args.save_strategy == SaveStrategy.NO and not args.enable_jit_checkpoint:
        return
    directory = Path(args.output_dir).absolute()
    there = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"output_dir is {args.output_dir!r}, but {there} is not a writable directory; "
            "give another, or set save_strategy='no'"
        )


def warn_of_differences(args: TrainingArguments, now: TrainerState, then: TrainerState) -> None:
    """Warn of intervals and batch sizes that differ from the checkpoint; the arguments win."""
    pairs = {
        "logging_steps": (now.logging_steps, then.logging_steps),
        "eval_steps": (now.eval_steps, then.eval_steps),
        "save_steps": (now.save_steps, then.save_steps),
        "per_device_train_batch_size": (now.train_batch_size, then.train_batch_size),
    }
    different = [
        f"{name}: {ours} (from args) != {theirs} (from trainer_state.json)"
        for name, (ours, theirs) in pairs.items()
        if theirs is not None and ours != theirs
    ]
    if different:
        logger.warning(
            "these arguments differ from the checkpoint, and the arguments are used: %s",
            "; ".join(different),
        )
