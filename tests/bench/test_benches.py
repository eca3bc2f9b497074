"""
The benches run, and say what they measured in the shape that readers expect.

Sizes are tiny and no time is looked at. A contender that takes its turn in a process of its own
imports torch there, which is most of what these tests cost: so only some do, and the others take it
in this process. MLflow's clients are among those of `delivery.py`. transformers takes no turn here:
it belongs to the `bench` extra, not to the tests' one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.tensorboard import SummaryWriter

ROOT = Path(__file__).parents[2]
CONTAINED_CONTENDERS = ("nothing", "all three")
EMIT_CONTENDERS = ("nothing", "asynccb, 4 lanes")
LOOPS = ("call_soon_threadsafe", "run_coroutine_threadsafe")
STEP_CONTENDERS = ("nothing", "asynccb", "SummaryWriter")
DECIDING = ("nobody", "lag=1, thread", "lag=0, companion")

sys.path.insert(0, str(ROOT / "bench"))  # scripts find their neighbours in the same way

import _measure  # noqa: E402
import contained  # noqa: E402
import decisions  # noqa: E402
import emit  # noqa: E402
import step  # noqa: E402
from _contenders import Place, make_values  # noqa: E402

from tests.trackers.mlflow.server import RealMLflow  # noqa: E402

PARSERS = {"emit": emit, "step": step, "contained": contained, "decisions": decisions}


@pytest.fixture
def as_many_threads_as_before() -> Iterator[None]:
    """Undo what work in a process of its own does to torch."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


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


def test_emit_prints_and_writes_both_modes_of_every_contender(
    tmp_path: Path, mlflow_server: RealMLflow
) -> None:
    path = tmp_path / "results" / "emit.json"
    sizes = ("--rounds", "1", "--events", "5", "--lead-in", "3", "--mlflow", mlflow_server.uri)

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


@pytest.mark.usefixtures("as_many_threads_as_before")
@pytest.mark.parametrize("name", LOOPS)
def test_emit_times_every_call_to_a_loop_in_a_thread(name: str, tmp_path: Path) -> None:
    spent = emit.Emit(Place(tmp_path, ""), events=5, lead_in=3)(name, 0)

    assert {mode: len(times) for mode, times in spent.items()} == {"burst": 5, "paced": 5}


def test_step_prints_and_writes_every_contender_in_its_layout(
    tmp_path: Path, mlflow_server: RealMLflow
) -> None:
    path = tmp_path / "step.json"
    sizes = ("--rounds", "1", "--steps", "6", "--lead-in", "2", "--layout", "split")
    server = ("--mlflow", mlflow_server.uri)

    done = run_bench("step", *sizes, *server, "--json", str(path), "--contenders", *STEP_CONTENDERS)

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


def test_decisions_prints_and_writes_every_contender(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    sizes = ("--rounds", "1", "--blocks", "2", "--steps", "2", "--milliseconds", "2")

    options = ("--think", "1", "--json", str(path), "--contenders", *DECIDING)
    done = run_bench("decisions", *sizes, *options)

    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert_described(result, "decisions")
    assert [row["contender"] for row in result["rows"]] == list(DECIDING)
    assert [cells[0] for cells in table(done.stdout)] == list(DECIDING)
    for row in result["rows"]:
        figures = {key: value for key, value in row.items() if isinstance(value, dict)}
        assert set(figures) == {"steps_per_second", "slower_percent", "waited_milliseconds"}
        assert_figures(list(figures.values()))


def test_a_bench_that_is_cut_short_leaves_the_rows_of_its_turns() -> None:
    def turns() -> Iterator[tuple[str, int]]:
        yield from [("one", 1), ("two", 5), ("one", 3)]
        raise KeyboardInterrupt

    written: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        _measure.sum_up_turns(
            turns(),
            ["one", "two", "three"],
            lambda name, blocks: {"name": name, "sum": sum(blocks)},
            written.append,
        )

    assert written[-1] == [{"name": "one", "sum": 4}, {"name": "two", "sum": 5}]


@pytest.mark.usefixtures("as_many_threads_as_before")
@pytest.mark.parametrize("name", sorted({*decisions.CONTENDERS} - {*DECIDING}))
def test_decisions_measures_the_other_contenders_too(name: str) -> None:
    turn = decisions.Training(0.002, 0.001, blocks=2, steps=2)(name, 0)

    assert len(turn.pairs) == 2
    if name.startswith("lag=0"):  # with a lag a slow machine's steps leave time enough
        assert turn.waited > 0


def test_contained_prints_and_writes_each_contender_and_names_the_culprits(tmp_path: Path) -> None:
    path = tmp_path / "contained.json"
    sizes = ("--rounds", "1", "--pairs", "2", "--steps", "6", "--lead-in", "2")
    brief = ("--milliseconds", "1", "--sleep", "1.5", "--rest", "0.01")

    done = run_bench(
        "contained", *sizes, *brief, "--json", str(path), "--contenders", *CONTAINED_CONTENDERS
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert_described(result, "contained")
    expected = [("nothing", "running"), ("all three", "running"), ("all three", "blocked")]
    assert [(row["contender"], row["loop"]) for row in result["rows"]] == expected
    assert [tuple(cells[:2]) for cells in table(done.stdout)] == expected
    assert [row["pairs"] for row in result["rows"]] == [2, 1, 1]
    for row in result["rows"]:
        assert_figures([figure for figure in row.values() if isinstance(figure, dict)])
        assert row["ratio"]["median"] > 0
        assert row["points"] == 2 * 2 * (6 + 2) * 5  # sides, pairs, steps, values
    closing = result["rows"][-1]["closing"]
    assert closing in done.stdout
    assert "Raising: 0 delivered, 16 failed" in closing
    assert "Blocking: 1 delivered, 1 stalled" in closing


def write_events(folder: Path, steps: list[int]) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step in steps:
            for name, value in make_values(step).items():
                writer.add_scalar(f"train/{name}", value, step)


def test_contained_counts_the_points_of_a_complete_run(tmp_path: Path) -> None:
    write_events(tmp_path, [1, 2, 3])

    assert contained.count_points(tmp_path, 3) == 3 * 5


@pytest.mark.parametrize("steps", [[1, 3], [1, 2], [1, 2, 2, 3], [1, 2, 3, 4], [1, 3, 2]])
def test_contained_stops_at_points_that_are_not_those_emitted(
    steps: list[int], tmp_path: Path
) -> None:
    write_events(tmp_path, steps)

    with pytest.raises(RuntimeError, match=f"has {5 * len(steps)} points, .* the 15 that"):
        contained.count_points(tmp_path, 3)


@pytest.mark.parametrize("bench", PARSERS)
def test_a_bench_refuses_zero_rounds_and_says_so(
    bench: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        PARSERS[bench].parse(["--rounds", "0"])

    assert error.value.code == 2
    assert "rounds" in capsys.readouterr().err.splitlines()[-1]


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


@pytest.mark.parametrize(
    ("count", "bounds"),
    [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (20, (5, 14)), (100, (39, 60))],
)
def test_the_interval_of_a_median_is_the_one_of_a_sign_test(
    count: int, bounds: tuple[int, int]
) -> None:
    assert _measure.median_interval(range(count)) == bounds


def test_there_is_no_interval_of_no_values() -> None:
    with pytest.raises(ValueError, match="cannot take an interval"):
        _measure.median_interval([])
