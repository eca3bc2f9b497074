"""Whole runs into a real MLflow server behind one that misbehaves: still every point once."""

from __future__ import annotations

import json
import logging
import shutil
import time
from email.utils import formatdate
from pathlib import Path
from typing import cast

import pytest

import asynccb
from asynccb._cli import main
from asynccb._lanes.counts import LaneCounts
from tests.support.running import running
from tests.support.waiting import eventually
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.scripted import (
    Answer,
    CutError,
    Request,
    Script,
    ScriptedServer,
    forward,
    serving,
    silence,
)

pytestmark = pytest.mark.usefixtures("mlflow_environment")

STEPS = 300


class LostError(Exception):
    """Stands for an answer that is lost behind a request that was obeyed."""


Fault = Answer | type[CutError] | type[LostError] | Script


class Front:
    """Stand before an MLflow server: let two batches pass, then misbehave for a while."""

    def __init__(self, upstream: str, *faults: Fault) -> None:
        self.upstream = upstream
        self.faults = list(faults)
        self.batches = 0

    async def __call__(self, request: Request) -> Answer:
        if b'"metrics"' in request.body:
            self.batches += 1
        if self.batches <= 2 or not self.faults:
            return await forward(self.upstream, request)
        fault = self.faults.pop(0)
        if isinstance(fault, Answer):
            return fault
        if fault is LostError:
            await forward(self.upstream, request)
        if fault in (CutError, LostError):
            raise CutError
        return await cast(Script, fault)(request)


def train(
    front: ScriptedServer, experiment: str, directory: Path, steps: int = STEPS
) -> LaneCounts:
    """Log at every step, in several batches, and close; return what was counted."""
    tracker = asynccb.MLflowCallback(tracking_uri=front.url, experiment_name=experiment)
    with running(tracker, directory=directory) as run:
        run.emit("on_train_begin")
        for step in range(1, steps + 1):
            run.step(logs={"loss": 1 / step})
            if step in (10, 20, 30) or step == steps:
                run.flush(0.1 if step > 20 else 20.0)
        run.emit("on_train_end")
        run.flush(120.0)
    return run.statistics().callbacks["MLflowCallback"]


def check_all_is_there(server: RealMLflow, experiment: str, steps: int = STEPS) -> None:
    (run,) = server.runs(experiment)
    points = server.points(run["info"]["run_id"], "loss")
    assert [(step, value) for step, value, _ in points] == [
        (step, 1 / step) for step in range(1, steps + 1)
    ]
    assert run["info"]["status"] == "FINISHED"


def soon() -> str:
    return formatdate(time.time() + 1.0, usegmt=True)


