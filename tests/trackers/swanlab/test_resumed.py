"""A resumed training goes on with its SwanLab run, each number once and without a gap."""

from __future__ import annotations

import shutil
from pathlib import Path

import asynccb
from asynccb.checkpoint import checkpoint_path, last_checkpoint
from tests.support.regression import Model, history, train
from tests.trackers.swanlab.server import SwanLabServer


def go_on(directory: Path, *, resume: int | None = None, max_steps: int = 20) -> asynccb.Trainer:
    """Train from the last checkpoint, or that of the step `resume`; save each fifth step."""
    found = last_checkpoint(directory)
    return train(
        directory,
        asynccb.SwanLabCallback(project="proj"),
        model=Model(0.5),
        resume=found if resume is None else checkpoint_path(directory, resume),
        max_steps=max_steps,
        logging_steps=1,
        save_steps=5,
    )


def losses(trainer: asynccb.Trainer) -> list[tuple[int, float]]:
    return [(entry["step"], entry["loss"]) for entry in history(trainer) if "loss" in entry]


def check(swanlab: SwanLabServer, trainer: asynccb.Trainer) -> None:
    run = swanlab.run()
    assert run.state == "FINISHED"
    assert swanlab.problems == []
    assert run.values("train/loss") == losses(trainer)


def test_a_resumed_training_logs_nothing_twice_and_finds_its_run_without_its_folder(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    check(swanlab, go_on(tmp_path / "out"))
    check(swanlab, go_on(tmp_path / "out", resume=5))
    run = swanlab.run()
    assert (run.opened, run.resent) == (2, 0)  # the state alone was sent again
    # The last step of the first one has two logs, with an epoch each.
    assert [(row["key"], row["index"]) for row in run.changed] == [("train/epoch", 20)]
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(swanlab, go_on(tmp_path / "out", max_steps=24))
