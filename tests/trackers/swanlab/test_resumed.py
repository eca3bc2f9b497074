"""A resumed training goes on with its SwanLab run, each number once and without a gap."""

from __future__ import annotations

import shutil
from pathlib import Path

import asynccb
from tests.trackers.swanlab.server import SwanLabServer
from tests.trackers.trainings import go_on, logged


def check(swanlab: SwanLabServer, trainer: asynccb.Trainer) -> None:
    run = swanlab.run()
    assert run.state == "FINISHED"
    assert swanlab.problems == []
    assert run.values("train/loss") == logged(trainer)


def test_a_resumed_training_logs_nothing_twice_and_finds_its_run_without_its_folder(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    check(swanlab, go_on(tmp_path / "out", asynccb.SwanLabCallback(project="proj")))
    check(swanlab, go_on(tmp_path / "out", asynccb.SwanLabCallback(project="proj"), resume=5))
    run = swanlab.run()
    assert (run.opened, run.resent) == (2, 0)  # the state alone was sent again
    # The last step of the first one has two logs, with an epoch each.
    assert [(row["key"], row["index"]) for row in run.changed] == [("train/epoch", 20)]
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(swanlab, go_on(tmp_path / "out", asynccb.SwanLabCallback(project="proj"), max_steps=24))
