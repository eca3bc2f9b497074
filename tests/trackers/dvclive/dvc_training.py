"""A training that logs each step to DVCLive's files, and may kill itself in the middle."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import asynccb
from asynccb.checkpoint import checkpoint_path, last_checkpoint
from tests.decisions.deciding_training import Dies
from tests.support.launching import launch
from tests.support.regression import Model, train


def go_on(
    directory: Path, kill_at: int = 0, *, resume: int | None = None, max_steps: int = 20
) -> asynccb.Trainer:
    """Train from the last checkpoint, or that of the step `resume`; save each fifth step."""
    found = last_checkpoint(directory)
    return train(
        directory,
        asynccb.DVCLiveCallback(dir=directory / "live", dvcyaml=None),
        Dies(kill_at),
        model=Model(0.5),
        resume=found if resume is None else checkpoint_path(directory, resume),
        max_steps=max_steps,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=5,
    )


def be_killed(directory: Path, step: int) -> None:
    """Go on in a process that kills itself in the middle of a step."""
    with launch(
        "trackers/dvclive/training_program", directory, step, stderr=subprocess.DEVNULL
    ) as killed:
        killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
