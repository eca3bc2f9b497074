"""The ways in which a training program ends, each in a process of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

import asynccb
from asynccb._journal.sync_command import sync_command as command_of
from asynccb.testing import RecordingTracker
from tests.support.launching import command, environment
from tests.support.waiting import PROMPT, eventually

ENDS = {
    "returns": (0, "finished"),
    "raises": (1, "failed"),
    "exits with 0": (0, "finished"),
    "exits with 3": (3, "failed"),
    "is interrupted": (-signal.SIGINT, "killed"),
    "is terminated and exits": (143, "failed"),
    "is terminated": (-signal.SIGTERM, "crashed"),
    "exits at once": (3, "crashed"),
}
"""Exit code of the program and status of its run."""


def start(program: str, *arguments: object, error: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(program, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=error,
        text=True,
    )


def waiting(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start a program whose close waits; return it when that has said so, with what it has said."""
    program = start("waits", tmp_path / "runs", tmp_path / "output", *arguments)
    assert program.stderr is not None
    return program, next(line for line in program.stderr if "waiting for" in line)


def sync_command(tmp_path: Path, name: str) -> str:
    (folder,) = (tmp_path / "runs").iterdir()
    return f"asynccb: to deliver what is left of {name}: {command_of(folder)}\n"


def interrupted(tmp_path: Path, error: str) -> str:
    """Return what follows the line of a close that was interrupted; it shows nothing of ours."""
    (folder,) = (tmp_path / "runs").iterdir()
    before, line, after = error.partition("asynccb: Ctrl-C ended the wait for delivery; kept are ")
    assert line
    kept, _, shown = after.partition("\n")
    assert re.fullmatch(
        rf"\d+ records of RecordingTracker; to deliver them: {re.escape(command_of(folder))}", kept
    )
    assert "NOT delivered" in before
    package = Path(asynccb.__file__).parent
    assert str(package) not in error.replace(command_of(folder), "")
    return shown


@pytest.mark.parametrize("how", ENDS)
def test_everything_is_delivered_and_the_run_has_the_status_of_its_end(
    tmp_path: Path, how: str
) -> None:
    with start("ends", how, tmp_path / "runs", tmp_path / "output") as program:
        program.communicate(timeout=60)
    code, status = ENDS[how]
    assert program.returncode == code
    tracker = RecordingTracker(tmp_path / "output")
    assert eventually(tracker.status) == status
    assert [one.step for one in tracker.recorded("on_log")] == list(range(1, 11))


@pytest.mark.parametrize("how", [how for how, (_, status) in ENDS.items() if status != "crashed"])
def test_one_deadline_is_over_everything_and_what_is_left_is_said(tmp_path: Path, how: str) -> None:
    with start("ends", f"unreachable {how}", tmp_path / "runs", tmp_path / "output") as program:
        said, error = program.communicate(timeout=60)
    assert program.returncode == ENDS[how][0]
    (took,) = map(float, re.findall(r"close took (\S+)", said))
    assert took < PROMPT  # 1.0 and 0.5 on a machine that does nothing else
    assert "RecordingTracker: 0 delivered" in error
    assert sync_command(tmp_path, "RecordingTracker") in error


@pytest.mark.parametrize("where", ["main", "thread"])
def test_hooks_that_need_a_thread_are_called_for_what_is_left_at_the_end(
    tmp_path: Path, where: str
) -> None:
    with start("needs_threads", tmp_path / "steps", where) as program:
        _, error = program.communicate(timeout=60)
    assert (program.returncode, "failed" in error) == (0, False)
    assert (tmp_path / "steps").read_text().split() == [str(step) for step in range(1, 11)]


class TestInterruptedClose:
    def test_one_ctrl_c_ends_the_waiting_and_says_what_is_left(self, tmp_path: Path) -> None:
        program, _ = waiting(tmp_path)
        with program:
            begin = time.monotonic()
            program.send_signal(signal.SIGINT)
            _, error = program.communicate(timeout=60)
        assert time.monotonic() - begin < PROMPT
        assert program.returncode == -signal.SIGINT
        assert interrupted(tmp_path, error).endswith("\nKeyboardInterrupt\n")

    @pytest.mark.parametrize("how", ["with", "dropped", "last", "exit"])
    def test_no_frame_of_the_library_is_shown_and_the_program_ends_as_interrupted(
        self, tmp_path: Path, how: str
    ) -> None:
        program, _ = waiting(tmp_path, how)
        with program:
            program.send_signal(signal.SIGINT)
            _, error = program.communicate(timeout=60)
        shown = interrupted(tmp_path, error)
        assert program.returncode == -signal.SIGINT
        assert ("KeyboardInterrupt" in shown) is (how in ("with", "dropped"))

    def test_an_interrupt_that_the_program_catches_is_not_shown(self, tmp_path: Path) -> None:
        program, _ = waiting(tmp_path, "caught")
        with program:
            program.send_signal(signal.SIGINT)
            _, error = program.communicate(timeout=60)
        assert program.returncode == 0
        assert interrupted(tmp_path, error) == ""

    def test_more_of_them_end_it_at_once(self, tmp_path: Path) -> None:
        program, _ = waiting(tmp_path)
        with program:
            begin = time.monotonic()
            while program.poll() is None:
                program.send_signal(signal.SIGINT)
                select.select([], [], [], 0.01)
            assert time.monotonic() - begin < PROMPT
            program.communicate(timeout=60)
        assert program.returncode in (-signal.SIGINT, 1)

    def test_one_ctrl_c_ends_the_waiting_of_the_interpreters_exit(self, tmp_path: Path) -> None:
        program, _ = waiting(tmp_path, "exit")
        with program:
            begin = time.monotonic()
            program.send_signal(signal.SIGINT)
            _, error = program.communicate(timeout=60)
        assert time.monotonic() - begin < PROMPT
        assert interrupted(tmp_path, error) == ""


class TestProgress:
    def test_a_close_that_waits_says_for_whom_and_how_long(self, tmp_path: Path) -> None:
        program, line = waiting(tmp_path)
        with program:
            program.send_signal(signal.SIGINT)
            program.communicate(timeout=60)
        assert re.fullmatch(
            r"asynccb: waiting for RecordingTracker \(\d+ events\); 5\d s left, Ctrl-C ends it\n",
            line,
        )

    def test_on_a_terminal_each_line_takes_the_place_of_the_one_before(
        self, tmp_path: Path
    ) -> None:
        ours, theirs = os.openpty()
        with start("waits", tmp_path / "runs", tmp_path / "output", error=theirs) as program:
            os.close(theirs)
            text = ""
            while not re.search(r"(\rasynccb: waiting for RecordingTracker[^\n\r]*){2}", text):
                text += os.read(ours, 4096).decode()  # raises once the program has ended
            program.send_signal(signal.SIGINT)
            program.wait(30)
        os.close(ours)
