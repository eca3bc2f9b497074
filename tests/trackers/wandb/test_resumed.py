"""A resumed training goes on with its W&B run, each line once, in order and without a gap."""

from __future__ import annotations

import shutil
from pathlib import Path

import asynccb
from asynccb.checkpoint import checkpoint_path, last_checkpoint
from tests.support.regression import Model, history, train
from tests.trackers.wandb.server import WandbServer


def go_on(directory: Path, *, resume: int | None = None, max_steps: int = 20) -> asynccb.Trainer:
    """Train from the last checkpoint, or that of the step `resume`; save each fifth step."""
    found = last_checkpoint(directory)
    return train(
        directory,
        asynccb.WandbCallback(),
        model=Model(0.5),
        resume=found if resume is None else checkpoint_path(directory, resume),
        max_steps=max_steps,
        logging_steps=1,
        save_steps=5,
    )


def check(wandb: WandbServer, trainer: asynccb.Trainer) -> None:
    run = wandb.run()
    assert run.state == "finished"
    assert [problem for problem in wandb.refused if " 429 " not in problem] == []
    expected = [(entry["step"], entry["loss"]) for entry in history(trainer) if "loss" in entry]
    lines = [line for line in run.history if "train/loss" in line]
    assert [(line["train/global_step"], line["train/loss"]) for line in lines] == expected
    assert [line["_step"] for line in run.history] == list(range(len(run.history)))


def test_a_training_resumed_from_an_early_checkpoint_logs_nothing_twice(
    wandb: WandbServer, tmp_path: Path
) -> None:
    check(wandb, go_on(tmp_path / "out"))
    check(wandb, go_on(tmp_path / "out", resume=5))


def test_without_the_folder_of_the_first_training_its_run_is_found_all_the_same(
    wandb: WandbServer, tmp_path: Path
) -> None:
    go_on(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(wandb, go_on(tmp_path / "out", max_steps=24))
