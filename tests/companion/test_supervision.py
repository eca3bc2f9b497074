"""The companion's life: blocked, killed, orphaned, impossible; and that nothing of it is left."""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import msgspec
import pytest

from asynccb import CallbackDispatcher
from asynccb._companion.messages import AddLane, Hello, LaneSpec
from asynccb._companion.sync import sync_run
from asynccb._ground.events import EVENTS, Event
from asynccb._journal.file_lock import FileLock
from asynccb._journal.settings import JournalSettings
from asynccb._publishing.companion_process import Child
from asynccb._ring.ring import RingWriter
from asynccb.testing import RecordingTracker
from tests.support.callbacks_for_tests import (
    FileTracker,
    HangsAwaiting,
    HangsBlocking,
    InCompanion,
    LogWitness,
    read_lines,
    read_steps,
)
from tests.support.launching import command, environment, launch
from tests.support.running import companion_of, running
from tests.support.supervised import CancelsItsTask, ExitsInATask, FailsAndWrites, SlowTracker
from tests.support.waiting import PROMPT, eventually, is_gone, open_descriptors


def children() -> set[int]:
    """Return our child processes, zombies included."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


class TestBlocked:
    def test_training_goes_on_and_everything_is_journaled(
        self, directory: Path, tmp_path: Path
    ) -> None:
        hangs, tracker = HangsBlocking(tmp_path / "hangs"), FileTracker(str(tmp_path / "tracked"))
        with running(hangs, tracker, directory=directory) as run:
            run.step(logs={"loss": 1.0})
            eventually(hangs.lines)
            for _ in range(120):  # three times what the ring holds
                run.step(logs={"text": "x" * 200_000})
            assert run.statistics().dropped == 0
            pid = companion_of(run).pid
            begin = time.monotonic()
            run.close(1.0)
            assert time.monotonic() - begin < PROMPT
            eventually(lambda: is_gone(pid))
        (folder,) = directory.iterdir()
        anyio.run(sync_run, folder, 20.0, lambda done, total: None)
        # A file does not notice what comes again because the cursor had not been written.
        assert list(dict.fromkeys(read_steps(tmp_path / "tracked"))) == list(range(1, 122))
        assert read_lines(tmp_path / "tracked")[-1]["status"] == "finished"

    def test_a_close_without_time_leaves_everything_in_the_journal(
        self, directory: Path, tmp_path: Path
    ) -> None:
        run = CallbackDispatcher([SlowTracker(str(tmp_path / "tracked"))], directory=directory)
        for _ in range(100):
            run.step(logs={"loss": 1.0})
        pid = companion_of(run).pid
        run.close(0.0)
        eventually(lambda: is_gone(pid))
        (folder,) = directory.iterdir()
        anyio.run(sync_run, folder, 20.0, lambda done, total: None)
        assert list(dict.fromkeys(read_steps(tmp_path / "tracked"))) == list(range(1, 101))
        assert read_lines(tmp_path / "tracked")[-1]["status"] == "finished"

    @pytest.mark.parametrize("kind", [ExitsInATask, CancelsItsTask])
    def test_what_a_hook_does_to_its_tasks_ends_nothing(
        self, directory: Path, tmp_path: Path, kind: type[InCompanion]
    ) -> None:
        witness = LogWitness(tmp_path / "output")
        with running(kind(tmp_path / "exits"), witness, directory=directory) as run:
            pid = companion_of(run).pid
            for _ in range(10):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            eventually(lambda: run.statistics().callbacks[kind.__name__].failed == 10)
            assert companion_of(run).pid == pid
        assert read_steps(tmp_path / "output") == list(range(1, 11))


class TestKilled:
    def test_what_it_had_counted_is_kept(self, directory: Path, tmp_path: Path) -> None:
        fails = FailsAndWrites(tmp_path / "output")
        with running(fails, directory=directory) as run:

            def failed() -> int:
                return run.statistics().callbacks["FailsAndWrites"].failed

            for _ in range(10):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            eventually(lambda: failed() == 10)
            # The cursor is written within 0.2 s; what it has not passed comes, and fails, again.
            eventually(lambda: any(directory.glob("*/cursors/FailsAndWrites.cursor")))
            first = companion_of(run).pid
            os.kill(first, signal.SIGKILL)
            for _ in range(10):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            assert companion_of(run).pid != first
            eventually(lambda: failed() == len(read_steps(tmp_path / "output")) >= 20)

    def test_one_that_is_killed_during_the_close_is_started_again(
        self, directory: Path, tmp_path: Path
    ) -> None:
        tracker = SlowTracker(str(tmp_path / "tracked"))
        with running(tracker, directory=directory) as run:
            for _ in range(100):
                run.step(logs={"loss": 1.0})
            timer = threading.Timer(0.7, os.kill, [companion_of(run).pid, signal.SIGKILL])
            timer.start()
            run.close(20)
            timer.join()
        assert list(dict.fromkeys(read_steps(tmp_path / "tracked"))) == list(range(1, 101))
        assert read_lines(tmp_path / "tracked")[-1]["status"] == "finished"

    def test_one_that_says_nothing_while_it_is_killed_is_reaped(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(LogWitness(tmp_path / "output"), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            first = companion_of(run).pid
            os.kill(first, signal.SIGKILL)
            eventually(lambda: run.flush(5) and companion_of(run).pid != first)
            assert not Path(f"/proc/{first}").exists()


class TestOrphan:
    @pytest.mark.parametrize("attempt", range(3))
    def test_it_hears_what_was_said_before_the_training_was_killed(
        self, tmp_path: Path, attempt: int
    ) -> None:
        with launch("ends", "is killed", tmp_path / "runs", tmp_path / "output") as training:
            training.communicate(timeout=60)
        tracker = RecordingTracker(tmp_path / "output")
        assert eventually(tracker.status) == "crashed"
        assert [one.step for one in tracker.recorded("on_log")] == list(range(1, 11))

    def test_it_ends_at_its_deadline_and_marks_the_run_as_crashed(self, tmp_path: Path) -> None:
        hangs = HangsAwaiting(tmp_path / "hangs")
        folder = tmp_path / "run"
        folder.mkdir()
        ring = RingWriter()
        lock = FileLock.on(folder / "companion.log")
        child = Child(ring.fd, lock.descriptor, folder / "companion.log")
        paths = [os.path.abspath(path) for path in sys.path]
        child.send(Hello(str(folder), "00" * 16, paths, os.getpid(), 1.0, JournalSettings()))
        child.send(AddLane(LaneSpec("Hangs", pickle.dumps(hangs), "x:Y")))
        record = (EVENTS.index(Event.LOG), time.time_ns(), 1, 0.0, 0, {"loss": 1.0})
        assert ring.write(msgspec.msgpack.encode(record))
        eventually(hangs.lines)
        begin = time.monotonic()
        child.leave(60.0)
        assert is_gone(child.pid)
        assert time.monotonic() - begin < PROMPT
        lock.let_go()
        ring.close()
        assert b"crashed" in b"".join(path.read_bytes() for path in folder.glob("journal/*"))


class TestNothingIsLeft:
    def test_a_dozen_dispatchers_leave_no_process_no_descriptor_and_no_thread(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(LogWitness(tmp_path / "warm up"), directory=directory):
            pass
        descriptors, threads, processes = open_descriptors(), threading.active_count(), children()
        for number in range(12):  # every way to end one, killed and not
            with running(LogWitness(tmp_path / str(number)), directory=directory) as run:
                run.step(logs={"loss": 1.0})
                if number % 4 == 0:
                    os.kill(companion_of(run).pid, signal.SIGKILL)
                run.close(0.0 if number % 3 == 0 else 10.0)
        eventually(lambda: threading.active_count() <= threads)
        eventually(lambda: children() == processes)
        assert open_descriptors() == descriptors


class TestImpossible:
    """Each in a process of its own, for what it does to it."""

    def served(self, how: str, tmp_path: Path) -> tuple[str, list[dict[str, object]]]:
        link = tmp_path / "python"
        link.symlink_to(os.path.realpath(sys.executable))
        _, program, *arguments = command(
            "cannot_start", how, tmp_path / "runs", tmp_path / "output"
        )
        # The link is in no virtual environment: it is told where ours finds its packages.
        packages = [path for path in sys.path if path.endswith("-packages")]
        paths = [environment()["PYTHONPATH"], *packages]
        done = subprocess.run(
            [str(link), program, *arguments],
            env={**environment(), "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, read_lines(tmp_path / "output")

    @pytest.mark.parametrize("how", ["no python", "no memfd", "few descriptors", "no directory"])
    def test_a_companion_that_cannot_be_started_leaves_its_lanes_on_the_thread(
        self, tmp_path: Path, how: str
    ) -> None:
        if how == "no memfd" and os.uname().machine != "x86_64":
            pytest.skip("the number of the system call is that of another machine")
        said, lines = self.served(how, tmp_path)
        assert [line["step"] for line in lines] == list(range(1, 9))
        warnings = [line for line in said.splitlines() if line.startswith("WARNING")]
        assert len(warnings) == 1
        assert "LogWitness is served by a thread of the training process" in warnings[0]

    def test_one_that_dies_whenever_it_starts_gives_its_lanes_back(self, tmp_path: Path) -> None:
        said, lines = self.served("broken python", tmp_path)
        assert len(lines) >= 3
        assert "the companion process is not started again" in said
        assert "LogWitness cannot live in the companion" in said

    def test_what_one_that_never_came_to_life_has_cost_is_dropped_and_counted(
        self, tmp_path: Path
    ) -> None:
        said, lines = self.served("broken python", tmp_path)
        ((served, dropped, total),) = re.findall(r"served (\d+) dropped (\d+) of (\d+)", said)
        assert int(served) == len(lines)
        others = 3  # records: the run's description twice, and its end, which are counted, too
        assert int(total) <= int(served) + int(dropped) <= int(total) + others
        assert "It has never come to life" in said
        assert "Events wait for the close" not in said

    def test_without_any_descriptor_events_are_dropped_and_counted_and_training_goes_on(
        self, tmp_path: Path
    ) -> None:
        said, lines = self.served("no descriptors", tmp_path)
        assert lines == []
        assert "LogWitness is not served, and its events are dropped and counted" in said
        (counted,) = re.findall(r"served 0 dropped (\d+) of 8", said)
        assert int(counted) == 8


def test_nothing_is_logged_by_a_life_without_trouble(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG, "asynccb"),
        running(LogWitness(tmp_path / "output"), directory=directory) as run,
    ):
        run.step(logs={"loss": 1.0})
        assert run.flush(20)
    assert [record for record in caplog.records if record.name == "asynccb"] == []
