"""Whole runs with the SwanLab tracker, as a user starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

import asynccb
from tests.support.regression import Model, train
from tests.trackers.swanlab.server import ROWS, SwanLabServer
from tests.trackers.trainings import falling, flood


def test_twenty_thousand_steps_in_ten_seconds_arrive_complete_and_within_the_limits(
    swanlab: SwanLabServer, tmp_path: Path
) -> None:
    flood(asynccb.SwanLabCallback(project="proj", system_metrics=False), tmp_path)
    theirs = swanlab.run()
    assert theirs.values("train/loss") == falling(20_000)
    assert list(dict.fromkeys(step for _, step in theirs.rows)) == list(range(1, 20_001))
    assert (theirs.resent, theirs.changed, theirs.early) == (0, [], set())
    assert (theirs.state, swanlab.problems) == ("FINISHED", [])
    assert max(swanlab.batches) <= ROWS
    assert len(swanlab.batches) < 40


def test_a_trainer_logs_what_the_variables_of_transformers_ask_for(
    swanlab: SwanLabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANLAB_TERMINAL_PROXY_TYPE", "all")
    for name, value in {"PROJECT": "proj", "LOG_MODEL": "checkpoint", "RUN_ID": "mine"}.items():
        monkeypatch.setenv(f"SWANLAB_{name}", value)
    trainer = train(
        tmp_path / "out",
        model=Model(),
        max_steps=4,
        logging_steps=1,
        save_steps=2,
        report_to="swanlab",
        run_name="whole",
    )
    trainer.dispatcher.close()
    run = swanlab.run("proj")
    assert swanlab.problems == []
    assert (run.state, run.run_id, run.about["name"]) == ("FINISHED", "mine", "whole")
    assert [step for step, _ in run.values("train/loss")] == [1, 2, 3, 4]
    ((step, loss),) = run.values("single_value/train_loss")
    assert (step, loss) == (4, pytest.approx(trainer.state.log_history[-1]["train_loss"]))
    assert (run.config["max_steps"], run.config["model_num_parameters"]) == (4, 2)
    printed = [line["message"] for line in run.lines.values()]
    assert [line[:7] for line in printed].count("{'loss'") == 4
    assert list(run.lines) == list(range(1, len(run.lines) + 1))
    stored = {name for name in run.files if name.endswith("model.safetensors")}
    assert stored == {f"checkpoint-{step}/model.safetensors" for step in (2, 4)}
    there = (tmp_path / "out" / "checkpoint-4" / "model.safetensors").read_bytes()
    assert run.files["checkpoint-4/model.safetensors"] == there
