"""How the companion and the training process end: orderly, killed, hanging, forked."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asynccb import CallbackDispatcher, ClosedError
from asynccb._journal.sync_command import sync_command
from tests.support.callbacks_for_tests import (
    Exits,
    FileTracker,
    HangsAwaiting,
    HangsBlocking,
    LogWitness,
    read_lines,
    read_steps,
)
from tests.support.launching import command, environment, launch, output_of
from tests.support.running import companion_of, kill_companion, running
from tests.support.waiting import PROMPT, eventually, is_gone, open_descriptors


class TestTrainingIsKilled:
    @pytest.mark.parametrize("attempt", range(3))
    def test_everything_that_emit_returned_from_is_delivered_and_the_run_marked_as_crashed(
        self, tmp_path: Path, directory: Path, attempt: int
    ) -> None:
        moment = random.randrange(1, [3, 300, 3000][attempt])
        with launch("train_until_killed", tmp_path, directory) as training:
            assert training.stdout is not None
            for line in training.stdout:
                if line == f"emitted {moment}\n":
                    break
            training.kill()
            emitted = [line for line in training.stdout if line.endswith("\n")]
        least = int(emitted[-1].split()[1]) if emitted else moment

        (pid,) = {line["pid"] for line in eventually(lambda: read_lines(tmp_path / "tracked"))[:1]}
        eventually(lambda: is_gone(pid))
        for name in ("tracked", "witnessed"):
            seen = read_steps(tmp_path / name)
            assert len(seen) >= least, f"killed at {moment}"
            assert seen == list(range(1, len(seen) + 1))
        assert read_lines(tmp_path / "tracked")[-1]["status"] == "crashed"

    def test_the_companion_does_not_hold_the_training_programs_output_open(
        self, tmp_path: Path, directory: Path
    ) -> None:
        hanging = "\n".join(
            [
                "import os, signal, sys",
                "from tests.support.callbacks_for_tests import HangsAwaiting",
                "from asynccb import CallbackDispatcher",
                "run = CallbackDispatcher([HangsAwaiting(sys.argv[1])], directory=sys.argv[2])",
                "run.step(logs={'loss': 1.0})",
                "print('emitted')",
                "os.kill(os.getpid(), signal.SIGKILL)",
            ]
        )
        [python, *_] = command("fork")
        done = subprocess.run(
            [python, "-c", hanging, str(tmp_path / "output"), str(directory)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "emitted\n")
        (line,) = eventually(lambda: read_lines(tmp_path / "output"))
        assert not is_gone(line["pid"])  # it goes on trying; nobody waits for it
        os.kill(line["pid"], signal.SIGKILL)


class TestCompanionIsKilled:
    @pytest.mark.parametrize("pause", [False, True], ids=["while events come", "between events"])
    def test_it_is_started_again_and_every_event_is_delivered_in_order(
        self,
        directory: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        pause: bool,
    ) -> None:
        witness = LogWitness(tmp_path / "output")
        with running(witness, directory=directory) as run:
            for _ in range(2000):
                run.step(logs={"loss": 1.0})
            eventually(witness.lines)
            if pause:
                assert run.flush(20)
            first = companion_of(run).pid
            os.kill(first, signal.SIGKILL)
            for _ in range(2000):
                run.step(logs={"loss": 1.0})

            def restarted() -> bool:
                run.step(logs={"loss": 1.0})
                return companion_of(run).pid != first

            eventually(restarted)
            assert run.flush(20)
            total = run.state.global_step
        assert list(dict.fromkeys(read_steps(tmp_path / "output"))) == list(range(1, total + 1))
        assert len([r for r in caplog.records if "it is started again" in r.msg]) == 1

    def test_a_flush_starts_it_again_too(self, directory: Path, tmp_path: Path) -> None:
        witness = LogWitness(tmp_path / "output")
        with running(witness, directory=directory) as run:
            run.step(logs={"loss": 1.0})
            eventually(witness.lines)
            run.step(logs={"loss": 1.0})
            os.kill(companion_of(run).pid, signal.SIGKILL)
            assert run.flush(20)
            assert set(read_steps(tmp_path / "output")) == {1, 2}

    def test_a_close_starts_it_again_too(self, directory: Path, tmp_path: Path) -> None:
        with running(LogWitness(tmp_path / "output"), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            kill_companion(run)
            run.close(20)
        assert read_steps(tmp_path / "output") == [1]

    def test_after_its_last_start_events_are_dropped_and_counted_and_training_goes_on(
        self, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(LogWitness(tmp_path / "output"), directory=directory) as run:
            seen: set[int] = set()

            def killed() -> bool:
                pid = companion_of(run).pid
                if pid not in seen:
                    seen.add(pid)
                    os.kill(pid, signal.SIGKILL)
                run.step(logs={"text": "x" * 100_000})
                return run.statistics().dropped > 0

            eventually(killed)
            assert "the companion process is not started again" in caplog.text
            assert 2 <= len(seen) <= 5


class TestClose:
    def test_everything_is_delivered_first_and_process_and_descriptors_are_gone(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(LogWitness(tmp_path / "warm up"), directory=directory):
            pass
        before = open_descriptors()
        with running(LogWitness(tmp_path / "output"), directory=directory) as run:
            for _ in range(1000):
                run.step(logs={"loss": 1.0})
            pid = companion_of(run).pid
            run.close(20)
            assert read_steps(tmp_path / "output") == list(range(1, 1001))
            assert not Path(f"/proc/{pid}").exists()  # ended and waited for: no zombie
            assert open_descriptors() == before

    @pytest.mark.parametrize("kind", [HangsAwaiting, HangsBlocking])
    def test_a_callback_that_hangs_delays_it_to_the_deadline_and_no_further(
        self,
        directory: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        kind: Any,
    ) -> None:
        hangs = kind(tmp_path / "output")
        with running(hangs, directory=directory) as run:
            for _ in range(5):
                run.step(logs={"loss": 1.0})
            eventually(hangs.lines)
            pid = companion_of(run).pid
            begin = time.monotonic()
            run.close(1.0)
            assert 0.5 < time.monotonic() - begin < PROMPT
            eventually(lambda: is_gone(pid))
        error = capsys.readouterr().err
        (folder,) = directory.iterdir()
        assert f"to deliver what is left of {kind.__name__}: {sync_command(folder)}\n" in error
        (pending,) = re.findall(r"(\d+) records NOT delivered", error)
        assert int(pending) >= 4

    def test_a_callback_that_hangs_keeps_nothing_from_the_others(
        self, directory: Path, tmp_path: Path
    ) -> None:
        hangs, tracker = HangsAwaiting(tmp_path / "hangs"), FileTracker(str(tmp_path / "tracked"))
        with running(hangs, tracker, directory=directory) as run:
            for _ in range(100):
                run.step(logs={"loss": 1.0})
            eventually(hangs.lines)  # the companion has come to life, on a busy machine too
            run.close(3.0)
        assert read_steps(tmp_path / "tracked") == list(range(1, 101))
        assert read_lines(tmp_path / "tracked")[-1]["status"] == "finished"

    def test_a_hook_that_exits_ends_neither_the_companion_nor_the_training(
        self, directory: Path, tmp_path: Path
    ) -> None:
        witness = LogWitness(tmp_path / "output")
        with running(Exits(tmp_path / "exits"), witness, directory=directory) as run:
            for _ in range(10):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            eventually(lambda: run.statistics().callbacks["Exits"].failed == 10)
        assert read_steps(tmp_path / "output") == list(range(1, 11))

    def test_the_body_of_a_with_block_decides_the_status(
        self, directory: Path, tmp_path: Path
    ) -> None:
        def train(error: BaseException | None) -> str:
            path = tmp_path / f"tracked {error!r}"
            with suppress(RuntimeError, KeyboardInterrupt):  # noqa: SIM117
                with CallbackDispatcher([FileTracker(str(path))], directory=directory) as run:
                    run.step(logs={"loss": 1.0})
                    if error is not None:
                        raise error
            status: str = read_lines(path)[-1]["status"]
            return status

        assert train(None) == "finished"
        assert train(RuntimeError()) == "failed"
        assert train(KeyboardInterrupt()) == "killed"

    @pytest.mark.parametrize(
        ("how", "status"),
        [
            ("returns before training", "finished"),
            ("returns", "failed"),
            ("raises", "failed"),
            ("ends training", "finished"),
        ],
    )
    def test_a_program_that_forgets_to_close_is_closed_at_its_exit(
        self, directory: Path, tmp_path: Path, how: str, status: str
    ) -> None:
        with launch("never_closed", directory, tmp_path / "tracked", how) as program:
            program.wait(20)
        lines = read_lines(tmp_path / "tracked")
        assert [line["step"] for line in lines[:-1]] == list(range(1, 11))
        assert lines[-1]["status"] == status

    def test_ctrl_c_cuts_it_short_and_leaves_nothing_behind(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hangs = HangsAwaiting(tmp_path / "output")
        with running(hangs, directory=directory) as run:
            run.step(logs={"loss": 1.0})
            eventually(hangs.lines)
            pid = companion_of(run).pid
            timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
            timer.start()
            begin = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                run.close(60)
            timer.join()
            assert time.monotonic() - begin < PROMPT
            eventually(lambda: is_gone(pid))
            with pytest.raises(ClosedError):
                run.step()
        assert "asynccb sync" in capsys.readouterr().err


class TestFork:
    def test_a_forked_child_is_refused_and_exits_and_the_parent_goes_on(
        self, directory: Path, tmp_path: Path
    ) -> None:
        out, _ = output_of("fork", directory, tmp_path / "output")
        lines = out.splitlines()
        assert lines[:3] == [next(line for line in lines if "ForkedError" in line)] * 3
        assert "this dispatcher belongs to the parent process" in lines[0]
        assert lines[3:] == [
            "child: threads 1",
            "parent: child ended with 7",
            "parent: flushed True",
            "parent: steps 200 200",
        ]
