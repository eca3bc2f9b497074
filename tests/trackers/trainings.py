"""Trainings that any tracker is told of: in pieces, and as a flood of steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import asynccb
from asynccb.checkpoint import checkpoint_path, last_checkpoint
from asynccb.trackers.base import Tracker
from tests.support.regression import Model, history, train

EVALUATED = {"eval_strategy": "steps", "eval_steps": 3}
"""Settings of a training that logs twice at each third step."""


def go_on(
    directory: Path, *callbacks: Any, resume: int | None = None, **settings: Any
) -> asynccb.Trainer:
    """
    Train 20 steps from the last checkpoint, or that of the step `resume`.

    Each step is logged, and each fifth saved.
    """
    found = last_checkpoint(directory)
    return train(
        directory,
        *callbacks,
        model=Model(0.5),
        resume=found if resume is None else checkpoint_path(directory, resume),
        **{"max_steps": 20, "logging_steps": 1, "save_steps": 5} | settings,
    )


def logged(trainer: asynccb.Trainer, name: str = "loss") -> list[tuple[int, float]]:
    """Return the points of a value in the history of the whole run."""
    return [(entry["step"], entry[name]) for entry in history(trainer) if name in entry]


def flood(tracker: Tracker, directory: Path) -> None:
    """Take 20,000 steps in ten seconds, of which none is dropped, refused or sent again."""
    begin = time.monotonic()
    with asynccb.CallbackDispatcher([tracker], max_steps=20_000, directory=directory) as run:
        while not run.control.should_training_stop:
            step = run.state.global_step + 1
            run.step(logs={"loss": 1 / step, "accuracy": step / 1e6, "lr": 1e-4})
            if step % 20 == 0:  # not faster than 2,000 a second
                time.sleep(max(0.0, begin + step / 2000 - time.monotonic()))
    (counts,) = run.statistics().callbacks.values()
    assert (counts.dropped, counts.rejected, counts.retried) == (0, 0, 0)


def falling(steps: int) -> list[tuple[int, float]]:
    """Return the points of the flood's loss."""
    return [(step, 1 / step) for step in range(1, steps + 1)]
