"""A resumed training goes on with its W&B run, each line once, in order and without a gap."""

from __future__ import annotations

import shutil
from pathlib import Path

import asynccb
from tests.trackers.trainings import go_on, logged
from tests.trackers.wandb.server import WandbServer


def check(wandb: WandbServer, trainer: asynccb.Trainer) -> None:
    run = wandb.run()
    assert run.state == "finished"
    assert [problem for problem in wandb.refused if " 429 " not in problem] == []
    lines = [line for line in run.history if "train/loss" in line]
    assert [(line["train/global_step"], line["train/loss"]) for line in lines] == logged(trainer)
    assert [line["_step"] for line in run.history] == list(range(len(run.history)))


def test_a_training_resumed_from_an_early_checkpoint_logs_nothing_twice(
    wandb: WandbServer, tmp_path: Path
) -> None:
    check(wandb, go_on(tmp_path / "out", asynccb.WandbCallback()))
    check(wandb, go_on(tmp_path / "out", asynccb.WandbCallback(), resume=5))


def test_without_the_folder_of_the_first_training_its_run_is_found_all_the_same(
    wandb: WandbServer, tmp_path: Path
) -> None:
    go_on(tmp_path / "out", asynccb.WandbCallback())
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(wandb, go_on(tmp_path / "out", asynccb.WandbCallback(), max_steps=24))
