"""A resumed training goes on with its Comet experiment, or with an archive for the same one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import asynccb
from tests.trackers.comet_ml.archives import archived
from tests.trackers.comet_ml.server import CometServer
from tests.trackers.trainings import go_on, logged


def check(comet: CometServer, trainer: asynccb.Trainer, sessions: int) -> None:
    experiment = comet.experiment()
    # The vendor finds out by trying, too, whether there is an experiment.
    assert [problem for problem in comet.refused if "experiment exists" not in problem] == []
    assert (experiment.status, experiment.sessions) == ("finished", sessions)
    assert experiment.points("train/loss") == logged(trainer)


def test_a_training_resumed_from_an_early_checkpoint_or_without_its_folder_logs_nothing_twice(
    comet: CometServer, tmp_path: Path
) -> None:
    check(comet, go_on(tmp_path / "out", asynccb.CometCallback()), 1)
    check(comet, go_on(tmp_path / "out", asynccb.CometCallback(), resume=5), 2)
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(comet, go_on(tmp_path / "out", asynccb.CometCallback(), max_steps=24), 3)


def test_a_resumed_training_offline_writes_an_archive_that_waits_for_the_first(
    comet: CometServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_START_ONLINE", "false")
    go_on(tmp_path / "out", asynccb.CometCallback(), max_steps=15)
    trainer = go_on(tmp_path / "out", asynccb.CometCallback())
    second, first = archived(tmp_path / ".cometml-runs")
    assert first.name == f"{first.about['offline_id']}.zip"
    assert second.about["offline_id"] == first.about["offline_id"]
    assert first.about["user_provided_experiment_key"] is False
    assert (second.about["user_provided_experiment_key"], second.about["resume_strategy"]) == (
        True,
        "get",
    )
    metrics = [*first.metrics, *second.metrics]
    seen = [(m["step"], m["metricValue"]) for m in metrics if m["metricName"] == "train/loss"]
    assert seen == logged(trainer)
    assert comet.sent == []
