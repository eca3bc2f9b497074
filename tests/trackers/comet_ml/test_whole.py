"""Whole runs with the Comet tracker, as a user starts them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import asynccb
from tests.support.regression import Model, history, train
from tests.trackers.comet_ml.server import CometServer
from tests.trackers.trainings import logged


def test_a_trainer_leaves_metrics_parameters_layers_files_and_its_end(
    comet: CometServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_LOG_ASSETS", "TRUE")
    trainer = train(
        tmp_path / "out",
        asynccb.CometCallback(tags=["t"], project_name="proj"),
        model=Model(0.5),
        max_steps=10,
        logging_steps=1,
        save_steps=5,
        eval_strategy="steps",
        eval_steps=5,
        run_name="mine",
    )
    experiment = comet.experiment()
    assert comet.refused == []
    assert (experiment.status, experiment.sessions) == ("finished", 1)
    for key, name in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        assert experiment.points(name) == logged(trainer, key)
    assert [m["epoch"] for m in experiment.metrics if m["metricName"] == "train/loss"] == [
        entry["epoch"] for entry in history(trainer) if "loss" in entry
    ]
    assert experiment.parameters["args|max_steps"] == 10
    assert experiment.others["Name"] == "mine"
    assert "Dropout(p=0.5" in experiment.written["graph"]["graph"]
    assert {"out/checkpoint-5/trainer_state.json", "out/checkpoint-10/trainer_state.json"} <= set(
        experiment.assets
    )
    assert not [name for name in experiment.assets if "journal" in name or "cursor" in name]
    state = tmp_path / "out" / "checkpoint-10" / "trainer_state.json"
    assert experiment.assets["out/checkpoint-10/trainer_state.json"][1] == state.read_bytes()


def test_a_stop_on_the_experiments_page_ends_the_training(
    comet: CometServer, tmp_path: Path
) -> None:
    comet.beat = 1.0
    with asynccb.CallbackDispatcher(
        [asynccb.CometCallback()], max_steps=100_000, directory=tmp_path / "runs"
    ) as run:
        comet.stops = True
        while not run.control.should_training_stop:
            run.step(logs={"loss": torch.tensor(0.5)})
            time.sleep(0.01)
    assert run.state.global_step < 3000
    experiment = comet.experiment()
    assert experiment.others["experiment_stopped_by_user"] is True
    assert len(experiment.points("train/loss")) == run.state.global_step
    assert experiment.status == "finished"
