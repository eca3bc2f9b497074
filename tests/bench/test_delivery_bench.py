"""
`bench/delivery.py` runs, counts what arrived, and says so in the shape that readers expect.

Sizes are tiny and no time is looked at.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "bench"))  # scripts find their neighbours in the same way

import _faults  # noqa: E402
import _mlflow_points  # noqa: E402
import _processes  # noqa: E402
import delivery  # noqa: E402
from _contenders import make_values  # noqa: E402
from _faulty_server import faulty_server  # noqa: E402
from _measure import Figure  # noqa: E402
from _mlflow_ways import WAYS  # noqa: E402

from tests.trackers.mlflow.server import RealMLflow  # noqa: E402

FAULTY = (_faults.NO_LOGGING, "503")
"""Contenders with a process of their own here; each has a training beside it that is answered."""


def run_bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "delivery.py"), "--rounds", "1", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def contenders(output: str) -> list[str]:
    """Return the first column of the printed table."""
    return [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")][2:]


def read_result(path: Path, bench: str) -> list[dict[str, Any]]:
    result = json.loads(path.read_text())
    assert result["bench"] == bench
    assert {"processor", "cores", "kernel", "load_before"} <= set(result["machine"])
    assert {"python", "asynccb", "mlflow"} <= set(result["versions"])
    for row in result["rows"]:
        for figure in (value for value in row.values() if isinstance(value, dict)):
            assert figure["least"] <= figure["median"] <= figure["greatest"]
    rows: list[dict[str, Any]] = result["rows"]
    return rows


def log_run(server: RealMLflow, experiment: str, steps: list[int]) -> None:
    made = server.call("POST", "experiments/create", json={"name": experiment})
    body = {"experiment_id": made["experiment_id"]}
    run_id = server.call("POST", "runs/create", json=body)["run"]["info"]["run_id"]
    metrics = [
        {"key": name, "value": value, "step": step, "timestamp": place}
        for place, step in enumerate(steps)
        for name, value in make_values(step).items()
    ]
    server.call("POST", "runs/log-batch", json={"run_id": run_id, "metrics": metrics})


def test_every_contender_delivers_all_its_points_and_gets_a_row(tmp_path: Path) -> None:
    path = tmp_path / "delivery.json"

    done = run_bench("--steps", "10", "--client-steps", "3", "--json", str(path))

    assert done.returncode == 0, done.stderr
    rows = read_result(path, "delivery")
    assert [row["contender"] for row in rows] == contenders(done.stdout) == list(WAYS)
    assert [row["points"] for row in rows] == [50, 15, 15, 50]
    assert all(row["points_per_second"]["least"] > 0 for row in rows)
    assert "8 times the synchronous client's points/s: " in done.stdout


def test_every_fault_gets_a_row_and_none_of_its_points_is_delivered(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    sizes = ("--pairs", "2", "--block", "3", "--lead-in", "2", "--milliseconds", "1")

    done = run_bench("--faults", *FAULTY, *sizes, "--json", str(path))

    assert done.returncode == 0, done.stderr
    rows = read_result(path, "delivery_faults")
    assert [row["contender"] for row in rows] == contenders(done.stdout) == list(FAULTY)
    assert all(row["pairs"] == 2 and row["ratio"]["least"] > 0 for row in rows)
    lost = {row["contender"]: "NOT delivered" in row["closing"] for row in rows}
    assert lost == {name: name in _faults.FAULTS for name in FAULTY}


@pytest.mark.parametrize("name", ["away", "silent"])
def test_a_training_whose_server_does_not_answer_goes_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "asynccb")  # and is put back after what the bench does to it
    threads = torch.get_num_threads()
    try:
        with faulty_server() as addresses:
            training = _faults.Training(tmp_path, addresses, 0.001, steps=3, lead_in=2, pairs=2)
            turn = training(name, 0)
    finally:
        torch.set_num_threads(threads)
    assert len(turn.pairs) == 2
    assert "NOT delivered" in turn.closing


@pytest.mark.parametrize("page", [3, 7, _mlflow_points.PAGE])
def test_all_points_are_read_whatever_a_page_holds(page: int, mlflow_server: RealMLflow) -> None:
    log_run(mlflow_server, f"{page} a page", list(range(1, 8)))

    found = _mlflow_points.read_points(mlflow_server.uri, f"{page} a page", page)

    assert found == _mlflow_points.emitted_points(7)
    assert _mlflow_points.count_points(mlflow_server.uri, f"{page} a page", 7) == 35


def test_points_that_are_not_those_emitted_stop_the_bench(mlflow_server: RealMLflow) -> None:
    for number, steps in enumerate([[1, 3], [1, 2, 2, 3], [1, 2, 3, 4]]):
        log_run(mlflow_server, f"wrong {number}", steps)

        with pytest.raises(RuntimeError, match=f"has {5 * len(steps)} points .* the 15 emitted"):
            _mlflow_points.count_points(mlflow_server.uri, f"wrong {number}", 3)


def test_the_time_of_a_child_is_counted_with_its_parents() -> None:
    code = "while sum(__import__('os').times()[:2]) < 0.2: pass\nprint(flush=True); input()"
    before = _processes.find_children(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()

        assert _processes.find_children(os.getpid()) - before == {child.pid}
        family = _processes.find_family(os.getpid())
        assert {os.getpid(), child.pid} <= family
        assert _processes.spent_seconds({child.pid}) >= 0.19
        child.communicate(b"\n")
    assert _processes.spent_seconds({child.pid}) == 0


def test_goals_are_judged_by_the_medians() -> None:
    def turn(seconds: float, client: float) -> list[delivery.Turn]:
        return [delivery.Turn(100, seconds, client, client, 1.0)]

    sync, other, ours = turn(8.0, 2.0), turn(4.0, 1.0), turn(1.0, 1.5)
    turns = {delivery.SYNCHRONOUS: sync, delivery.CLIENTS[1]: other, "asynccb": ours}

    lines = delivery.judge([delivery.summarize(name, its, sync) for name, its in turns.items()])

    assert [line.rpartition(" ")[2] for line in lines] == ["met", "met", "MISSED"]
    faults = [{"contender": "503", "ratio": Figure(ratio, 0.9, 1.1)} for ratio in (0.99, 0.98)]
    assert [line.rpartition(" ")[2] for line in _faults.judge(faults)] == ["met", "MISSED"]


def test_the_faults_go_to_a_result_of_their_own() -> None:
    assert delivery.parse([]).json.name == "delivery.json"
    assert delivery.parse(["--faults", "503"]).json.name == "delivery_faults.json"


@pytest.mark.parametrize("option", ["--rounds", "--steps", "--client-steps", "--pairs", "--block"])
def test_a_size_of_zero_is_refused_by_name(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        delivery.parse([option, "0"])

    assert error.value.code == 2
    assert option in capsys.readouterr().err.splitlines()[-1]


def test_a_bench_server_behaves_as_each_path_says() -> None:
    import httpx

    with faulty_server() as addresses:
        codes = {
            name: httpx.post(addresses[name], json={}, trust_env=False).status_code
            for name in ("answers", "503", "429")
        }
        assert codes == {"answers": 200, "503": 503, "429": 429}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(addresses["silent"], json={}, trust_env=False, timeout=0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.post(addresses["away"], json={}, trust_env=False)
