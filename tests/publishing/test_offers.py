"""Metrics that a callback of the companion adds to the run: who gets them, and who does not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._cli import main
from tests.support.callbacks_for_tests import FileTracker, LocalTracker, read_lines
from tests.support.running import Logs, running
from tests.support.trackers_for_tests import Measuring, Numbered, StuckMeasuring
from tests.support.waiting import PROMPT, eventually


class Inline(asynccb.TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


def measured(path: Path) -> list[tuple[int, float]]:
    lines = [line for line in read_lines(path) if "measured" in line.get("logs", {})]
    return [(line["step"], line["logs"]["measured"]) for line in lines]


def losses(path: Path) -> list[int]:
    return [line["step"] for line in read_lines(path) if "loss" in line.get("logs", {})]


def train(run: asynccb.CallbackDispatcher, path: Path, first: int, last: int) -> None:
    """Log steps, each after what was measured at the one before has arrived."""
    for step in range(first, last + 1):
        run.step(logs={"loss": 1.0})
        eventually(lambda step=step: run.flush(20) and (step, float(step)) in measured(path))


def test_trackers_get_what_is_added_in_order_and_at_the_step_of_the_moment(tmp_path: Path) -> None:
    path = tmp_path / "sent"
    with running(
        Measuring(str(tmp_path / "own")), FileTracker(str(path)), directory=tmp_path / "runs"
    ) as run:
        run.emit("on_train_begin")
        train(run, path, 1, 5)
        run.emit("on_train_end")
    assert measured(path) == [*((step, float(step)) for step in range(1, 6)), (5, -1.0)]
    assert losses(path) == [1, 2, 3, 4, 5]
    assert read_lines(path)[-1]["status"] == "finished"


def test_the_training_and_its_hooks_see_nothing_of_it(tmp_path: Path) -> None:
    path, inline, lane = tmp_path / "sent", Inline(), Logs()
    callbacks = [Measuring(str(tmp_path / "own")), FileTracker(str(path)), inline, lane]
    with running(*callbacks, directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        train(run, path, 1, 3)
        run.emit("on_train_end")
    assert inline.seen == [{"loss": 1.0}] * 3
    assert [logs for _, logs in lane.seen] == [{"loss": 1.0}] * 3
    assert run.state.log_history == [{"loss": 1.0, "step": step} for step in (1, 2, 3)]


def test_what_was_added_is_journaled_and_outlives_the_companion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCCB_OFFLINE", "1")
    later, seen = tmp_path / "later", tmp_path / "seen"
    callbacks = [
        Measuring(str(tmp_path / "own")),
        FileTracker(str(later)),
        LocalTracker(str(seen)),
    ]
    with running(*callbacks, directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        train(run, seen, 1, 3)
        os.kill(read_lines(seen)[0]["pid"], signal.SIGKILL)
        train(run, seen, 4, 5)
    assert not later.exists()
    assert main(["sync", str(tmp_path / "runs")]) == 0
    # What was measured when the companion died may be measured, and added, again.
    assert sorted(set(measured(later))) == [(step, float(step)) for step in range(1, 6)]
    assert losses(later) == [1, 2, 3, 4, 5]


def test_a_resumed_training_leaves_out_the_logs_that_are_there_whatever_was_added_between(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sent"

    def callbacks() -> list[Any]:
        return [Measuring(str(tmp_path / "own")), Numbered(str(path))]

    with running(*callbacks(), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        train(run, path, 1, 2)
        state = run.state_dict()
        train(run, path, 3, 4)
    history = [{"loss": 1.0, "step": step} for step in (1, 2)]
    begun = asynccb.TrainerState(global_step=2, log_history=history)
    with running(*callbacks(), directory=tmp_path / "runs", state=begun) as run:
        run.load_state_dict(state)
        run.emit("on_train_begin")
        for _ in range(4):
            run.step(logs={"loss": 1.0})
        assert run.flush(20)
    assert losses(path) == [1, 2, 3, 4, 5, 6]
    numbers = [line["number"] for line in read_lines(path) if "number" in line]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_close_waits_for_the_last_ones_no_longer_than_it_may(tmp_path: Path) -> None:
    run = asynccb.CallbackDispatcher(
        [StuckMeasuring(str(tmp_path / "own")), FileTracker(str(tmp_path / "sent"))],
        directory=tmp_path / "runs",
    )
    run.emit("on_train_begin")
    run.step(logs={"loss": 1.0})
    assert run.flush(60)
    run.emit("on_train_end")
    begin = time.monotonic()
    run.close(timeout=1.0)
    assert time.monotonic() - begin < PROMPT
    assert losses(tmp_path / "sent") == [1]


def test_where_there_is_no_companion_an_offer_goes_nowhere(tmp_path: Path) -> None:
    own, path = Measuring(str(tmp_path / "own")), tmp_path / "sent"
    own.placement = "thread"
    with running(own, FileTracker(str(path)), directory=tmp_path / "runs") as run:
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        run.emit("on_train_end")
    assert (losses(path), measured(path)) == ([1], [])
