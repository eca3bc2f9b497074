"""`asynccb ls`, `sync` and `clean`, on runs that a dispatcher has made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import anyio
import pytest

from asynccb._cli import main
from asynccb._cli.clean import clean
from asynccb._cli.ls import ls
from asynccb._cli.sync import sync
from asynccb._companion.sync import sync_run
from asynccb._journal.overview import find_runs
from asynccb._journal.run_folder import RunFolder
from asynccb._journal.sync_command import sync_command
from asynccb.testing import RecordingTracker
from asynccb.trackers.base import Tracker
from tests.support.callbacks_for_tests import (
    AwayTracker,
    FileTracker,
    LocalTracker,
    LogWitness,
    read_lines,
    read_steps,
)
from tests.support.launching import environment
from tests.support.running import kill_companion, running
from tests.support.trackers_for_tests import Terse, Unborn
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCCB_OFFLINE", "1")


def make_run(directory: Path, *trackers: Tracker, steps: int = 10) -> Path:
    """Journal a run; everything of it waits to be delivered."""
    before = set(directory.glob("*"))
    with running(*trackers, directory=directory) as run:
        for step in range(1, steps + 1):
            run.step(logs={"loss": 1 / step})
        run.close(60.0)  # however slow the machine
    (made,) = set(directory.iterdir()) - before
    return made


def only(directory: Path) -> Path:
    (run,) = directory.iterdir()
    return run


def listed(directory: Path, output: IO[bytes]) -> tuple[int, str]:
    """Run `asynccb ls` as a process with that output; return its status and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "asynccb", "ls", str(directory)],
        env=environment(),
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


