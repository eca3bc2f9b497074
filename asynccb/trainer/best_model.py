"""
The best model of a run: the evaluation that found it, and the checkpoint that contains it.

Promises: better means strictly better, so the earliest of equal models stays the best. A checkpoint
counts as the best only if it was saved at the step of the best evaluation, by this run or by the
run that it resumes.
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

    Raises `ConfigurationError` if the evaluation did not return the metric, or if its value is not
    a number. Waits for the device if the metric is a tensor there.
    """
    name = given if given.startswith("eval_") else f"eval_{given}"
    if name not in metrics:
        raise ConfigurationError(
            f"metric_for_best_model is {given!r}, but the evaluation returned no {name!r}; "
            f"it returned {', '.join(sorted(metrics))}"
        )
    try:
        return float(metrics[name])
    except (RuntimeError, TypeError, ValueError):
        raise ConfigurationError(
            f"metric_for_best_model is {given!r}, but the evaluation returned {metrics[name]!r} "
            f"for {name!r}; return a number"
        ) from None


def note_best(args: TrainingArguments, state: TrainerState, metrics: Mapping[str, Any]) -> bool:
    """
    Compare an evaluation with the best so far and return whether it is better.

    If so, the state is updated.
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


def saves_best(args: TrainingArguments) -> bool:
    """Return whether an evaluation that is the best so far is to be saved."""
    if args.save_strategy == SaveStrategy.NO:
        return False
    return args.save_strategy == SaveStrategy.BEST or args.load_best_model_at_end


def note_best_checkpoint(state: TrainerState, saved: Mapping[int, Path]) -> None:
    """Write the path of the best model into the state, if the run has saved that model."""
    step = state.best_global_step
    if step is not None and step in saved:
        state.best_model_checkpoint = str(saved[step])


def find_best_again(state: TrainerState, resumed: Path) -> None:
    """
    Look for the best checkpoint of a resumed run.

    If the run's folder was moved, the best checkpoint is found beside the checkpoint that the run
    resumes from. If it cannot be found, it is removed from the state, with a warning.
    """
    best = state.best_model_checkpoint
    if best is None:
        return
    places = (Path(best).absolute(), resumed.with_name(Path(best).name))
    found = next((str(place) for place in places if place.is_dir()), None)
    if found is None:
        logger.warning(
            "the best checkpoint %s does not exist any more; it cannot be loaded at the end", best
        )
    state.best_model_checkpoint = found


def load_best(
    args: TrainingArguments, state: TrainerState, model: nn.Module, directory: Path
) -> None:
    """
    Load the best model at the end of a training, if the arguments say so.

    With `save_total_limit=1`, delete all other checkpoints in `directory`. If the best model was
    never saved, the model keeps its last weights, with a warning.
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
    distributed.barrier()  # from here on, no rank reads the checkpoints
    if args.should_save and args.save_total_limit == 1:
        checkpoint.keep_only(directory, Path(best))
