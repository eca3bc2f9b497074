"""What a tracker's training side tells reaches its own lane, in order, through the journal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import asynccb
from tests.support.callbacks_for_tests import read_lines
from tests.support.running import running
from tests.support.trackers_for_tests import Telling, TellingOnThread


def lines(path: Path) -> list[Any]:
    return [line.get("told", line.get("step")) for line in read_lines(path)][:-1]


def test_what_is_told_comes_between_the_events_around_it_to_the_own_lane_alone(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    callbacks = [Telling(str(one)), Telling(str(two))]
    with running(*callbacks, directory=tmp_path / "runs") as run:
        for step in (1, 2, 3):
            run.step(logs={"loss": torch.tensor(float(step))})
            callbacks[0].training_side.say(f"after {step}", torch.tensor([1.0, 2.0]))
    assert lines(one) == [
        1,
        ["after 1", 1, {"row": [1.0, 2.0]}],
        2,
        ["after 2", 2, {"row": [1.0, 2.0]}],
        3,
        ["after 3", 3, {"row": [1.0, 2.0]}],
        ["whole", 3, {}],
    ]
    assert lines(two) == [1, 2, 3, ["whole", 3, {}]]


def test_def_hooks_of_the_side_run_beside_the_async_ones_of_the_tracker(tmp_path: Path) -> None:
    tracker = Telling(str(tmp_path / "sent"))
    with running(tracker, directory=tmp_path / "runs") as run:
        run.step(logs={"loss": 1.0})
    assert tracker.training_side.heard == [1]
    assert tracker.training_side.state == "closed"
    assert lines(tmp_path / "sent") == [1, ["whole", 1, {}]]


def test_a_rank_that_does_not_serve_the_tracker_tells_nothing(tmp_path: Path) -> None:
    tracker = Telling(str(tmp_path / "sent"))
    tracker.ranks = "world_zero"
    state = asynccb.TrainerState(is_world_process_zero=False)
    with running(tracker, directory=tmp_path / "runs", state=state) as run:
        run.step(logs={"loss": 1.0})
        assert tracker.training_side.tell is None
    assert tracker.training_side.state == "new"


def test_what_was_told_outlives_the_companion(tmp_path: Path) -> None:
    path = tmp_path / "sent"
    tracker = Telling(str(path))
    with running(tracker, directory=tmp_path / "runs") as run:
        run.step(logs={"loss": 1.0})
        assert run.flush(20)
        tracker.training_side.say("before")
        os.kill(read_lines(path)[0]["pid"], signal.SIGKILL)
        tracker.training_side.say("after")
        run.step(logs={"loss": 2.0})
    # A file takes a line twice, where a server would not. The first one came with the flush.
    told = dict.fromkeys(line[0] for line in lines(path) if isinstance(line, list))
    assert list(told) == ["whole", "before", "after"]


def test_a_side_whose_tracker_has_no_companion_is_told_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = TellingOnThread(str(tmp_path / "sent"))
    with running(tracker, directory=tmp_path / "runs") as run:
        run.step(logs={"loss": 1.0})
        tracker.training_side.say("one")
        tracker.training_side.say("one")
    assert caplog.text.count("needs the companion") == 1
