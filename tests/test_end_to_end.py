"""Whole runs into a real MLflow server and TensorBoard: point by point, through kill and outage."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import asynccb
from tests.support.launching import launch
from tests.support.running import running
from tests.support.waiting import PROMPT, eventually
from tests.trackers.gate import Gate
from tests.trackers.mlflow.server import RealMLflow

pytestmark = pytest.mark.usefixtures("mlflow_environment")

STEPS = 2000


def only_run(server: RealMLflow, experiment: str) -> dict[str, Any]:
    (run,) = server.runs(experiment)
    return run


def points(server: RealMLflow, run: dict[str, Any], key: str) -> list[tuple[int, float]]:
    found = server.points(run["info"]["run_id"], key)
    return [(step, value) for step, value, _ in found]


def tensorboard_points(directory: Path, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_every_step_of_a_run_is_in_mlflow_and_tensorboard_once(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    args = asynccb.TrainingArguments(output_dir=str(tmp_path), run_name="whole", learning_rate=0.25)
    trackers = [
        asynccb.MLflowCallback(
            tracking_uri=mlflow_server.uri, experiment_name=experiment, tags={"team": "blue"}
        ),
        asynccb.TensorBoardCallback(logging_dir=str(tmp_path / "tensorboard")),
    ]
    with asynccb.CallbackDispatcher(trackers, args=args, max_steps=STEPS) as run:
        while not run.control.should_training_stop:
            step = run.state.global_step + 1
            run.step(logs={"loss": 1 / step, "accuracy": step / STEPS})

    history = run.state.log_history
    found = only_run(mlflow_server, experiment)
    assert len(history) == STEPS
    assert points(mlflow_server, found, "loss") == [(e["step"], e["loss"]) for e in history]
    assert points(mlflow_server, found, "accuracy") == [(e["step"], e["accuracy"]) for e in history]
    assert mlflow_server.params(found["info"]["run_id"])["learning_rate"] == "0.25"
    assert mlflow_server.tags(found["info"]["run_id"])["team"] == "blue"
    assert found["info"]["run_name"] == "whole"
    assert found["info"]["status"] == "FINISHED"
    seen = tensorboard_points(tmp_path / "tensorboard", "train/loss")
    assert [step for step, _ in seen] == [e["step"] for e in history]
    assert [value for _, value in seen] == pytest.approx([e["loss"] for e in history], rel=1e-6)


def test_a_run_killed_at_any_step_is_delivered_to_its_last_event_and_marked_as_failed(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    training = launch("log_until_killed", mlflow_server.uri, experiment, tmp_path)
    assert training.stdout is not None
    last = random.randint(200, 3000)
    emitted = next(step for step in map(int, training.stdout) if step >= last)
    training.kill()
    emitted = max([emitted, *map(int, training.stdout.read().split())])
    training.wait()
    training.stdout.close()

    found = eventually(lambda: ended(mlflow_server, experiment), 60.0)
    assert found["info"]["status"] == "FAILED"
    seen = points(mlflow_server, found, "loss")
    # One more may have been emitted and not been said.
    assert len(seen) - emitted in (0, 1)
    assert seen == [(step, 1 / step) for step in range(1, len(seen) + 1)]
    assert len(tensorboard_points(tmp_path / "tensorboard", "train/accuracy")) == len(seen)


def ended(server: RealMLflow, experiment: str) -> dict[str, Any] | None:
    """Return the experiment's run once it is there and over."""
    names = [found["name"] for found in server.experiments()]
    runs = server.runs(experiment) if experiment in names else []
    return next((run for run in runs if run["info"]["status"] != "RUNNING"), None)


def test_a_server_that_is_away_in_the_middle_of_a_run_ends_up_with_every_point_once(
    mlflow_server: RealMLflow, experiment: str, tmp_path: Path
) -> None:
    tracker = asynccb.MLflowCallback(tracking_uri=mlflow_server.uri, experiment_name=experiment)
    with running(tracker, directory=tmp_path) as run:
        run.emit("on_train_begin")
        for step in range(1, 501):
            run.step(logs={"loss": 1 / step})
        assert run.flush(30)
        mlflow_server.stop()
        for step in range(501, STEPS + 1):
            run.step(logs={"loss": 1 / step})
        eventually(lambda: run.statistics().callbacks["MLflowCallback"].retried >= 2)
        mlflow_server.start()
        run.emit("on_train_end")
        assert run.flush(60)

    found = only_run(mlflow_server, experiment)
    assert points(mlflow_server, found, "loss") == [(n, 1 / n) for n in range(1, STEPS + 1)]
    assert found["info"]["status"] == "FINISHED"


def test_a_server_that_is_away_at_the_end_is_delivered_to_by_the_command_that_close_prints(
    mlflow_server: RealMLflow,
    mlflow_gate: Gate,
    experiment: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from asynccb._cli import main

    tracker = asynccb.MLflowCallback(tracking_uri=mlflow_gate.uri, experiment_name=experiment)
    mlflow_gate.shut()
    run = asynccb.CallbackDispatcher([tracker], directory=tmp_path)
    run.emit("on_train_begin")
    for step in range(1, 101):
        run.step(logs={"loss": 1 / step})
    begin = time.monotonic()
    run.close(timeout=1.5)
    assert time.monotonic() - begin < PROMPT  # 1.5 on a machine that does nothing else
    mlflow_gate.open()
    said = capsys.readouterr().err
    command = said.strip().splitlines()[-1].rpartition("asynccb sync ")[2]

    assert main(["sync", command]) == 0

    found = only_run(mlflow_server, experiment)
    assert points(mlflow_server, found, "loss") == [(n, 1 / n) for n in range(1, 101)]
    assert found["info"]["status"] == "FINISHED"


class Slow(asynccb.TrainerCallback):
    async def on_log(self, args, state, control, **kwargs):
        await anyio.sleep(0.1)


class Raises(asynccb.TrainerCallback):
    async def on_log(self, args, state, control, **kwargs):
        raise RuntimeError("every time")


class Blocks(asynccb.TrainerCallback):
    async def on_train_begin(self, args, state, control, **kwargs):
        time.sleep(1.5)  # noqa: ASYNC251 - blocking is what it is for


def test_callbacks_that_are_slow_raise_or_block_cost_the_trackers_nothing_and_are_named(
    mlflow_server: RealMLflow,
    experiment: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = asynccb.MLflowCallback(tracking_uri=mlflow_server.uri, experiment_name=experiment)
    run = asynccb.CallbackDispatcher([Slow(), Raises(), Blocks(), tracker], directory=tmp_path)
    run.emit("on_train_begin")
    for step in range(1, 501):
        run.step(logs={"loss": 1 / step})
    eventually(lambda: run.statistics().callbacks["Raises"].failed == 500, 30.0)
    run.close(timeout=10.0)

    found = only_run(mlflow_server, experiment)
    assert points(mlflow_server, found, "loss") == [(n, 1 / n) for n in range(1, 501)]
    said = capsys.readouterr().err
    assert "Raises: 0 delivered, 500 failed" in said
    assert "Blocks: 1 delivered, 1 stalled" in said
    assert messages(caplog, "Raises") == ["RuntimeError: every time"]
    assert any("time.sleep" in text or "on_train_begin" in text for text in stalls(caplog))


def messages(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    start = f"{name}: on_log failed: "
    said = [record.getMessage() for record in caplog.records]
    return [m.removeprefix(start).partition(" (said")[0] for m in said if m.startswith(start)]


def stalls(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        r.getMessage() for r in caplog.records if "has blocked the event loop" in r.getMessage()
    ]
