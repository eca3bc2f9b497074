"""A resumed training goes on with its Comet experiment, or with an archive for the same one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import asynccb
from asynccb.checkpoint import checkpoint_path, last_checkpoint
from tests.support.regression import Model, history, train
from tests.trackers.comet_ml.archives import archived
from tests.trackers.comet_ml.server import CometServer


def go_on(directory: Path, *, resume: int | None = None, max_steps: int = 20) -> asynccb.Trainer:
    """Train from the last checkpoint, or that of the step `resume`; save each fifth step."""
    found = last_checkpoint(directory)
    return train(
        directory,
        asynccb.CometCallback(),
        model=Model(0.5),
        resume=found if resume is None else checkpoint_path(directory, resume),
        max_steps=max_steps,
        logging_steps=1,
        save_steps=5,
    )


def expected(trainer: asynccb.Trainer) -> list[tuple[int, float]]:
    return [(entry["step"], entry["loss"]) for entry in history(trainer) if "loss" in entry]


def check(comet: CometServer, trainer: asynccb.Trainer, sessions: int) -> None:
    experiment = comet.experiment()
    # The vendor finds out by trying, too, whether there is an experiment.
    assert [problem for problem in comet.refused if "experiment exists" not in problem] == []
    assert (experiment.status, experiment.sessions) == ("finished", sessions)
    assert experiment.points("train/loss") == expected(trainer)


def test_a_training_resumed_from_an_early_checkpoint_or_without_its_folder_logs_nothing_twice(
    comet: CometServer, tmp_path: Path
) -> None:
    check(comet, go_on(tmp_path / "out"), 1)
    check(comet, go_on(tmp_path / "out", resume=5), 2)
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(comet, go_on(tmp_path / "out", max_steps=24), 3)


def test_a_resumed_training_offline_writes_an_archive_that_waits_for_the_first(
    comet: CometServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_START_ONLINE", "false")
    go_on(tmp_path / "out", max_steps=15)
    trainer = go_on(tmp_path / "out")
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
    assert seen == expected(trainer)
    assert comet.sent == []
