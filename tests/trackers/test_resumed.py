"""A resumed training goes on with its trackers' runs: one run each, and each point once."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import asynccb
from asynccb._journal.overview import find_runs, look_at
from tests.support.launching import be_killed, held_back
from tests.support.waiting import eventually
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.tracked_program import go_on
from tests.trackers.trainings import logged

pytestmark = pytest.mark.usefixtures("mlflow_environment")
PROGRAM = "trackers/tracked_program"


def check(server: RealMLflow, experiment: str, trainer: asynccb.Trainer) -> None:
    """Compare both trackers' runs with the history of the whole run, point by point."""
    (run,) = server.runs(experiment)
    assert run["info"]["status"] == "FINISHED"
    (folder,) = (Path(trainer.args.output_dir) / "runs").iterdir()
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    board.Reload()
    for key, tag in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        expected = logged(trainer, key)
        seen = server.points(run["info"]["run_id"], key)
        assert [(step, value) for step, value, _ in seen] == [
            (step, pytest.approx(float(value))) for step, value in expected
        ]
        assert [e.step for e in board.Scalars(tag)] == [step for step, _ in expected]


def folders(directory: Path) -> list[Path]:
    return sorted((directory / "asynccb").iterdir())


def test_a_training_killed_at_random_steps_and_resumed_from_one_checkpoint_goes_on_in_its_run(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    about = (tmp_path, mlflow_server.uri, experiment)
    be_killed(PROGRAM, *about, random.randint(6, 20), 0)
    be_killed(PROGRAM, *about, random.randint(6, 20), 5)
    check(mlflow_server, experiment, go_on(*about, resume=5))


def test_a_training_killed_before_its_companion_was_there_is_waited_for(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    env, let_go = held_back(tmp_path)
    training = tmp_path / "training"
    be_killed(PROGRAM, training, mlflow_server.uri, experiment, 7, 0, env=env)

    def let_go_when_the_resumed_one_waits() -> None:
        logs = (training / "asynccb").glob
        eventually(lambda: any("waits until" in f.read_text() for f in logs("*/companion.log")))
        let_go()

    with ThreadPoolExecutor() as beside:
        done = beside.submit(let_go_when_the_resumed_one_waits)
        trainer = go_on(training, mlflow_server.uri, experiment, resume=5)
        done.result()
    check(mlflow_server, experiment, trainer)


def test_what_nobody_has_delivered_is_delivered_by_the_resumed_one(
    mlflow_server: RealMLflow,
    experiment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as offline:  # as if the server was away until both had died
        offline.setenv("ASYNCCB_OFFLINE", "1")
        be_killed(PROGRAM, tmp_path, mlflow_server.uri, experiment, 13, 0)
        (folder,) = folders(tmp_path)
        eventually(lambda: find_runs(folder)[0] and look_at(folder).ended == "crashed")
    check(mlflow_server, experiment, go_on(tmp_path, mlflow_server.uri, experiment))


def test_a_finished_training_resumed_from_an_early_checkpoint_logs_nothing_twice(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    about = (tmp_path, mlflow_server.uri, experiment)
    check(mlflow_server, experiment, go_on(*about))
    (folder,) = folders(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["cursors", "resumable"]
    check(mlflow_server, experiment, go_on(*about, resume=5))


def test_without_the_folder_the_checkpoint_s_own_run_id_is_gone_on_with(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    about = (tmp_path, mlflow_server.uri, experiment)
    go_on(*about)
    shutil.rmtree(tmp_path / "asynccb")
    check(mlflow_server, experiment, go_on(*about, max_steps=24))
