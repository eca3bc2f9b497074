"""The run that is active in the training's process, beside transformers' own callback."""

from __future__ import annotations

import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from asynccb._journal.cursor import load_cursor
from tests.support.launching import command, environment, launch
from tests.support.waiting import eventually
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.mlflow.stores import database

pytestmark = pytest.mark.usefixtures("mlflow_environment")

LOSS = [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def train(whose: str, mode: str, uri: str, experiment: str = "e") -> tuple[str, str]:
    """Run the program to its end; return the active run's id and what was said."""
    done = subprocess.run(
        command("trackers/mlflow/active_program", whose, mode, uri),
        env=surroundings(experiment),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0] if done.stdout else "", done.stderr


def surroundings(experiment: str) -> dict[str, str]:
    return environment() | {"EXPERIMENT": experiment, "MLFLOW_DISABLE_TELEMETRY": "true"}


def by_name(server: RealMLflow, experiment: str) -> dict[str, dict[str, Any]]:
    """Return the runs of an experiment, by their names."""
    return {run["info"]["run_name"]: run for run in server.runs(experiment)}


def steps(server: RealMLflow, run: dict[str, Any]) -> list[tuple[int, float]]:
    return [(step, value) for step, value, _ in server.points(run["info"]["run_id"], "loss")]


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_the_active_run_is_logged_into_and_left_to_the_process_to_end(
    whose: str, mlflow_server: RealMLflow
) -> None:
    experiment = uuid.uuid4().hex
    active, _ = train(whose, "active", mlflow_server.uri, experiment)
    runs = by_name(mlflow_server, experiment)
    assert list(runs) == ["mine"]
    assert runs["mine"]["info"]["run_id"] == active
    assert runs["mine"]["info"]["status"] == "FINISHED"
    assert steps(mlflow_server, runs["mine"]) == LOSS
    metrics = {metric["key"] for metric in runs["mine"]["data"]["metrics"]}
    assert metrics == {"before", "loss", "after"}
    assert mlflow_server.params(active)["output_dir"] == "out"


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_nested_run_is_a_child_of_the_active_one(whose: str, mlflow_server: RealMLflow) -> None:
    experiment = uuid.uuid4().hex
    active, _ = train(whose, "nested", mlflow_server.uri, experiment)
    runs = by_name(mlflow_server, experiment)
    assert set(runs) == {"mine", "the training"}
    child = runs["the training"]
    assert mlflow_server.tags(child["info"]["run_id"])["mlflow.parentRunId"] == active
    assert child["info"]["status"] == "FINISHED"
    assert steps(mlflow_server, child) == LOSS
    assert {metric["key"] for metric in runs["mine"]["data"]["metrics"]} == {"before", "after"}


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_nested_run_without_an_active_one_has_no_parent(whose: str, tmp_path: Path) -> None:
    reader = database(tmp_path)
    train(whose, "alone", reader.uri)
    (run,) = reader.runs("Default")
    assert "mlflow.parentRunId" not in run["data"]["tags"]
    assert (run["info"]["run_name"], run["info"]["status"]) == ("the training", "FINISHED")


def test_a_run_that_is_active_at_another_address_is_said_and_left_alone(tmp_path: Path) -> None:
    reader = database(tmp_path)
    active, said = train("ours", "elsewhere", reader.uri)
    assert f"the active MLflow run {active} is kept at sqlite:///{tmp_path}/other.db" in said
    (run,) = reader.runs("Default")
    assert run["info"]["run_id"] != active
    assert run["info"]["status"] == "FINISHED"


def test_a_training_killed_in_the_active_run_leaves_its_points_there_and_its_status_alone(
    tmp_path: Path,
) -> None:
    reader = database(tmp_path)
    with launch(
        *("trackers/mlflow/active_program", "ours", "killed", reader.uri),
        env=surroundings("e"),
        stderr=subprocess.DEVNULL,
    ) as program:
        active = program.communicate(timeout=180)[0].split()[0]
    assert program.returncode == -signal.SIGKILL
    (cursor,) = (tmp_path / "out" / "asynccb").glob("*/cursors/MLflowCallback.cursor")
    eventually(lambda: load_cursor(cursor).finished, 60.0)
    (run,) = reader.runs("e")
    assert (run["info"]["run_id"], run["info"]["status"]) == (active, "RUNNING")
    assert [(step, value) for step, value, _ in reader.points(active, "loss")] == LOSS


def test_a_new_companion_goes_on_in_the_active_run_and_does_not_end_it(tmp_path: Path) -> None:
    reader = database(tmp_path)
    active, said = train("ours", "restarted", reader.uri)  # which looks at the status
    assert "it is started again" in said
    (run,) = reader.runs("e")
    assert (run["info"]["run_id"], run["info"]["status"]) == (active, "FINISHED")
    assert [(step, value) for step, value, _ in reader.points(active, "loss")] == LOSS
