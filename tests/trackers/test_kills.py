"""
Trainer, companion and both killed while a tracker is told, whatever its server.

CodeCarbon and Flyte, which keep no points of a log, have kills in tests of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asynccb.trackers.wandb.values import STEP
from tests.faults.kills import STEPS, Target, ended_in, kill_many
from tests.trackers.azure_ml.rules import AzureML
from tests.trackers.clearml.server import ClearMLServer
from tests.trackers.comet_ml.server import CometServer
from tests.trackers.contract_cases import workspace_address
from tests.trackers.dagshub.rules import DagsHub
from tests.trackers.dvclive.studio import TOKEN as STUDIO_TOKEN
from tests.trackers.dvclive.studio import studio_server
from tests.trackers.dvclive.written import studio_rows, tables
from tests.trackers.front import fronting
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.mlflow.stores import StoreReader, database, folder_store
from tests.trackers.scripted import certificate, serving_with
from tests.trackers.swanlab.server import SwanLabServer
from tests.trackers.trackio.server import WRITE_TOKEN, RealTrackio
from tests.trackers.wandb.server import WandbServer

TOKEN = "token-of-the-server"


@pytest.fixture
def trackio(trackio_server: RealTrackio, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", WRITE_TOKEN)
    monkeypatch.setenv("TRACKIO_SERVER_URL", trackio_server.url)

    def ended(project: str) -> tuple[str, list[tuple[int, float]]] | None:
        for run in trackio_server.runs(project):
            alerts = trackio_server.alerts(project, run["id"])
            values = trackio_server.call(
                "get_metric_values",
                project=project,
                run=None,
                run_id=run["id"],
                metric_name="train/loss",
            )
            points = [(value["step"], value["value"]) for value in values]
            if alerts or len(points) == STEPS:  # nothing else says that a run is over
                return (alerts[0]["title"] if alerts else "finished"), points
        return None

    return Target(
        "TrackioCallback", lambda name: {"project": name}, ended, "finished", "Run crashed"
    )


@pytest.fixture
def mlflow_database(tmp_path: Path) -> Target:
    return _store_target(database(tmp_path))


@pytest.fixture
def mlflow_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return _store_target(folder_store(tmp_path))


def _store_target(store: StoreReader) -> Target:
    return Target(
        "MLflowCallback",
        lambda name: {"tracking_uri": store.uri, "experiment_name": name},
        lambda name: ended_in(store, name),
    )


@pytest.fixture
def dagshub(mlflow_server: RealMLflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    with fronting(mlflow_server.uri, DagsHub(mlflow_server.uri, TOKEN)) as front:
        monkeypatch.setenv("DAGSHUB_CLIENT_HOST", front.url)
        monkeypatch.setenv("DAGSHUB_USER_TOKEN", TOKEN)
        place = {"repo_owner": "ada", "repo_name": "proj"}
        yield Target(
            "DagsHubCallback",
            lambda name: {**place, "experiment_name": name},
            lambda name: ended_in(mlflow_server, name),
        )


@pytest.fixture
def azure_ml(
    mlflow_server: RealMLflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Target]:
    file = certificate(tmp_path)
    rules = AzureML(mlflow_server.uri, TOKEN)
    with fronting(mlflow_server.uri, rules, serving_with(file)) as front:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace_address(front.url))
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
        yield Target(
            "AzureMLCallback",
            lambda name: {"experiment_name": name},
            lambda name: ended_in(mlflow_server, name),
        )


@pytest.fixture
def to_wandb(wandb: WandbServer) -> Target:
    # Nobody but the server says that a run has crashed: when it has heard nothing for a while.
    wandb.crash_after = 5.0

    def ended(project: str) -> tuple[str, list[tuple[int, float]]] | None:
        for run in wandb.runs.values():
            if run.project == project and run.state != "running":
                lines = run.history
                return run.state, [(line[STEP], line["train/loss"]) for line in lines]
        return None

    return Target("WandbCallback", lambda name: {"project": name}, ended, "finished", "crashed")


@pytest.fixture
def to_comet(comet: CometServer) -> Target:
    def ended(project: str) -> tuple[str, list[tuple[int, float]]] | None:
        for experiment in comet.experiments.values():
            if experiment.project == project and experiment.alive is False:
                return experiment.status, experiment.points("train/loss")
        return None

    return Target(
        "CometCallback", lambda name: {"project_name": name}, ended, "finished", "crashed"
    )


@pytest.fixture
def to_swanlab(swanlab: SwanLabServer) -> Target:
    def ended(project: str) -> tuple[str, list[tuple[int, float]]] | None:
        for run in swanlab.runs.values():
            if run.project == project and run.state != "RUNNING":
                assert run.changed == []  # what is sent again is the same
                return run.state, run.values("train/loss")
        return None

    return Target("SwanLabCallback", lambda name: {"project": name}, ended, "FINISHED", "CRASHED")


@pytest.fixture
def dvclive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Target]:
    """Nothing but Studio hears that a run is over, and it has one word for all ends."""
    with studio_server() as studio:
        monkeypatch.setenv("DVC_STUDIO_URL", studio.url)
        monkeypatch.setenv("DVC_STUDIO_TOKEN", STUDIO_TOKEN)
        monkeypatch.setenv("DVC_STUDIO_REPO_URL", "git@127.0.0.1:ada/proj.git")
        monkeypatch.chdir(tmp_path)

        def ended(name: str) -> tuple[str, list[tuple[int, float]]] | None:
            for (_, _, known), experiment in studio.experiments.items():
                if known == name and experiment.done:
                    points = tables(tmp_path / name)["loss"]
                    assert studio_rows(experiment, name) == {"loss": points}
                    return "done", points
            return None

        arguments = {"dvcyaml": f"{tmp_path}/dvc.yaml"}
        yield Target(
            "DVCLiveCallback",
            lambda name: {**arguments, "dir": str(tmp_path / name), "exp_name": name},
            ended,
            finished="done",
            crashed="done",
        )


@pytest.fixture
def to_clearml(clearml: ClearMLServer) -> Target:
    def ended(project: str) -> tuple[str, list[tuple[int, float]]] | None:
        found = [
            task
            for task in clearml.tasks.tasks.values()
            if clearml.tasks.projects[task.fields["project"]] == project
        ]
        assert len(found) < 2, "two tasks for one training"
        if not found or found[0].status not in ("completed", "failed"):
            return None
        return found[0].status, found[0].series("train", "loss")

    return Target("ClearMLCallback", lambda name: {"project": name}, ended, "completed", "failed")


@pytest.mark.usefixtures("mlflow_environment")
@pytest.mark.parametrize(
    "name",
    [
        "trackio",
        "mlflow_database",
        "mlflow_folder",
        "dagshub",
        "azure_ml",
        "to_wandb",
        "to_clearml",
        "to_comet",
        "dvclive",
        "to_swanlab",
    ],
)
def test_nothing_is_lost_and_nothing_doubled_whoever_is_killed(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    target = request.getfixturevalue(name)
    outcomes = kill_many(target, tmp_path, 5, seed=7, say=print)
    assert [str(outcome) for outcome in outcomes if outcome.trouble] == []
