"""Trainings whose begin or end a hand-written loop forgets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from asynccb import CallbackDispatcher, Event
from asynccb.testing import RecordingTracker
from tests.support.running import Everything


def events_of(path: Path) -> list[str]:
    return [one.event for one in RecordingTracker(path).recorded()]


def test_a_loop_that_forgets_the_begin_is_told_once_and_the_run_begins_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = CallbackDispatcher([RecordingTracker(tmp_path / "recorded")], directory=tmp_path)
    for _ in range(3):
        run.step(logs={"loss": 1.0})
    run.close()
    (said,) = (record.message for record in caplog.records if "on_train_begin" in record.message)
    assert "use the dispatcher in a `with` block" in said
    steps = ["on_step_end", "on_log"] * 3
    assert events_of(tmp_path / "recorded") == ["on_train_begin", *steps, "on_train_end"]
    assert RecordingTracker(tmp_path / "recorded").status() == "finished"


def test_a_loop_that_forgets_the_begin_and_is_dropped_has_finished(tmp_path: Path) -> None:
    run = CallbackDispatcher([RecordingTracker(tmp_path / "recorded")], directory=tmp_path)
    run.step(logs={"loss": 1.0})
    del run
    assert RecordingTracker(tmp_path / "recorded").status() == "finished"


def test_a_loop_that_forgets_the_begin_and_fails_gets_no_end(tmp_path: Path) -> None:
    run = CallbackDispatcher([RecordingTracker(tmp_path / "recorded")], directory=tmp_path)
    run.step(logs={"loss": 1.0})
    run.close(status="failed")
    assert "on_train_end" not in events_of(tmp_path / "recorded")


def test_a_second_begin_without_an_end_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    everything = Everything()
    with CallbackDispatcher([everything]) as run:
        assert not caplog.records
        run.emit(Event.TRAIN_BEGIN)
        assert "again at step 0 without an on_train_end" in caplog.text
    begins = [event for event, *_ in everything.seen if event == Event.TRAIN_BEGIN]
    assert len(begins) == 2


def test_a_begin_after_an_end_is_a_second_training(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), CallbackDispatcher([Everything()]) as run:
        run.step()
        run.emit(Event.TRAIN_END)
        run.emit(Event.TRAIN_BEGIN)
        run.step()
    assert not caplog.records
