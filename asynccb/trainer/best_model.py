"""
The best model of a run: which evaluation it is from, and where it lies.

Promises: better means strictly better, so that the earliest of equals stays; a checkpoint counts
as the best only if this run, or the one that it goes on from, saved it at the step of the best
evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.strategies import SaveStrategy
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.checkpoint import folders as checkpoint
from asynccb.checkpoint.weights import load_weights
from asynccb.distributed import process_group as distributed

logger = logging.getLogger("asynccb")


def metric_in(metrics: Mapping[str, Any], given: str) -> float:
    """
    Return a metric of an evaluation by its name, with or without `eval_`.

    Raises `ConfigurationError` where the evaluation gave no such metric, or no number for it. Waits
    for a metric on a device.
    """
    name = given if given.startswith("eval_") else f"eval_{given}"
    if name not in metrics:
        raise ConfigurationError(
            f"metric_for_best_model is {given!r}, and the evaluation gave no {name!r}; "
            f"it gave {', '.join(sorted(metrics))}"
        )
    try:
        return float(metrics[name])
    except (RuntimeError, TypeError, ValueError):
        raise ConfigurationError(
            f"metric_for_best_model is {given!r}, and the evaluation gave {metrics[name]!r} for "
            f"{name!r}; it takes a number"
        ) from None


def note_best(args: TrainingArguments, state: TrainerState, metrics: Mapping[str, Any]) -> bool:
    """
    Compare an evaluation with the best so far, write it into the state, and return whether it is
    better.
    """
    if args.metric_for_best_model is None:
        return False
    value = metric_in(metrics, args.metric_for_best_model)
    if state.best_metric is None:
        state.best_metric = float("-inf") if args.greater_is_better else float("inf")
    better = value > state.best_metric if args.greater_is_better else value < state.best_metric
    if better:
        state.best_metric = value
        if args.save_strategy != SaveStrategy.NO:
            state.best_global_step = state.global_step
    return better


def note_best_checkpoint(state: TrainerState, saved: Mapping[int, Path]) -> None:
    """Write into the state where the best model lies, if it is among what the run has saved."""
    step = state.best_global_step
    if step is not None and step in saved:
        state.best_model_checkpoint = str(saved[step])


def find_best_again(state: TrainerState, resumed: Path) -> None:
    """
    Look for the best checkpoint of a run that is resumed.

    Where the run's folder was moved it lies beside the one that is resumed from; where it is not
    there, it is taken out of the state, with a warning.
    """
    best = state.best_model_checkpoint
    if best is None:
        return
    places = (Path(best).absolute(), resumed.with_name(Path(best).name))
    found = next((str(place) for place in places if place.is_dir()), None)
    if found is None:
        logger.warning("the best checkpoint %s is gone; it cannot be loaded at the end", best)
    state.best_model_checkpoint = found


def load_best(
    args: TrainingArguments, state: TrainerState, model: nn.Module, directory: Path
) -> None:
    """
    End a training with the best model, as the arguments say.

    Loads it, and with `save_total_limit=1` deletes all other checkpoints in `directory`. Where the
    best model was never saved the last weights stay, with a warning.
    """
    best = state.best_model_checkpoint
    if args.load_best_model_at_end and best is None:
        logger.warning(
            "load_best_model_at_end: nothing was saved at the best step (%s), so the model keeps "
            "its last weights",
            state.best_global_step,
        )
    if best is None:
        return
    if args.load_best_model_at_end:
        load_weights(model, Path(best))
    distributed.barrier()  # nobody reads any more
    if args.should_save and args.save_total_limit == 1:
        checkpoint.keep_only(directory, Path(best))