FAULTS: dict[str, list[Fault]] = {
    "429 storm": [Answer(429, b"slow down", {"Retry-After": "1"})] * 2 + [Answer(429)] * 2,
    "503 until a date": [Answer(503, b"down", {"Retry-After": "DATE"})],
    "500": [Answer(500, b"<html>Internal Server Error</html>")] * 2,
    "502 and 504": [Answer(502), Answer(504)],
    "a login page": [Answer(200, b"<html>Please log in</html>")] * 2,
    "an answer that is cut": [Answer(200, b"{}" * 100, cut_after=9)] * 2,
    "connections that are cut": [CutError] * 3,
    "answers that are lost": [LostError] * 3,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_costs_no_point_and_one_line(
    name: str, mlflow_server: RealMLflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [
        Answer(fault.status, fault.body, {"Retry-After": soon()})
        if isinstance(fault, Answer) and fault.headers.get("Retry-After") == "DATE"
        else fault
        for fault in FAULTS[name]
    ]
    front = Front(mlflow_server.uri, *faults)
    with serving(front) as server, caplog.at_level(logging.WARNING, "asynccb"):
        counts = train(server, f"fault: {name}", tmp_path)
    check_all_is_there(mlflow_server, f"fault: {name}")
    assert front.faults == []
    assert counts.retried >= len(faults)
    assert not counts.disabled
    assert counts.rejected == 0
    said = [text for text in caplog.messages if "tried again" in text]
    causes = {(fault.status if isinstance(fault, Answer) else None) for fault in faults}
    assert 1 <= len(said) <= len(causes)


def test_a_server_that_never_answers_is_left_after_its_time_out(
    mlflow_server: RealMLflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    front = Front(mlflow_server.uri, silence, silence)
    with serving(front) as server:
        counts = train(server, "silence", tmp_path)
    check_all_is_there(mlflow_server, "silence")
    assert counts.retried >= 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_access_ends_the_tracker_with_what_to_do_and_a_sync_delivers(
    status: int,
    mlflow_server: RealMLflow,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = f"refused by {status}"
    front = Front(mlflow_server.uri, *[Answer(status, b"<html>no</html>")] * 100)
    with serving(front) as server:
        with caplog.at_level(logging.WARNING, "asynccb"):
            counts = train(server, experiment, tmp_path)
        assert counts.disabled
        (said,) = [text for text in caplog.messages if f"answered with {status}" in text]
        assert "gives up" in said
        assert "MLFLOW_TRACKING_TOKEN" in said
        assert "asynccb sync" in capsys.readouterr().err
        assert len(front.faults) > 90  # it did not go on asking
        front.faults.clear()
        assert main(["sync", str(tmp_path)]) == 0
    check_all_is_there(mlflow_server, experiment)


def test_a_batch_that_is_too_large_is_halved_until_it_is_not(
    mlflow_server: RealMLflow, tmp_path: Path
) -> None:
    async def small_only(request: Request) -> Answer:
        if len(request.body) > 2000:
            too_large.append(len(request.body))
            return Answer(413, b"<html>Request Entity Too Large</html>")
        return await forward(mlflow_server.uri, request)

    too_large: list[int] = []
    with serving(small_only) as server:
        counts = train(server, "413", tmp_path)
    check_all_is_there(mlflow_server, "413")
    assert too_large
    assert counts.rejected == 0


def test_a_bad_record_is_set_aside_with_the_answer_and_the_others_are_stored(
    mlflow_server: RealMLflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def no_seven(request: Request) -> Answer:
        if b'"step":7}' in request.body:
            return Answer(400, b'{"error_code": "BAD_REQUEST", "message": "no sevens"}')
        return await forward(mlflow_server.uri, request)

    with serving(no_seven) as server, caplog.at_level(logging.WARNING, "asynccb"):
        counts = train(server, "sevens", tmp_path)
    (run,) = mlflow_server.runs("sevens")
    steps = [step for step, _, _ in mlflow_server.points(run["info"]["run_id"], "loss")]
    assert steps == [step for step in range(1, STEPS + 1) if step != 7]
    assert run["info"]["status"] == "FINISHED"
    assert counts.rejected == 1
    (file,) = tmp_path.glob("*/rejected/MLflowCallback.jsonl")
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line["record"]["step"] == 7
    assert "no sevens" in line["why"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert sum("no sevens" in text for text in caplog.messages) == 1


def test_a_record_that_gets_500_for_ever_is_set_aside_and_the_others_are_stored(
    mlflow_server: RealMLflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails_over_seven(request: Request) -> Answer:
        if b'"step":7}' in request.body:
            return Answer(500, b"<html>Internal Server Error</html>")
        return await forward(mlflow_server.uri, request)

    with serving(fails_over_seven) as server, caplog.at_level(logging.WARNING, "asynccb"):
        counts = train(server, "poison", tmp_path)
    (run,) = mlflow_server.runs("poison")
    points = mlflow_server.points(run["info"]["run_id"], "loss")
    assert [step for step, _, _ in points] == [n for n in range(1, STEPS + 1) if n != 7]
    assert run["info"]["status"] == "FINISHED"
    assert counts.rejected == 1
    (file,) = tmp_path.glob("*/rejected/MLflowCallback.jsonl")
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line["record"]["step"] == 7
    assert "500: <html>Internal Server Error</html>" in line["why"]
    assert len(caplog.messages) == 2  # that it is tried again, and that it was given up


def test_an_origin_that_answers_500_to_everything_is_waited_for(
    mlflow_server: RealMLflow, tmp_path: Path
) -> None:
    front = Front(mlflow_server.uri, *[Answer(500, b"oops")] * 14)
    with serving(front) as server:
        counts = train(server, "all fail", tmp_path)
    check_all_is_there(mlflow_server, "all fail")
    assert front.faults == []
    assert counts.rejected == 0


def test_a_checkpoint_of_a_run_is_stored_though_it_was_rotated_away_and_the_way_was_cut(
    mlflow_server: RealMLflow, tmp_path: Path
) -> None:
    async def when_open(request: Request) -> Answer:
        if request.method == "PUT" and not gate.exists():
            return Answer(503, b"no uploads now")
        return await forward(mlflow_server.uri, request)

    gate = tmp_path / "gate"
    runs = tmp_path / "runs"
    args = asynccb.TrainingArguments(output_dir=str(tmp_path))
    with serving(when_open) as server:
        tracker = asynccb.MLflowCallback(
            tracking_uri=server.url, experiment_name="rotated", log_artifacts=True
        )
        with running(tracker, args=args, directory=runs) as run:
            run.emit("on_train_begin")
            run.step(logs={"loss": 1.0})
            (tmp_path / "checkpoint-1").mkdir()
            (tmp_path / "checkpoint-1" / "weights").write_bytes(bytes(3 << 20))
            run.emit("on_save")
            eventually(lambda: list(runs.glob("*/uploads/MLflowCallback/0*[0-9]/files/weights")))
            shutil.rmtree(tmp_path / "checkpoint-1")
            server.cut_bodies = [1 << 20]
            gate.touch()
            run.emit("on_train_end")
            run.close(timeout=30.0)
    (found,) = mlflow_server.runs("rotated")
    root = found["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    stored = mlflow_server.folder / "artifacts" / root / "checkpoint-1" / "weights"
    assert stored.stat().st_size == 3 << 20
    assert found["info"]["status"] == "FINISHED"
