"""
What TensorBoard's three readers show of trainings and runs that share a directory.

The readers have three rules. The default server hides the points of a tag from a step on as soon as
that tag goes back to it. With `--load_fast=false` it ignores the first session's start of a
directory and obeys the others. `EventAccumulator` obeys each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest
import torch

import asynccb
from tests.trackers.tensorboard.board import scalars, serving
from tests.trackers.tensorboard.event_files import Lane, describe, files, points, training

Show = Callable[[str, str], list[int]]
"""Returns the steps that a reader shows of a run and a tag."""
DEFAULT, SLOW, ACCUMULATOR = "--load_fast=true", "--load_fast=false", "EventAccumulator"


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.line(x)
        return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}


def train_evaluate_train(directory: Path) -> None:
    args = asynccb.TrainingArguments(
        output_dir=str(directory / "out"),
        max_steps=3,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    data = [{"x": torch.ones(1), "labels": torch.ones(1)} for _ in range(8)]
    tracker = asynccb.TensorBoardCallback(logging_dir=directory / "trainer")
    with asynccb.Trainer(
        Line(), args, train_dataset=data, eval_dataset=data, callbacks=[tracker]
    ) as trainer:
        trainer.train()
        trainer.evaluate()
        trainer.train()


def log_by_hand(directory: Path, *logs: tuple[int, str]) -> None:
    tracker = asynccb.TensorBoardCallback(logging_dir=directory)
    with asynccb.CallbackDispatcher([tracker]) as run:
        for step, name in logs:
            run.state.global_step = step
            run.emit("on_log", logs={name: float(step)})


async def resume_twice(directory: Path) -> None:
    run = describe(directory)
    lane = Lane(asynccb.TensorBoardCallback(logging_dir=directory), run)
    await lane.deliver(training(0, 10))
    for first, last in ((6, 9), (4, 8)):
        again = asynccb.TensorBoardCallback(logging_dir=directory)
        assert again.resume(lane.tracker.state()["attributes"])
        lane = Lane(again, run, lane.events + 100)
        await lane.deliver(training(first, last))
    await lane.finish("finished")


def write_runs(directory: Path) -> None:
    train_evaluate_train(directory)
    log_by_hand(directory / "shared", *[(step, "loss") for step in range(1, 6)])
    log_by_hand(directory / "shared", (2, "loss"), (1, "loss"))
    log_by_hand(directory / "shared", (5, "a"), (3, "v"), (6, "a"), (1, "loss"))
    anyio.run(resume_twice, directory / "resumed")
    log_by_hand(directory / "written_last", (1, "loss"))


@pytest.fixture(scope="module", params=[DEFAULT, SLOW, ACCUMULATOR])
def reader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Show]]:
    directory = tmp_path_factory.mktemp("curves")
    write_runs(directory)
    if request.param == ACCUMULATOR:
        yield (
            request.param,
            lambda run, tag: [step for step, _ in points(directory / run).get(tag, [])],
        )
        return
    with serving(directory, request.param, last="written_last") as client:
        yield request.param, lambda run, tag: shown(client, run, tag)


def shown(client: httpx.Client, run: str, tag: str) -> list[int]:
    return [step for step, _ in scalars(client, run, tag)]


def test_two_trainings_of_a_trainer_are_two_curves_and_the_evaluation_is_in_the_first(
    reader: tuple[str, Show],
) -> None:
    _, show = reader
    assert show("trainer", "train/loss") == [1, 2, 3]
    assert show("trainer", "eval/loss") == [3]
    assert show("trainer/training-2", "train/loss") == [1, 2, 3]


def test_no_run_hides_a_point_of_another_one_in_its_directory(reader: tuple[str, Show]) -> None:
    _, show = reader
    assert show("shared", "train/loss") == [1, 2, 3, 4, 5]
    assert show("shared/run-3", "train/a") == [5, 6]
    assert show("shared/run-3", "train/v") == [3]
    assert show("shared/run-3", "train/loss") == [1]


def test_of_a_tag_whose_steps_go_back_the_default_server_shows_what_the_warning_says(
    reader: tuple[str, Show],
) -> None:
    name, show = reader
    assert show("shared/run-2", "train/loss") == ([1] if name == DEFAULT else [2, 1])


def test_a_resumed_run_is_one_curve_with_each_step_once(reader: tuple[str, Show]) -> None:
    _, show = reader
    assert show("resumed", "train/loss") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_short_runs_of_one_output_directory_have_a_directory_and_an_address_each(
    tmp_path: Path,
) -> None:
    args = asynccb.TrainingArguments(output_dir=str(tmp_path))
    for _ in range(8):
        tracker = asynccb.TensorBoardCallback()
        with asynccb.CallbackDispatcher([tracker], args=args) as run:
            run.step(logs={"loss": 1.0})
    found = sorted(files(tmp_path / "runs"), key=lambda path: path.name)
    assert len({path.parent for path in found}) == 8
    assert found == sorted(found, key=lambda path: path.stat().st_mtime_ns)
    assert all(points(path.parent)["train/loss"] == [(1, 1.0)] for path in found)
