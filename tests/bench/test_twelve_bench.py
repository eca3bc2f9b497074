"""The bench of all trackers counts every point, and finds what is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))  # its neighbours are found so

import twelve
from _contenders import make_values
from _tracker_host import Opening

STEPS = 3


@pytest.fixture
def as_before() -> Iterator[None]:
    """Undo what work in a process of its own does to torch, and to the environment."""
    threads, variables = torch.get_num_threads(), dict(os.environ)
    yield
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(variables)


OPENING = Opening("clearml", "ClearMLCallback", Path(), {}, {}, "completed", "train/loss", True)
Values = list[tuple[int, str, Any]]


def logged() -> Values:
    return [
        (step, f"train/{name}", value)
        for step in range(1, STEPS + 1)
        for name, value in make_values(step).items()
    ]


def count(values: Values, *runs: str) -> int:
    found = {f"{run}#{number}": values for number, run in enumerate(runs or ("completed",))}
    return twelve.count_points(OPENING, found, STEPS)


def test_all_points_are_counted() -> None:
    assert count([*logged(), (2, "codecarbon/energy", 1.0)]) == 5 * STEPS


def test_a_value_that_is_kept_without_steps_is_the_last_one() -> None:
    others = [value for value in logged() if value[1] != "train/epoch"]
    assert count([*others, (0, "epoch", STEPS / 1000)]) == 4 * STEPS + 1
    with pytest.raises(RuntimeError, match="of epoch, which are not the 1 that"):
        count([*others, (0, "epoch", 0.5)])


def test_a_tracker_that_keeps_no_logs_has_no_points() -> None:
    assert twelve.count_points(replace(OPENING, keeps_logs=False), {}, STEPS) == 0


@pytest.mark.parametrize(
    "values",
    [logged()[1:], [*logged(), logged()[-1]], [(1, "train/loss", 0.0), *logged()[1:]], []],
    ids=["missing", "doubled", "wrong", "none"],
)
def test_a_point_that_is_not_as_it_was_logged_stops_the_bench(values: Values) -> None:
    with pytest.raises(RuntimeError, match=r"clearml has \d+ points of"):
        count(values)


@pytest.mark.parametrize("runs", [("running",), ("completed", "completed")])
def test_a_run_that_is_not_the_only_one_or_not_finished_stops_it(runs: tuple[str, ...]) -> None:
    with pytest.raises(RuntimeError, match="clearml has the runs"):
        count(logged(), *runs)


@pytest.mark.parametrize("per_turn", [4, 2])
def test_a_turn_logs_to_each_tracker_and_reads_everything_back(
    tmp_path: Path, as_before: None, per_turn: int
) -> None:
    training = twelve.Training(
        tmp_path, [], 0.001, steps=4, lead_in=2, per_turn=per_turn, pairs=1, rest=0.01
    )
    turn = training.turn(tmp_path, ["tensorboard", "dvclive"])
    assert turn.trackers == ["tensorboard", "dvclive"]
    assert turn.points == 2 * 5 * 10
    row = twelve.summarize("all", [turn])
    assert row["pairs"] == 1
    assert row["ratio"].median > 0
    assert "TensorBoardCallback" in row["closing"]


def test_what_takes_part_is_what_can_be_read_back() -> None:
    assert twelve.parse([]).contenders == ["nothing", "all"]
    assert {"tensorboard", "mlflow", "wandb", "dvclive"} <= set(twelve.parse([]).trackers)
    with pytest.raises(SystemExit):
        twelve.parse(["--steps", "0"])


def test_blocks_are_whole_turns(capsys: pytest.CaptureFixture[str]) -> None:
    assert twelve.parse(["--steps", "40", "--turn", "20"]).turn == 20
    with pytest.raises(SystemExit):
        twelve.parse(["--steps", "40", "--turn", "30"])
    assert "a multiple of --turn, not 40 and 30" in capsys.readouterr().err
