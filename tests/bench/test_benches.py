"""
The benches run, and say what they measured in the shape that readers expect.

Sizes are tiny and no time is looked at. transformers takes no turn here: it belongs to the `bench`
extra, not to the tests' one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
EMIT_CONTENDERS = (
    "nothing",
    "asynccb, 4 lanes",
    "call_soon_threadsafe",
    "run_coroutine_threadsafe",
)
STEP_CONTENDERS = (
    "nothing",
    "asynccb",
    "SummaryWriter",
    "MLflow asynchronous",
    "MLflow synchronous",
)

sys.path.insert(0, str(ROOT / "bench"))  # scripts find their neighbours in the same way

import _measure  # noqa: E402


def run_bench(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / f"{name}.py"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def assert_figures(figures: list[dict[str, float]]) -> None:
    for figure in figures:
        assert figure["least"] <= figure["median"] <= figure["greatest"]


def assert_described(result: dict[str, Any], bench: str) -> None:
    assert result["bench"] == bench
    assert result["machine"]["cores"] > 0
    assert {"processor", "kernel", "load_before"} < set(result["machine"])
    assert {"python", "asynccb", "torch", "mlflow", "tensorboard"} <= set(result["versions"])
    assert result["settings"]["rounds"] == 1


def table(output: str) -> list[list[str]]:
    """Return the cells of the printed table, without its two head lines."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_emit_prints_and_writes_both_modes_of_every_contender(tmp_path: Path) -> None:
    path = tmp_path / "results" / "emit.json"
    sizes = ("--rounds", "1", "--events", "5", "--lead-in", "3")

    done = run_bench("emit", *sizes, "--json", str(path), "--contenders", *EMIT_CONTENDERS)

    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert_described(result, "emit")
    expected = list(product(("burst", "paced"), EMIT_CONTENDERS))
    assert [(row["mode"], row["contender"]) for row in result["rows"]] == expected
    assert [tuple(cells[:2]) for cells in table(done.stdout)] == expected
    for row in result["rows"]:
        assert list(row["microseconds"]) == ["p50", "p90", "p99", "max"]
        assert_figures(list(row["microseconds"].values()))
        assert row["microseconds"]["p50"]["median"] > 0


def test_step_prints_and_writes_every_contender_in_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    sizes = ("--rounds", "1", "--steps", "6", "--lead-in", "2", "--layout", "split")

    done = run_bench("step", *sizes, "--json", str(path), "--contenders", *STEP_CONTENDERS)

    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert_described(result, "step")
    expected = [("split", contender) for contender in STEP_CONTENDERS]
    assert [(row["layout"], row["contender"]) for row in result["rows"]] == expected
    assert [tuple(cells[:2]) for cells in table(done.stdout)] == expected
    for row in result["rows"]:
        figures = {key: value for key, value in row.items() if isinstance(value, dict)}
        assert set(figures) == {
            "mean_milliseconds",
            "mean_percent",
            "p50_percent",
            "p99_milliseconds",
            "p99_percent",
            "others_cores",
        }
        assert_figures(list(figures.values()))


@pytest.mark.parametrize("bench", ["emit", "step"])
def test_a_bench_refuses_zero_rounds_and_says_so(bench: str) -> None:
    done = run_bench(bench, "--rounds", "0")

    assert done.returncode == 2
    assert "--rounds" in done.stderr.splitlines()[-1]


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_least_value_that_covers_the_share(
    values: list[float], share: float
) -> None:
    found = _measure.percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    below = sum(value < found for value in values)
    assert below < share * len(values) or found == min(values)


def test_contenders_take_turns_in_a_new_order_each_round() -> None:
    turns = _measure.take_turns(["a", "b", "c"], 3, "{}-{}".format)

    assert [result for _, result in turns] == [
        *("a-0", "b-0", "c-0"),
        *("b-1", "c-1", "a-1"),
        *("c-2", "a-2", "b-2"),
    ]
