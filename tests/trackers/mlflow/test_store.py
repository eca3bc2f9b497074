"""The MLflow tracker over MLflow's own stores on this machine."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.mlflow import MLflowCallback
from tests.support.launching import environment, launch
from tests.trackers.lane import START, description, kept, logging, play, training
from tests.trackers.mlflow.runs import deliver, expected, revived, run_id
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.mlflow.stores import StoreReader, database, folder_store

pytestmark = pytest.mark.usefixtures("mlflow_environment")

Make = Callable[..., MLflowCallback]


@pytest.fixture(params=[database, folder_store])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StoreReader:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    reader: StoreReader = request.param(tmp_path)
    return reader


@pytest.fixture
async def make(store: StoreReader) -> AsyncIterator[Make]:
    """Make trackers of one store, and close them in the end."""
    made: list[MLflowCallback] = []

    def tracker(run: RunDescription | None = None, **settings: Any) -> MLflowCallback:
        made.append(MLflowCallback(tracking_uri=store.uri, **{"experiment_name": "e", **settings}))
        made[-1].describe(run or description())
        return made[-1]

    yield tracker
    for each in made:
        await each.close()


async def test_every_point_is_there_once_whatever_is_replayed(
    make: Make, store: StoreReader
) -> None:
    described, records = description(), training(1501)
    first = make(described)
    never_delivered = first.state()
    run = await deliver(first, records)
    again = revived(never_delivered, described)
    assert await deliver(again, [*records, *logging(40, first=1502)]) == run
    for key in ("loss", "learning_rate"):
        assert store.points(run, key) == expected([*records, *logging(40, first=1502)], key)
    assert len(store.runs("e")) == 1


@pytest.mark.parametrize(
    ("status", "state"), [("finished", "FINISHED"), ("crashed", "FAILED"), ("killed", "KILLED")]
)
async def test_a_run_has_its_name_params_tags_times_and_end(
    make: Make, store: StoreReader, status: RunStatus, state: str
) -> None:
    tracker = make(description(run_name="first"), tags={"team": "vision"})
    await deliver(tracker, training(1))
    tracker.time = START + 77_000_000_000
    await tracker.finish(status)
    (run,) = store.runs("e")
    assert (run["info"]["run_name"], run["info"]["status"]) == ("first", state)
    begin = START // 1_000_000
    assert (run["info"]["start_time"], run["info"]["end_time"]) == (begin, begin + 77_000)
    assert run["data"]["params"]["learning_rate"] == "0.0005"
    assert run["data"]["tags"]["team"] == "vision"
    assert run["data"]["tags"]["mlflow.user"] == "ada"


async def test_a_parameter_that_has_another_value_is_skipped_alone(
    make: Make, store: StoreReader
) -> None:
    run = await deliver(make(description(a=1, b=2, c=3)), training(1))
    again = make(description(a=1, b="changed", c=3, d=4), run_id=run)
    assert await deliver(again, training(1, first=2)) == run
    assert again.rejected == 1
    params = store.runs("e")[0]["data"]["params"]
    assert [params[key] for key in "abcd"] == ["1", "2", "3", "4"]


async def test_a_nested_run_is_a_child_of_the_given_one(make: Make, store: StoreReader) -> None:
    parent = await deliver(make(), training(1))
    child = await deliver(make(run_id=parent, nested_run=True, experiment_name=None), training(1))
    runs = {run["info"]["run_id"]: run["data"]["tags"] for run in store.runs("e")}
    assert runs[child]["mlflow.parentRunId"] == parent


async def test_runs_and_experiments_that_are_gone_are_access_errors(
    make: Make, store: StoreReader
) -> None:
    with pytest.raises(AccessError, match="f00d cannot be continued"):
        await deliver(make(run_id="f00d" * 8), training(1))
    run = await deliver(make(), training(1))
    client = store.client()
    client.delete_run(run)
    with pytest.raises(AccessError, match=f"mlflow runs restore --run-id {run}"):
        await deliver(make(run_id=run), training(1))
    client.delete_experiment(client.get_experiment_by_name("e").experiment_id)
    with pytest.raises(AccessError, match="mlflow experiments restore"):
        await deliver(make(), training(1))


async def test_files_and_what_is_written_go_to_the_training_s_folder_wherever_they_are_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, described = MLflowCallback(log_artifacts=True, experiment_name="e"), description()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tracker = revived(made.state(), described)
    run = await deliver(tracker, training(1))
    folder = await kept(tracker, tmp_path, 3, {"model.bin": b"x" * 100, "sub__config.json": b"{}"})
    await tracker.upload(folder)
    assert tracker.rejected == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    info = database(tmp_path).runs("e")[0]["info"]
    assert (
        Path(info["artifact_uri"])
        == tmp_path / "mlruns" / info["experiment_id"] / run / "artifacts"
    )
    checkpoint = Path(info["artifact_uri"], "checkpoint-3")
    assert (checkpoint / "model.bin").read_bytes() == b"x" * 100
    assert (checkpoint / "sub" / "config.json").read_bytes() == b"{}"


async def test_a_database_that_another_process_has_locked_is_written_when_it_is_free(
    tmp_path: Path,
) -> None:
    reader = database(tmp_path)
    tracker = MLflowCallback(experiment_name="e")
    tracker.describe(description())
    await deliver(tracker, training(1))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        await play(tracker, logging(1, first=2))
        with pytest.raises(TransientError, match="database is locked"):  # after MLflow's 20 s
            await tracker.flush()
        other.rollback()
    await tracker.flush()
    assert [step for step, _, _ in reader.points(run_id(tracker), "loss")] == [1, 2]


async def test_what_is_no_database_is_an_access_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tracker = MLflowCallback(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db")
    tracker.describe(description())
    with pytest.raises(AccessError, match="cannot be opened"):
        await deliver(tracker, training(1))


def test_trainings_that_begin_together_share_a_new_database(tmp_path: Path) -> None:
    reader = database(tmp_path)
    programs = [
        launch(
            *("emit_to", "MLflowCallback", tmp_path / "runs", 20, '{"experiment_name": "e"}'),
            env=environment() | {"MLFLOW_TRACKING_URI": reader.uri},
            stderr=subprocess.DEVNULL,
        )
        for _ in range(3)
    ]
    for program in programs:
        with program:
            program.communicate(timeout=180)
    found = reader.values("e")
    assert [status.partition("#")[0] for status in found] == ["FINISHED"] * 3
    for points in found.values():
        assert [step for step, _, _ in points] == list(range(1, 21))
    assert list(tmp_path.glob(".mlflow*")) == []


TRAIN = """
import sys, asynccb
with asynccb.CallbackDispatcher([asynccb.MLflowCallback()], max_steps=3) as run:
    for step in range(3):
        run.step(logs={"loss": 1.0})
print(sorted({"mlflow", "sqlalchemy"} & set(sys.modules)))
"""


def test_mlflow_s_own_server_shows_the_store_and_the_training_never_imports_mlflow(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        env=environment() | {"MLFLOW_TRACKING_URI": "sqlite:///db.sqlite"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert f"sqlite:///{tmp_path}/db.sqlite" in done.stderr
    with closing(RealMLflow(tmp_path)) as server:  # over the same file
        server.start()
        (run,) = server.runs("Default")
        assert run["info"]["status"] == "FINISHED"
        assert [step for step, _, _ in server.points(run["info"]["run_id"], "loss")] == [1, 2, 3]
