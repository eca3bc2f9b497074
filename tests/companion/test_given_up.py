"""A companion that dies whenever it is started again, and one that only dies now and then."""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path

import pytest

from asynccb import CallbackDispatcher
from asynccb._cli import main
from asynccb._journal.run_folder import is_starting
from asynccb._publishing.companion import PAUSES
from tests.support.callbacks_for_tests import AwayTracker, FileTracker, read_lines, read_steps
from tests.support.running import companion_of, kill_companion, running
from tests.support.waiting import eventually


def kill_when_ready(run: CallbackDispatcher, before: int, said: str = "") -> int:
    """Kill the companion that follows that one, once it has said something; return its id."""
    companion = companion_of(run)
    log = companion.directory / "companion.log"
    told = log.read_text().count(said)

    def follows() -> bool:
        run.step(logs={"loss": 1.0})
        return companion.pid != before and companion.descriptor is not None and companion._ready

    eventually(follows)
    eventually(lambda: log.read_text().count(said) > told or not said)
    return kill_companion(run)


def give_up(run: CallbackDispatcher, said: str = "") -> None:
    """Kill each companion, once it has said something, until none is started again."""
    pid = 0
    for _ in range(len(PAUSES) + 1):
        pid = kill_when_ready(run, pid, said)

    def given_up() -> bool:
        run.step(logs={"loss": 1.0})
        return companion_of(run).given_up

    eventually(given_up)


def test_training_goes_on_and_a_sync_delivers_everything(
    directory: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tracked"
    with running(AwayTracker(str(path)), directory=directory) as run:
        give_up(run, "the server is away")
        for _ in range(1000):
            run.step(logs={"loss": 1.0})
        total = run.state.global_step
        begin = time.monotonic()
        assert not run.flush(10.0)
        assert time.monotonic() - begin < 5.0  # nobody is waited for
        run.close(10.0)
    (told,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "is not started again: it has ended 4 times, the last time with -9" in told.message
    assert sum("the server is away" in text for text in caplog.messages) == 1
    said = capsys.readouterr().err
    assert re.search(r"AwayTracker: 0 delivered, .*\d+ records NOT delivered", said)
    assert f"asynccb sync {directory}" in said
    Path(f"{path}.up").touch()
    assert main(["sync", str(directory)]) == 0
    assert read_steps(path) == list(range(1, total + 1))
    assert read_lines(path)[-1]["status"] == "finished"


def test_what_does_not_fit_the_ring_any_more_is_dropped_counted_and_said(
    directory: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tracked"
    with running(FileTracker(str(path)), directory=directory) as run:
        give_up(run)
        for _ in range(2000):
            run.step(logs={"text": "x" * 10_000})
        total = run.state.global_step
        dropped = run.statistics().dropped
        run.close(10.0)
    assert 1000 < dropped < 2000
    assert f"{dropped} events dropped" in capsys.readouterr().err
    assert sum("events for the trackers are dropped" in t for t in caplog.messages) == 1
    main(["sync", str(directory)])
    assert len(set(read_steps(path))) + dropped == total


def test_one_that_has_lived_for_a_while_is_started_again_however_often(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynccb._publishing.companion.PROVEN", 0.0)
    monkeypatch.setattr("asynccb._publishing.companion.PAUSES", (0.0,))
    with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
        pid = 0
        for _ in range(4):
            pid = kill_when_ready(run, pid)
        assert run.flush(20)
        total = run.state.global_step
    assert sorted(set(read_steps(tmp_path / "tracked"))) == list(range(1, total + 1))


def test_one_that_has_never_come_to_life_leaves_nothing_that_a_resumed_training_waits_for(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
        companion = companion_of(run)
        assert is_starting(companion.directory)
        eventually(lambda: run.statistics() and companion.given_up)
        assert not is_starting(companion.directory)


def test_slots_of_the_device_are_free_once_it_is_given_up_and_what_they_held_is_no_more(
    directory: Path, tmp_path: Path
) -> None:
    with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
        give_up(run)
        companion = companion_of(run)
        assert not companion._overwritten
        assert companion.slots_read > 1 << 60
        assert companion._overwritten
