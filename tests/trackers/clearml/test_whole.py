"""Whole runs with the ClearML tracker: a flood of steps, a Trainer, stops, and resumption."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._cli import main
from tests.support.regression import train
from tests.support.running import running
from tests.support.waiting import eventually
from tests.trackers.clearml.server import ClearMLServer
from tests.trackers.scripted import Answer
from tests.trackers.trainings import falling, flood, go_on, logged


def counts(run: asynccb.CallbackDispatcher) -> Any:
    return run.statistics().callbacks["ClearMLCallback"]


def test_twenty_thousand_steps_in_ten_seconds_arrive_complete_and_within_the_limits(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    begin = time.monotonic()
    flood(asynccb.ClearMLCallback(), tmp_path / "runs")
    task = clearml.tasks.only()
    for name in ("loss", "accuracy", "lr"):
        assert len(task.series("train", name)) == 20_000
    assert task.series("train", "loss") == falling(20_000)
    order = [place[2] for place in task.scalars if place[1] == "loss"]
    assert order == sorted(order)
    assert (task.status, task.resent, clearml.problems) == ("completed", 0, [])
    assert max(clearml.sizes) < 15_728_640
    assert len(clearml.sizes) < 10 + (time.monotonic() - begin)  # one each two seconds


def test_faults_that_pass_cost_no_value(clearml: ClearMLServer, tmp_path: Path) -> None:
    left = [
        Answer(429, b"slow", {"Retry-After": "1"}),
        Answer(503, b"maintenance"),
        Answer(200, b"<html>please log in</html>"),
    ]
    seen = 0

    def misbehave(request: Any) -> Answer | None:
        nonlocal seen
        if not request.target.endswith("add_batch"):
            return None
        seen += 1
        return left.pop(0) if seen > 1 and left else None

    clearml.faults = misbehave
    with running(asynccb.ClearMLCallback(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        for step in range(1, 101):
            run.step(logs={"loss": 1 / step})
            if step == 50:
                assert run.flush(30)
        run.emit("on_train_end")
        run.close(timeout=60.0)
    assert left == []
    assert clearml.tasks.only().series("train", "loss") == falling(100)
    assert clearml.tasks.only().status == "completed"
    assert counts(run).rejected == 0


def test_somebody_who_aborts_the_task_stops_the_training_at_a_step(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text("sdk.development.worker { report_period_sec: 0.2, ping_period_sec: 0.2 }")
    with running(asynccb.ClearMLCallback(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        assert run.flush(30)
        task = clearml.tasks.only()
        eventually(lambda: task.pings >= 2)
        assert not run.step(logs={"loss": 1.0}).should_training_stop
        task.fields |= {"status": "stopped", "status_message": "Stopped by ada"}

        def step() -> bool:
            return bool(run.step(logs={"loss": 1.0}).should_training_stop)

        eventually(step, 30.0)
        run.emit("on_train_end")
    assert task.status == "stopped"
    assert counts(run).failed == 0


def test_a_trainer_logs_what_the_variables_of_transformers_ask_for(
    clearml: ClearMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARML_PROJECT", "team/proj")
    monkeypatch.setenv("CLEARML_TASK", "whole")
    monkeypatch.setenv("CLEARML_LOG_MODEL", "true")
    results = tmp_path / "results"
    results.mkdir()
    (results / "notes.txt").write_text("done")
    trainer = train(
        tmp_path / "out",
        asynccb.ClearMLCallback(artifacts=results, console=True),
        max_steps=6,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=2,
        save_total_limit=2,
    )
    task = clearml.tasks.only()
    assert clearml.problems == []
    assert (task.status, task.fields["name"]) == ("completed", "whole")
    assert list(clearml.tasks.projects.values()) == ["team/proj"]
    assert task.series("train", "loss") == logged(trainer)
    assert [step for step, _ in task.series("eval", "loss")] == [3, 6]
    summary = {
        name: value for (title, name, _), value in task.scalars.items() if title == "Summary"
    }
    assert summary["train_loss"] == trainer.state.log_history[-1]["train_loss"]
    assert summary.keys() >= {"train_runtime", "epoch"}
    parameters = task.parameters("Transformers")
    assert parameters["max_steps"] == "6"
    assert "hub_token" not in parameters
    models = [model["name"] for model in clearml.tasks.models.values()]
    assert models == ["checkpoint-4", "checkpoint-6"]
    assert any("/models/checkpoint-6.zip" in path for path in clearml.files)
    assert [a["key"] for a in task.fields["execution"]["artifacts"]] == ["notes.txt"]
    assert any("'train_runtime'" in line["msg"] for line in task.logs)


def test_credentials_that_are_refused_cost_telemetry_and_not_the_run(
    clearml: ClearMLServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right, clearml.secret = clearml.secret, "another"
    with running(asynccb.ClearMLCallback(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        eventually(lambda: counts(run).disabled)
    assert "CLEARML_API_ACCESS_KEY" in caplog.text
    clearml.secret = right
    assert main(["sync", str(tmp_path / "runs")]) == 0
    assert clearml.tasks.only().series("train", "loss") == falling(1)


# -- resumption ----------------------------------------------------------------------------------


def check(clearml: ClearMLServer, trainer: asynccb.Trainer) -> None:
    task = clearml.tasks.only()
    assert (task.status, clearml.problems) == ("completed", [])
    assert task.series("train", "loss") == logged(trainer)


def test_a_training_resumed_from_an_early_checkpoint_goes_on_with_its_task(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    check(clearml, go_on(tmp_path / "out", asynccb.ClearMLCallback()))
    check(clearml, go_on(tmp_path / "out", asynccb.ClearMLCallback(), resume=5))
    task = clearml.tasks.only()
    assert task.transitions == ["in_progress", "completed"] * 2


def test_without_the_folder_of_the_first_training_its_task_is_found_all_the_same(
    clearml: ClearMLServer, tmp_path: Path
) -> None:
    go_on(tmp_path / "out", asynccb.ClearMLCallback())
    shutil.rmtree(tmp_path / "out" / "asynccb")
    check(clearml, go_on(tmp_path / "out", asynccb.ClearMLCallback(), max_steps=24))
