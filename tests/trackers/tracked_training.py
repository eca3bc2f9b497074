"""A training that logs each step to MLflow and TensorBoard, and may kill itself in the middle."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import asynccb
from asynccb.checkpoint import checkpoint_path, last_checkpoint
from tests.decisions.deciding_training import Dies
from tests.support.launching import launch
from tests.support.regression import Model, train


def go_on(
    directory: Path,
    uri: str,
    experiment: str,
    kill_at: int = 0,
    *,
    resume: int | None = None,
    **settings: Any,
) -> asynccb.Trainer:
    """
    Train 20 steps from the last checkpoint, or that of the step `resume`; save each fifth step.

    Logs twice where it evaluates, at each third step.
    """
    found = last_checkpoint(directory)
    return train(
        directory,
        asynccb.MLflowCallback(tracking_uri=uri, experiment_name=experiment),
        asynccb.TensorBoardCallback(),
        Dies(kill_at),
        model=Model(0.5),
        resume=found if resume is None else checkpoint_path(directory, resume),
        **{
            "max_steps": 20,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_steps": 5,
        }
        | settings,
    )


def be_killed(
    directory: Path,
    uri: str,
    experiment: str,
    step: int,
    resume: int = 0,
    env: dict[str, str] | None = None,
) -> None:
    """Go on in a process, of that environment, that kills itself in the middle of a step."""
    given = (directory, uri, experiment, step, resume)
    with launch("train_tracked", *given, env=env, stderr=subprocess.DEVNULL) as killed:
        killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
