"""Values that a real MLflow server would refuse, or show differently at each run."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import asynccb
from asynccb.trackers.mlflow import MLflowCallback
from asynccb.trackers.tensorboard import TensorBoardCallback
from tests.support.callbacks_for_tests import FileTracker, read_lines
from tests.trackers.mlflow.server import RealMLflow


class Odd:
    pass


class Model(torch.nn.Linear):
    config: dict[str, Any]


@pytest.fixture
def tracker(
    mlflow_server: RealMLflow, mlflow_environment: None, request: pytest.FixtureRequest
) -> MLflowCallback:
    return MLflowCallback(tracking_uri=mlflow_server.uri, experiment_name=request.node.name)


def run_of(server: RealMLflow, experiment: str) -> str:
    (found,) = server.runs(experiment)
    return str(found["info"]["run_id"])


def test_no_parameter_has_an_address(
    tracker: MLflowCallback,
    mlflow_server: RealMLflow,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    model = Model(1, 1)
    model.config = {
        "object": Odd(),
        "list": [Odd(), threading.Lock()],
        "partial": functools.partial(Odd().__init__, 1),
        "method": Odd().__repr__,
        "text": f"made by {Odd()!r}",
        "address": "0x7f00 at 0x7f00",
    }
    args = asynccb.TrainingArguments(str(tmp_path / "out"))
    with asynccb.CallbackDispatcher(
        [tracker], args=args, model=model, directory=tmp_path / "runs"
    ) as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
    parameters = mlflow_server.params(run_of(mlflow_server, request.node.name))
    assert parameters["object"] == f"<{__name__}.Odd object>"
    assert parameters["address"] == "0x7f00 at 0x7f00"
    assert parameters["text"] == f"made by <{__name__}.Odd object>"
    assert not [text for text in parameters.values() if "t at 0x" in text]


@pytest.mark.parametrize("ends_there", [False, True], ids=["goes back", "ends there"])
def test_a_step_that_is_too_large_is_refused_by_name_and_alone(
    tracker: MLflowCallback,
    mlflow_server: RealMLflow,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    ends_there: bool,
) -> None:
    board = TensorBoardCallback(logging_dir=str(tmp_path / "board"))
    holds_any = FileTracker(str(tmp_path / "file"))
    trackers = [tracker, board, holds_any]
    with asynccb.CallbackDispatcher(trackers, directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        run.state.global_step = 2**63 - 2
        run.step(logs={"loss": 2.0})
        run.step(logs={"loss": 3.0})  # at 2**63
        if not ends_there:
            run.state.global_step = 2**63 - 2
            run.step(logs={"loss": 4.0})
        assert run.flush(20.0)
        counts = run.statistics().callbacks
    expected = [(1, 1.0), (2**63 - 1, 2.0)] + ([] if ends_there else [(2**63 - 1, 4.0)])
    experiment = run_of(mlflow_server, request.node.name)
    points = [(step, value) for step, value, _ in mlflow_server.points(experiment, "loss")]
    assert sorted(points) == sorted(expected)
    assert mlflow_server.run(experiment)["info"]["status"] == "FINISHED"
    seen = []
    for file in sorted((tmp_path / "board").rglob("events*")):
        reader = EventAccumulator(str(file))
        reader.Reload()
        if "train/loss" in reader.Tags()["scalars"]:
            seen += [(event.step, event.value) for event in reader.Scalars("train/loss")]
    assert seen == expected
    lines = [line for line in read_lines(tmp_path / "file") if "step" in line]
    assert [line["step"] for line in lines][:3] == [1, 2**63 - 1, 2**63]
    for name in ("MLflowCallback", "TensorBoardCallback"):
        assert (counts[name].rejected, counts[name].failed, counts[name].retried) == (1, 0, 0)
    assert counts["FileTracker"].rejected == 0


def test_a_step_that_no_record_holds_is_dropped_alone_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = FileTracker(str(tmp_path / "file"))
    with asynccb.CallbackDispatcher([tracker], directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        run.state.global_step = 2**64 - 1
        run.step(logs={"loss": 1.0})
        run.state.global_step = 1
        run.step(logs={"loss": 2.0})
    assert [line["step"] for line in read_lines(tmp_path / "file") if "step" in line] == [2]
    assert f"the step {2**64} is outside the 64 bits of a record" in caplog.text
