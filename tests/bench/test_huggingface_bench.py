"""The bench of `transformers.Trainer` runs and writes what readers expect; no time is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.test_benches import assert_described, assert_figures, run_bench, table
from tests.trackers.mlflow.server import RealMLflow


@pytest.mark.parametrize("turn", ["2", "4"], ids=["woven", "in blocks"])
def test_huggingface_prints_and_writes_each_contender(
    turn: str, tmp_path: Path, mlflow_server: RealMLflow
) -> None:
    path = tmp_path / "huggingface.json"
    sizes = ("--rounds", "1", "--pairs", "1", "--steps", "4", "--lead-in", "2", "--turn", turn)
    server = ("--mlflow", mlflow_server.uri)
    contenders = ["nothing", "asynccb"]

    done = run_bench(
        "huggingface", *sizes, *server, "--json", str(path), "--contenders", *contenders
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert_described(result, "huggingface")
    assert [row["contender"] for row in result["rows"]] == contenders
    assert [cells[0] for cells in table(done.stdout)] == contenders
    assert [row["points"] for row in result["rows"]] == [0, 12]
    for row in result["rows"]:
        assert_figures([value for value in row.values() if isinstance(value, dict)])
