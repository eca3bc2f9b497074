"""A resumed training goes on in its DVCLive tables, each row once, in order and without a gap."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import asynccb
from tests.support.launching import be_killed
from tests.trackers.dvclive.studio import TOKEN, Studio, studio_server
from tests.trackers.dvclive.training_program import go_on
from tests.trackers.dvclive.written import latest, studio_rows, tables
from tests.trackers.trainings import logged


@pytest.fixture(autouse=True)
def _no_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def check(directory: Path, trainer: asynccb.Trainer) -> None:
    """Compare the tables with the history of the whole run."""
    found = tables(directory / "live")
    for name, shown in (("loss", "loss"), ("eval_loss", "eval/loss")):
        assert found[shown] == logged(trainer, name)
    assert latest(directory / "live")["step"] == trainer.state.global_step


def test_a_training_that_was_killed_goes_on_in_its_tables(tmp_path: Path) -> None:
    be_killed("trackers/dvclive/training_program", tmp_path / "out", random.randint(6, 20))
    check(tmp_path / "out", go_on(tmp_path / "out", resume=5))


def test_a_training_resumed_from_an_early_checkpoint_sends_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with studio_server() as studio:
        monkeypatch.setenv("DVC_STUDIO_URL", studio.url)
        monkeypatch.setenv("DVC_STUDIO_TOKEN", TOKEN)
        monkeypatch.setenv("DVC_STUDIO_REPO_URL", "https://ada:secret@127.0.0.1/ada/proj")
        check(tmp_path / "out", go_on(tmp_path / "out"))
        check(tmp_path / "out", go_on(tmp_path / "out", resume=5))
        check_studio(studio, tmp_path / "out" / "live")


def check_studio(studio: Studio, directory: Path) -> None:
    """Find in the one experiment what the tables have, from requests without a row twice."""
    (((repository, _, _), experiment),) = studio.experiments.items()
    assert (repository, experiment.started, experiment.done) == (
        "https://127.0.0.1/ada/proj",
        2,
        True,
    )
    assert studio_rows(experiment, "out/live") == tables(directory)
    plots = [body.get("plots", {}) for body in studio.bodies]
    sent = [row for some in plots for plot in some.values() for row in plot["data"]]
    assert len(sent) == sum(map(len, tables(directory).values()))


@pytest.mark.parametrize("max_steps", [20, 24])
def test_without_the_folder_of_the_first_training_the_rows_after_the_checkpoint_come_once(
    tmp_path: Path, max_steps: int
) -> None:
    go_on(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "asynccb")
    resume = 10 if max_steps == 20 else None
    check(tmp_path / "out", go_on(tmp_path / "out", resume=resume, max_steps=max_steps))
