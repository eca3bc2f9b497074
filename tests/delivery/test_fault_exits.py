"""A close in the middle of each fault: it is over in time, and a sync delivers all afterwards."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import asynccb
from asynccb._cli import main
from tests.support.waiting import PROMPT, eventually
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.scripted import (
    Answer,
    CutError,
    Request,
    Script,
    certificate,
    forward,
    in_turn,
    serving,
    silence,
)

pytestmark = pytest.mark.usefixtures("mlflow_environment")

STEPS = 50
PAGE = b"<html>Please log in</html>"
FAULTS: dict[str, Script] = {
    "no answer": silence,
    "a byte a second": in_turn(Answer(200, b"{}" * 100, pause=1.0)),
    "connections that are cut": in_turn(CutError),
    "429 for an hour": in_turn(Answer(429, b"slow down", {"Retry-After": "3600"})),
    "500": in_turn(Answer(500, PAGE)),
    "503 for an hour": in_turn(Answer(503, PAGE, {"Retry-After": "3600"})),
    "a login page": in_turn(Answer(200, PAGE)),
    "403": in_turn(Answer(403, PAGE)),
}


def train(
    url: str, experiment: str, directory: Path, noticed: Callable[[], bool] | None = None
) -> float:
    """
    Log a few steps and close within a second; return how long that took.

    The close comes when the fault is `noticed`, or after a while.
    """
    tracker = asynccb.MLflowCallback(tracking_uri=url, experiment_name=experiment)
    run = asynccb.CallbackDispatcher([tracker], directory=directory)
    run.emit("on_train_begin")
    for step in range(1, STEPS + 1):
        run.step(logs={"loss": 1 / step})
    if noticed is None:
        run.flush(1.5)  # until it is in the middle of the fault
    else:
        eventually(lambda: run.statistics() and noticed())
    run.emit("on_train_end")
    begin = time.monotonic()
    run.close(1.0)
    return time.monotonic() - begin


def check_all_is_there(server: RealMLflow, experiment: str) -> None:
    (run,) = server.runs(experiment)
    points = server.points(run["info"]["run_id"], "loss")
    assert [step for step, _, _ in points] == list(range(1, STEPS + 1))
    assert run["info"]["status"] == "FINISHED"


@pytest.mark.parametrize("name", FAULTS)
def test_a_close_in_a_fault_ends_in_time_and_a_sync_delivers_all(
    name: str, mlflow_server: RealMLflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def upstream(request: Request) -> Answer:
        return await forward(mlflow_server.uri, request)

    experiment = f"exit: {name}"
    with serving(FAULTS[name]) as server:
        took = train(server.url, experiment, tmp_path)
        assert took < PROMPT  # 1.5 on a machine that does nothing else
        assert "asynccb sync" in capsys.readouterr().err
        server.script = upstream
        assert main(["sync", str(tmp_path)]) == 0
    check_all_is_there(mlflow_server, experiment)


def test_a_certificate_that_is_not_trusted_is_waited_with_and_trusted_by_a_sync(
    mlflow_server: RealMLflow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def upstream(request: Request) -> Answer:
        return await forward(mlflow_server.uri, request)

    file = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with serving(upstream, context) as server:

        def said() -> int:
            return sum("certificate is not trusted" in text for text in caplog.messages)

        took = train(server.url, "certificate", tmp_path / "runs", lambda: said() > 0)
        assert took < PROMPT
        assert said() == 1
        assert server.requests == []
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(file))
        assert main(["sync", str(tmp_path / "runs")]) == 0
    check_all_is_there(mlflow_server, "certificate")
