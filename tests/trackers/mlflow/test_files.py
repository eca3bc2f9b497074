"""Checkpoints on their way to MLflow's artifact stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asynccb._ground.events import Event
from asynccb._ground.exceptions import TransientError
from asynccb._journal.uploads import Kept, Spool
from asynccb._state.snapshot import snapshot
from asynccb._state.trainer_state import TrainerState
from asynccb.delivery.client import Client
from asynccb.trackers.mlflow import MLflowCallback
from asynccb.trackers.mlflow.files import (
    ProxyStore,
    SharedDiskStore,
    UnusableStoreError,
    find_store,
)
from tests.trackers.lane import description, training
from tests.trackers.mlflow.runs import deliver, run_id
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.scripted import Answer, CutError, Request, forward, scripted

pytestmark = pytest.mark.usefixtures("mlflow_environment")

FILES = {
    "model.safetensors": bytes(range(256)) * 8192,
    "trainer_state.json": b"{}",
    "empty": b"",
    "sub folder/ä #1 100%.txt": b"odd",
}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / "out" / "checkpoint-2" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "out"


def saving(uri: str, output: Path, name: str) -> MLflowCallback:
    tracker = MLflowCallback(tracking_uri=uri, experiment_name=name, log_artifacts=True)
    tracker.describe(description(output_dir=str(output)))
    return tracker


async def save(tracker: MLflowCallback, folder: Path, step: int) -> Kept:
    """Keep a checkpoint and upload it, as the companion does."""
    spool = Spool(folder / "uploads" / "mlflow")
    state = snapshot(TrainerState(global_step=step))
    found = tracker.files(Event.SAVE, tracker.run.args, state)
    assert found is not None
    await spool.keep(1, step, found)
    kept = await spool.first()
    await tracker.upload(kept)
    return kept


def stored(server: RealMLflow, tracker: MLflowCallback) -> dict[str, bytes]:
    """Return the files that the server holds below the run's artifacts."""
    uri = server.run(run_id(tracker))["info"]["artifact_uri"]
    root = server.folder / "artifacts" / uri.removeprefix("mlflow-artifacts:/")
    return {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file()
    }


def named(prefix: str) -> dict[str, bytes]:
    return {f"{prefix}/{k.replace('#', '_').replace('%', '_')}": v for k, v in FILES.items()}


async def test_a_checkpoint_arrives_file_by_file_through_the_server(
    mlflow_server: RealMLflow, output: Path, tmp_path: Path
) -> None:
    tracker = saving(mlflow_server.uri, output, "artifacts")
    kept = await save(tracker, tmp_path, 2)
    await tracker.close()
    assert stored(mlflow_server, tracker) == named("checkpoint-2")
    assert tracker.rejected == 0
    assert kept.pending() == []


def test_no_checkpoint_is_wanted_unless_it_is_asked_for(output: Path) -> None:
    assert list(MLflowCallback(tracking_uri="http://host").uploads) == []
    assert list(saving("http://host", output, "x").uploads) == [Event.SAVE]


async def test_an_upload_goes_on_with_the_file_at_which_it_was_cut(
    mlflow_server: RealMLflow, output: Path, tmp_path: Path
) -> None:
    async def cut_second_upload(request: Request) -> Answer:
        uploads.append(request.target) if request.method == "PUT" else None
        if request.method == "PUT" and len(uploads) == 2:
            raise CutError
        return await forward(mlflow_server.uri, request)

    uploads: list[str] = []
    async with scripted(cut_second_upload) as front:
        tracker = saving(front.url, output, "cut upload")
        with pytest.raises(TransientError):
            await save(tracker, tmp_path, 2)
        spool = Spool(tmp_path / "uploads" / "mlflow")  # as a new companion would
        await spool.open()
        await tracker.upload(await spool.first())
        await tracker.close()
    assert len(uploads) == len(FILES) + 1
    assert uploads[1] == uploads[2]
    assert stored(mlflow_server, tracker) == named("checkpoint-2")


def test_a_run_without_an_output_directory_has_no_checkpoint_to_upload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = saving("http://host", Path(), "x")
    tracker.describe(description())
    state = snapshot(TrainerState(global_step=2))
    assert tracker.files(Event.SAVE, tracker.run.args, state) is None
    assert tracker.rejected == 1
    assert "no output_dir" in caplog.text


async def test_a_checkpoint_is_copied_where_the_server_shares_the_disk(
    mlflow_server: RealMLflow, output: Path, tmp_path: Path
) -> None:
    tracker = saving(mlflow_server.uri, output, "shared disk")
    mlflow_server.call(
        "POST",
        "experiments/create",
        json={"name": "shared disk", "artifact_location": (tmp_path / "share d").as_uri()},
    )
    await save(tracker, tmp_path, 2)
    await tracker.close()
    assert tracker.rejected == 0
    root = tmp_path / "share d" / run_id(tracker) / "artifacts" / "checkpoint-2"
    assert {f.relative_to(root).as_posix() for f in root.rglob("*") if f.is_file()} == set(FILES)


async def test_a_store_out_of_reach_rejects_the_checkpoint_with_what_to_do(
    mlflow_server: RealMLflow, output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow_server.call(
        "POST",
        "experiments/create",
        json={"name": "in a bucket", "artifact_location": "s3://bucket/x"},
    )
    tracker = saving(mlflow_server.uri, output, "in a bucket")
    run = await deliver(tracker, training(2))
    await save(tracker, tmp_path, 2)
    await tracker.close()
    assert tracker.rejected == len(FILES)
    assert caplog.text.count("s3://bucket/x") == 1
    assert "--artifacts-destination" in caplog.text
    assert len(mlflow_server.points(run, "loss")) == 2


async def test_a_file_that_the_server_refuses_is_rejected_alone(
    mlflow_server: RealMLflow, output: Path, tmp_path: Path
) -> None:
    async def refuse_one(request: Request) -> Answer:
        if request.target.endswith("/empty"):
            return Answer(400, json.dumps({"error_code": "INVALID_PARAMETER_VALUE"}).encode())
        return await forward(mlflow_server.uri, request)

    async with scripted(refuse_one) as front:
        tracker = saving(front.url, output, "one refused")
        await save(tracker, tmp_path, 2)
        await tracker.close()
    assert tracker.rejected == 1
    assert stored(mlflow_server, tracker).keys() == named("checkpoint-2").keys() - {
        "checkpoint-2/empty"
    }


def test_a_local_path_counts_as_shared_only_where_it_is_mounted(tmp_path: Path) -> None:
    near, far = Client("http://127.0.0.1:5000"), Client("http://tracker.example")
    mounted = f"{tmp_path}/1/abc/artifacts"
    elsewhere = "/no/such/root/1/abc/artifacts"
    assert isinstance(find_store(near, elsewhere), SharedDiskStore)
    assert isinstance(find_store(far, mounted), SharedDiskStore)
    assert isinstance(find_store(far, "mlflow-artifacts:/1/abc/artifacts"), ProxyStore)
    assert isinstance(find_store(far, "mlflow-artifacts://tracker.example/1"), ProxyStore)
    for uri in (elsewhere, "mlflow-artifacts://other.example/1", "gs://bucket/1", "file://nas/x"):
        with pytest.raises(UnusableStoreError, match="out of our reach"):
            find_store(far, uri)
