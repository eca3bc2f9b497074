"""A run's folder of version 0.1.0, from before the modules moved into rooms, can be delivered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asynccb._cli import main
from asynccb.testing import RecordingTracker
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.wandb.server import WandbServer

STORED = Path(__file__).parent / "run_of_0_1_0"
"""40 steps, journaled offline for MLflow, W&B and a `RecordingTracker`."""
LOSSES = [1 / step for step in range(1, 41)]


@pytest.fixture
def old_run(tmp_path: Path, wandb: WandbServer, mlflow_server: RealMLflow) -> Path:
    """Return a copy of the folder, with the addresses of this test's servers in it."""
    folder = tmp_path / "asynccb" / "old"
    shutil.copytree(STORED, folder)
    description = (folder / "run.json").read_text()
    addresses = {"http://127.0.0.1:5000": mlflow_server.uri, "http://127.0.0.1:8080": wandb.url}
    for stored, real in addresses.items():
        assert stored in description
        description = description.replace(stored, real)
    (folder / "run.json").write_text(description)
    return folder


@pytest.mark.usefixtures("mlflow_environment")
def test_sync_delivers_the_run_to_all_three_trackers(
    old_run: Path, wandb: WandbServer, mlflow_server: RealMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = json.loads((old_run / "run.json").read_text())["key"]
    monkeypatch.chdir(old_run.parent)  # the recording tracker's path is relative

    assert main(["sync", str(old_run)]) == 0

    (run,) = mlflow_server.runs("moved")
    assert {"key": "asynccb.run_key", "value": key} in run["data"]["tags"]
    assert run["info"]["status"] == "FINISHED"
    points = mlflow_server.points(run["info"]["run_id"], "loss")
    assert [(step, value) for step, value, _ in points] == list(enumerate(LOSSES, 1))

    assert [line["train/loss"] for line in wandb.run("moved").history] == LOSSES

    recorded = RecordingTracker("recorded.jsonl")
    assert [one.values["logs"]["loss"] for one in recorded.recorded("on_log")] == LOSSES
    assert recorded.status() == "finished"
