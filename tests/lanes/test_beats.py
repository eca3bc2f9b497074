"""Heartbeats of a tracker, from its lane."""

from __future__ import annotations

from pathlib import Path

from tests.lanes.lanes import lane, letter, looping, put, thread_lane
from tests.support.trackers_for_tests import Beating, Forbidden
from tests.support.waiting import eventually


async def test_there_is_no_beat_before_the_first_flush_and_one_after_it(tmp_path: Path) -> None:
    tracker = Beating(str(tmp_path / "sent"))
    one = lane(tracker)
    await one.beat()
    assert tracker.beats == 0
    await one.flush()
    await one.beat()
    assert tracker.beats == 1


async def test_a_beat_that_is_not_due_is_left_out(tmp_path: Path) -> None:
    tracker = Beating(str(tmp_path / "sent"))
    tracker.beat = 3600.0
    one = lane(tracker)
    for _ in range(10):
        await one.flush()
        await one.beat()
    assert tracker.beats == 1


async def test_a_beat_that_fails_is_counted_and_not_tried_again_at_once(tmp_path: Path) -> None:
    tracker = Beating(str(tmp_path / "sent"))
    tracker.beat = 3600.0
    one = lane(tracker)
    await one.flush()
    await one.beat()
    assert (tracker.beats, one.counts.retried, one.counts.failed) == (1, 1, 0)
    assert not one.counts.disabled


async def test_a_lane_that_has_given_up_beats_no_more(tmp_path: Path) -> None:
    tracker = Forbidden(str(tmp_path / "sent"))
    tracker.beat = 0.0
    one = lane(tracker)
    await one.flush()
    for _ in range(10):
        await one.beat()
    assert one.counts.disabled
    assert tracker.beats == 3


def test_a_tracker_that_is_served_on_the_thread_beats_too(tmp_path: Path) -> None:
    tracker = Beating(str(tmp_path / "sent"))
    one = thread_lane(tracker)
    with looping(one) as loop:
        put(loop, one, letter(1, logs={"loss": 1.0}))
        eventually(lambda: tracker.beats >= 5)