class Output:
    """What the command printed, and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.error = ""

    def of(self, *arguments: object) -> tuple[int, str]:
        self._capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        self.error = captured.err
        return status, captured.out


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)


class TestOffline:
    def test_nothing_is_sent_and_the_last_line_says_the_command(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        assert not (tmp_path / "tracked").exists()
        *_, summary, last = capsys.readouterr().err.splitlines()
        assert "NOT delivered" in summary
        assert last == f"asynccb: to deliver what is left of FileTracker: {sync_command(run)}"

    def test_flush_does_not_wait_for_what_is_held_back(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)

    def test_callbacks_that_are_no_trackers_and_local_trackers_are_served(
        self, directory: Path, tmp_path: Path
    ) -> None:
        witness, tracker = LogWitness(tmp_path / "seen"), LocalTracker(str(tmp_path / "tracked"))
        with running(witness, tracker, directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
        assert read_steps(tmp_path / "seen") == read_steps(tmp_path / "tracked") == [1]
        assert list(directory.iterdir()) == []

    def test_without_a_companion_the_tracker_gets_nothing_and_that_is_said(
        self, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory.write_text("no folder can be made here")
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
        assert "FileTracker gets nothing: ASYNCCB_OFFLINE is set" in caplog.text
        assert not (tmp_path / "tracked").exists()


class TestList:
    def test_it_says_how_far_each_tracker_is_behind(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        status, out = output.of("ls", directory)
        head, line, last = out.splitlines()
        assert head.split() == ["RUN", "STATUS", "SIZE", "TRACKER", "TO", "DELIVER"]
        # Twelve: the description of the run, ten logs, and the end.
        name, *_, tracker, behind = line.split()
        assert (name, tracker, behind) == (run.name, "FileTracker", "12")
        assert "finished, waiting" in line
        assert last == f"1 of 1 have something to deliver: {sync_command(directory)}"
        assert status == 1

    def test_it_takes_a_run_or_any_folder_above(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        for place, name in ((run, run.name), (directory, run.name), (tmp_path, f"runs/{run.name}")):
            assert output.of("ls", place)[1].splitlines()[1].split()[0] == name

    def test_a_run_behind_links_is_found_once(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        make_run(directory, FileTracker(str(tmp_path / "tracked")))
        outputs = tmp_path / "outputs"
        outputs.mkdir()
        for name in ("one", "other"):
            (outputs / name).symlink_to(directory)
        (outputs / "back").symlink_to(outputs)
        status, out = output.of("ls", outputs)
        assert (status, len(out.splitlines())) == (1, 3)

    @pytest.mark.parametrize("command", ["ls", "sync", "clean"])
    def test_a_folder_that_cannot_be_looked_into_is_said(
        self,
        directory: Path,
        tmp_path: Path,
        output: Output,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
    ) -> None:
        make_run(directory, FileTracker(str(tmp_path / "tracked")))
        monkeypatch.chdir(directory)
        for _ in range(30):  # a path that the kernel does not take, root's neither
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
        assert output.of(command, directory)[0] == 2
        assert f"asynccb {command}: a folder is left out: [Errno 36]" in output.error

    def test_a_live_run_is_named_so_and_not_disturbed(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            for _ in range(5):
                status, out = output.of("ls", directory)
                assert " live " in out
                assert status == 0

    def test_a_folder_that_cannot_be_delivered_is_named_with_the_reason(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (run / "run.json").write_text('{"format": 9, "key": "", "lanes": []}')
        status, out = output.of("ls", directory)
        assert (status, "has format 9; this version reads 1" in out) == (2, True)
        (run / "run.json").unlink()
        status, out = output.of("ls", directory)
        assert (status, "run.json is missing" in out) == (2, True)

    def test_the_command_that_delivers_is_said_as_a_shell_takes_it(
        self, tmp_path: Path, output: Output
    ) -> None:
        make_run(tmp_path / "my runs", FileTracker(str(tmp_path / "tracked")))
        _, out = output.of("ls", tmp_path / "my runs")
        assert out.endswith(f": {sync_command(tmp_path / 'my runs')}\n")

    @pytest.mark.parametrize("name", ["1.segment", "copy.segment", f"{0:020d} (copy).segment"])
    def test_a_file_of_others_beside_the_segments_is_none(
        self, directory: Path, tmp_path: Path, output: Output, name: str
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (run / "journal" / name).write_text("of somebody else")
        assert output.of("ls", directory)[1].splitlines()[1].split()[-1] == "12"

    def test_a_run_that_the_disk_does_not_let_us_read_is_named_beside_the_others(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        unreadable = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        waiting = make_run(directory, FileTracker(str(tmp_path / "other")))
        segment = unreadable / "journal" / f"{1:020d}.segment"
        segment.mkdir()
        status, out = output.of("ls", directory)
        assert (status, f"Is a directory: '{segment}'" in out) == (2, True)
        assert f"{waiting.name}  finished, waiting" in out

    def test_a_reader_that_wants_no_more_ends_it_without_a_word(
        self, directory: Path, tmp_path: Path
    ) -> None:
        make_run(directory, FileTracker(str(tmp_path / "tracked")))
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "wb") as output:
            assert listed(directory, output) == (2, "")

    def test_an_output_that_cannot_be_written_is_said(
        self, directory: Path, tmp_path: Path
    ) -> None:
        make_run(directory, FileTracker(str(tmp_path / "tracked")))
        with open("/dev/full", "wb") as output:
            status, error = listed(directory, output)
        assert status == 2
        assert error == "asynccb ls: its output is lost: [Errno 28] No space left on device\n"


class TestSync:
    def test_it_delivers_each_record_once_also_where_offline_is_still_set(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        status, out = output.of("sync", directory)
        assert (status, out) == (0, f"{run}: FileTracker: 12 records delivered\n")
        lines = read_lines(tmp_path / "tracked")
        assert [line.get("step") for line in lines] == [*range(1, 11), None]
        assert lines[-1]["status"] == "finished"

        assert not run.exists()  # a run that is delivered leaves nothing behind
        status, out = output.of("sync", directory)
        assert (status, out) == (
            0,
            f"{directory} holds no run: all are delivered, or none was journaled\n",
        )
        assert read_lines(tmp_path / "tracked") == lines

    def test_a_run_that_has_lost_something_stays_for_a_look(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (segment,) = (run / "journal").iterdir()
        damaged = bytearray(segment.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        segment.write_bytes(damaged)
        assert "lost" in output.of("sync", directory)[1]
        assert run.exists()

    def test_one_tracker_may_be_chosen(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        trackers = FileTracker(str(tmp_path / "one")), AwayTracker(str(tmp_path / "other"))
        make_run(directory, *trackers)
        assert output.of("sync", directory, "--tracker", "FileTracker")[0] == 0
        assert read_steps(tmp_path / "one") == list(range(1, 11))
        assert output.of("ls", directory)[0] == 1
        assert output.of("sync", directory, "--tracker", "Filetracker")[0] == 2
        assert "no run has a tracker 'Filetracker'; there are AwayTracker, Fi" in output.error

    def test_a_time_out_leaves_the_rest_for_the_next_time(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, AwayTracker(str(tmp_path / "tracked")))
        status, out = output.of("sync", directory, "--timeout", "0.3")
        assert status == 1
        assert out == f"{run}: AwayTracker: 0 records delivered, 12 left\n"
        (tmp_path / "tracked.up").touch()
        assert output.of("sync", directory)[0] == 0
        assert read_steps(tmp_path / "tracked") == list(range(1, 11))

    def test_a_live_run_is_left_to_its_own_process(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            status, out = output.of("sync", directory)
            assert status == 1
            assert out == (
                f"left alone: {only(directory)} is being delivered by another process; wait for "
                "that to end\n"
            )

    def test_a_training_whose_companion_has_died_keeps_its_run_to_itself(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            kill_companion(run)
            status, out = output.of("sync", directory)
            assert status == 1
            assert f"{only(directory)} belongs to a training that is running" in out
            assert " live " in output.of("ls", directory)[1]
            assert "left alone, it is live" in output.of("clean", directory, "--undelivered")[1]
            run.step(logs={"loss": 1.0})
            run.close(60.0)
        assert output.of("sync", directory)[0] == 0
        assert read_steps(tmp_path / "tracked") == [1, 2]
        assert read_lines(tmp_path / "tracked")[-1]["status"] == "finished"

    def test_a_run_that_cannot_be_read_keeps_none_of_the_others_back(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        damaged = make_run(directory, FileTracker(str(tmp_path / "damaged")))
        (damaged / "run.json").write_text("{")
        make_run(directory, FileTracker(str(tmp_path / "tracked")))
        assert output.of("sync", directory)[0] == 2
        assert f"{damaged / 'run.json'} cannot be read" in output.error
        assert read_steps(tmp_path / "tracked") == list(range(1, 11))

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("tests.support.trackers_for_tests:Unborn", "no such thing"),
            ("gone:Tracker", "No module named 'gone'"),
            ("tests.support.trackers_for_tests:Gone", "has no attribute 'Gone'"),
        ],
    )
    def test_a_tracker_that_cannot_be_made_here_keeps_none_of_the_others_back(
        self, path: str, why: str, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        trackers = FileTracker(str(tmp_path / "tracked")), Unborn(str(tmp_path / "other"))
        run = make_run(directory, *trackers)
        described = (run / "run.json").read_text()
        (run / "run.json").write_text(
            described.replace("tests.support.trackers_for_tests:Unborn", path)
        )
        status, out = output.of("sync", directory)
        assert out.splitlines() == [
            f"{run}: FileTracker: 13 records delivered",
            f"{run}: Unborn: 0 records delivered, 12 left",
        ]
        assert status == 1
        assert f"Unborn receives nothing here: {path} cannot be recreated" in output.error
        assert why in output.error
        assert output.of("sync", directory, "--tracker", "FileTracker")[0] == 0

    def test_a_journal_of_which_nothing_is_left_ends_for_a_tracker_that_came_later_too(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        trackers = [RecordingTracker(tmp_path / name) for name in ("one", "other")]
        run = make_run(directory, *trackers)
        os.truncate(*(run / "journal").iterdir(), 0)
        status, out = output.of("sync", directory, "--timeout", "20")
        assert (status, "left" in out) == (0, False)
        assert [tracker.status() for tracker in trackers] == ["crashed"] * 2

    @pytest.mark.parametrize("damage", [Path.touch, Path.mkdir], ids=["empty", "a folder"])
    def test_a_cursor_that_cannot_be_read_keeps_none_of_the_other_trackers_back(
        self, directory: Path, tmp_path: Path, output: Output, damage: Callable[[Path], None]
    ) -> None:
        trackers = FileTracker(str(tmp_path / "tracked")), AwayTracker(str(tmp_path / "other"))
        run = make_run(directory, *trackers)
        (run / "cursors").mkdir(exist_ok=True)
        damage(run / "cursors" / "AwayTracker.cursor")
        status, out = output.of("sync", directory)
        assert (status, read_steps(tmp_path / "tracked")) == (1, list(range(1, 11)))
        assert f"{run}: AwayTracker: 0 records delivered, 12 left" in out
        assert "AwayTracker receives nothing: its cursor cannot be read" in output.error

    def test_ctrl_c_ends_it_and_the_next_one_delivers(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        make_run(directory, AwayTracker(str(tmp_path / "tracked")))
        command = [sys.executable, "-m", "asynccb", "sync", str(directory)]
        with subprocess.Popen(
            command, env=environment(), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert "the server is away" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            error = process.stderr.read()
            assert process.wait(20) == 130
        assert error.endswith("interrupted; delivered records stay delivered\n")
        (tmp_path / "tracked.up").touch()
        assert output.of("sync", directory)[0] == 0

    def test_records_that_the_journal_has_lost_are_said(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (segment,) = (run / "journal").iterdir()
        data = segment.read_bytes()
        place = data.rfind(b"loss")
        segment.write_bytes(data[:place] + b"boss" + data[place + 4 :])
        status, out = output.of("sync", directory)
        assert (status, out) == (0, f"{run}: FileTracker: 11 records delivered, 1 lost\n")
        assert read_steps(tmp_path / "tracked") == list(range(1, 10))
        assert "1 lost" in output.of("ls", directory)[1]


class TestClean:
    def test_only_what_is_delivered_goes(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        delivered = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        anyio.run(sync_run, delivered, None, lambda done, total: None)
        waiting = make_run(directory, FileTracker(str(tmp_path / "other")))
        status, out = output.of("clean", directory)
        assert status == 0
        assert f"{delivered}: removed" in out
        assert f"{waiting}: kept, not delivered: 12 records for FileTracker" in out
        assert list(directory.iterdir()) == [waiting]

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("run.json", b'{"format": 9}', "has format 9; this version reads 1"),
            ("run.json", b"{", "cannot be read"),
            ("journal/00000000000000000000.segment", b"\x01" * 99, "is not a segment of a journal"),
        ],
        ids=["newer", "damaged", "damaged segment"],
    )
    def test_what_cannot_be_read_is_kept_with_the_reason(
        self,
        directory: Path,
        tmp_path: Path,
        output: Output,
        name: str,
        content: bytes,
        reason: str,
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (run / name).write_bytes(content)
        status, out = output.of("clean", directory)
        assert status == 0
        assert f"{run}: kept, {run / name} {reason}" in out
        assert (run / name).read_bytes() == content

    def test_undelivered_ones_go_when_that_is_said(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        make_run(directory, FileTracker(str(tmp_path / "tracked")))
        assert output.of("clean", directory, "--undelivered")[0] == 0
        assert list(directory.iterdir()) == []

    def test_a_dry_run_removes_nothing(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        before = sorted(run.rglob("*"))
        status, out = output.of("clean", directory, "--undelivered", "--dry-run")
        assert status == 0
        assert "would be removed" in out
        assert sorted(run.rglob("*")) == before

    def test_what_others_have_put_there_stays_and_is_named(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (run / "decisions.jsonl").write_text("{}\n")
        assert ", except decisions.jsonl" in output.of("clean", directory, "--undelivered")[1]
        assert [path.name for path in run.iterdir()] == ["decisions.jsonl"]
        assert output.of("ls", directory)[0] == 0

    def test_what_is_behind_a_link_to_the_journal_s_disk_stays(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (run / "journal").rename(tmp_path / "scratch")
        (run / "journal").symlink_to(tmp_path / "scratch")
        assert output.of("clean", directory, "--undelivered")[0] == 0
        assert list(directory.iterdir()) == []
        assert list((tmp_path / "scratch").iterdir()) != []

    def test_a_run_is_removed_by_way_of_a_link_to_it(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
        (tmp_path / "link").symlink_to(run)
        assert output.of("clean", tmp_path / "link", "--undelivered")[0] == 0
        assert list(directory.iterdir()) == []

    def test_a_live_run_is_left_alone(
        self, directory: Path, tmp_path: Path, output: Output
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            _, out = output.of("clean", directory, "--undelivered")
            assert "left alone, it is live" in out
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
        assert output.of("sync", directory)[0] == 0
        assert read_steps(tmp_path / "tracked") == [1, 2]


@pytest.mark.parametrize(
    "work",
    [
        lambda directory, runs: ls(directory, runs),
        lambda directory, runs: sync(runs, None, None),
        lambda directory, runs: clean(runs, undelivered=True, dry_run=False),
    ],
    ids=["ls", "sync", "clean"],
)
def test_a_run_that_its_companion_removes_meanwhile_is_delivered(
    directory: Path, tmp_path: Path, work: Callable[[Path, list[Path]], int]
) -> None:
    run = make_run(directory, FileTracker(str(tmp_path / "tracked")))
    runs, _ = find_runs(directory)
    assert runs == [run]
    RunFolder(run).remove()
    assert work(directory, runs) == 0
    assert list(directory.iterdir()) == []


class TestBadInput:
    def test_a_folder_that_is_not_there(self, tmp_path: Path, output: Output) -> None:
        assert output.of("ls", tmp_path / "nowhere")[0] == 2
        assert f"{tmp_path / 'nowhere'} is not a folder" in output.error

    def test_a_folder_that_the_kernel_does_not_take(self, tmp_path: Path, output: Output) -> None:
        assert output.of("ls", tmp_path / ("x" * 300))[0] == 2
        assert output.error.endswith(" is not a folder\n")

    def test_a_folder_without_runs_has_nothing_left(self, tmp_path: Path, output: Output) -> None:
        (tmp_path / "journal").mkdir()  # of somebody else
        for command in ("ls", "sync", "clean"):
            status, out = output.of(command, tmp_path)
            assert (status, "holds no run" in out) == (0, True)

    @pytest.mark.parametrize("timeout", ["-1", "soon", "nan", "inf"])
    def test_a_time_out_that_is_no_time(
        self, tmp_path: Path, timeout: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["sync", str(tmp_path), f"--timeout={timeout}"])
        assert ended.value.code == 2
        assert f"'{timeout}' is not a number of seconds, 0 or more" in capsys.readouterr().err


def test_a_sync_that_is_killed_gives_its_lock_back(
    directory: Path, tmp_path: Path, output: Output
) -> None:
    make_run(directory, AwayTracker(str(tmp_path / "tracked")))
    command = [sys.executable, "-m", "asynccb", "sync", str(directory)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "the server is away" in process.stderr.readline()
        assert output.of("sync", directory, "--timeout", "0")[0] == 1
        os.kill(process.pid, signal.SIGKILL)
    (tmp_path / "tracked.up").touch()
    eventually(lambda: output.of("sync", directory)[0] == 0)
    assert read_steps(tmp_path / "tracked") == list(range(1, 11))


def test_a_tracker_that_exports_its_settings_alone_is_synced(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Terse(str(tmp_path / "log"))
    run = make_run(directory, tracker)
    Path(f"{tracker.path}.up").touch()
    assert sync([run], None, 60.0) == 0
    assert read_steps(tmp_path / "log") == list(range(1, 11))


def test_a_tracker_that_exports_its_settings_alone_is_served(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASYNCCB_OFFLINE")
    tracker = Terse(str(tmp_path / "log"))
    Path(f"{tracker.path}.up").touch()
    with running(tracker, directory=directory) as run:
        run.step(logs={"loss": 1.0})
    assert read_steps(tmp_path / "log") == [1]
