"""Hooks that decide in the companion, and what its death does to decisions: nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from asynccb import decides
from asynccb._publishing.companion import PAUSES
from tests.decisions.deciding import SavesInCompanion, StopsInCompanion, lines_of, trace_of
from tests.support.callbacks_for_tests import FileTracker
from tests.support.running import companion_of, running
from tests.support.waiting import eventually


def decided(directory: Path, *killed_at: int, steps: int = 24) -> list[dict[str, object]]:
    """Run steps, kill the companion after some, check the flags, and return the trace."""
    with running(SavesInCompanion(), directory=directory) as run:
        for step in range(1, steps + 1):
            control = run.step(logs={"loss": 1.0})
            if step in killed_at:
                os.kill(companion_of(run).pid, signal.SIGKILL)
            assert control.should_save is (step > 1 and step % 3 == 1)
    return lines_of(trace_of(run))


def test_decisions_come_from_the_companion_with_and_without_a_lag(tmp_path: Path) -> None:
    lines = decided(tmp_path)
    assert {line["event"] for line in lines} == {"on_log", "on_step_end"}
    assert all(line["outcome"] == "decided" for line in lines)


def test_a_companion_that_is_killed_at_any_moment_changes_no_decision(tmp_path: Path) -> None:
    undisturbed = decided(tmp_path / "a")
    assert decided(tmp_path / "b", 5, 14) == undisturbed


def test_a_companion_that_has_died_for_the_last_time_holds_nobody_up(tmp_path: Path) -> None:
    with running(SavesInCompanion(), directory=tmp_path) as run:
        companion = companion_of(run)

        def given_up() -> bool:
            if not companion.given_up and companion.descriptor is not None:
                os.kill(companion.pid, signal.SIGKILL)
            companion.poll()
            return companion.given_up

        assert run.step().should_log
        eventually(given_up, timeout=10 * sum(PAUSES))
        for _ in range(3):
            assert not run.step().should_log
    assert {line["outcome"] for line in lines_of(trace_of(run))[1:]} == {"lost"}


class Gathers(FileTracker):
    """Gather for an hour, but decide."""

    interval = 3600.0

    @decides(lag=0)
    async def on_log(self, args, state, control, logs=None, **kwargs):
        control.should_save = True


def test_a_tracker_that_decides_gathers_nothing_first(tmp_path: Path) -> None:
    with running(Gathers(str(tmp_path / "file")), directory=tmp_path) as run:
        assert run.log({"loss": 1.0}).should_save


class Disabled(SavesInCompanion):
    on_error = "disable"

    @decides(lag=1)
    async def on_log(self, args, state, control, **kwargs):
        raise OSError("no paper")


def test_a_lane_that_has_ended_in_the_companion_holds_nobody_up(tmp_path: Path) -> None:
    with running(Disabled(), directory=tmp_path) as run:
        for _ in range(4):
            run.step(logs={"loss": 1.0})
    outcomes = [line["outcome"] for line in lines_of(trace_of(run))]
    assert outcomes[0] == "decided"  # at the first step end
    assert set(outcomes[1:]) == {"lost"}


def test_a_callback_in_the_companion_requests_a_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(StopsInCompanion(), directory=tmp_path) as run:
        for _ in range(3):
            run.step()
        assert run.flush(20)
        assert eventually(lambda: run.step().should_training_stop)
    assert lines_of(trace_of(run))[0]["callback"] == "request"
