"""The folder of a run: its lock, its end, and its removal."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest

from asynccb._companion.sync import sync_run
from asynccb._ground.exceptions import BusyError
from asynccb._journal.cursor import Cursor, load_cursor, save_cursor
from asynccb._journal.run_folder import GoneError, RunFolder, StoredLane, is_live
from asynccb._journal.segments import segments
from asynccb._ring.record import END
from tests.journal.journals import read_with_lost
from tests.support.callbacks_for_tests import (
    AwayTracker,
    FailsInCompanion,
    FileTracker,
    LogWitness,
    read_lines,
    read_steps,
)
from tests.support.running import companion_of, kill_companion, running
from tests.support.waiting import eventually


class TestLock:
    async def test_one_process_at_a_time_has_it(self, tmp_path: Path) -> None:
        first, second = RunFolder(tmp_path), RunFolder(tmp_path)
        await first.open()
        assert is_live(tmp_path)
        with pytest.raises(BusyError, match="is being delivered by another process"):
            await second.open()
        await first.close()
        assert not is_live(tmp_path)
        await second.open()
        await second.close()

    async def test_one_who_only_looks_does_not_keep_it_from_others(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        for _ in range(5):
            await folder.open()
            await folder.close()
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(anyio.to_thread.run_sync, is_live, tmp_path)
                group.start_soon(folder.open)
            await folder.close()

    async def test_one_who_waits_for_it_is_told_that_the_run_was_removed_meanwhile(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "run"
        path.mkdir()
        first, second = RunFolder(path), RunFolder(path)
        await first.open()

        async def wait_for_it() -> None:
            with pytest.raises(GoneError):
                await second.open(left_behind=True)

        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_it)
            await anyio.lowlevel.checkpoint()  # it has opened the file
            first.remove()
            await first.close()
        assert not path.exists()

    async def test_one_who_takes_what_was_left_behind_makes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(GoneError):
            await RunFolder(tmp_path).open(left_behind=True)
        assert os.listdir(tmp_path) == []


class TestEnd:
    async def ends(self, path: Path, end: int) -> list[str]:
        found, _ = await read_with_lost(path / "journal", end)
        records = [msgspec.msgpack.decode(payload) for payload in found.values()]
        return [record[8]["status"] for record in records if record[0] == END]

    async def test_a_journal_without_an_end_gets_one_once(self, tmp_path: Path) -> None:
        for _ in range(3):
            folder = RunFolder(tmp_path)
            await folder.open()
            await folder.record_crash_unless_ended()
            await folder.close()
        assert await self.ends(tmp_path, 1) == ["crashed"]

    async def test_it_comes_after_what_was_delivered_where_a_power_cut_took_that(
        self, tmp_path: Path
    ) -> None:
        await save_cursor(tmp_path / "cursors" / "Tracker.cursor", Cursor(position=500))
        folder = RunFolder(tmp_path)
        await folder.open()
        await folder.record_crash_unless_ended()
        assert folder.journal.next == 501
        await folder.close()
        assert await self.ends(tmp_path, 501) == ["crashed"]

    @pytest.mark.parametrize(("left_behind", "following"), [(True, 5), (False, 0)])
    async def test_it_comes_where_all_listen_unless_a_ring_may_have_what_is_missing_before(
        self, tmp_path: Path, left_behind: bool, following: int
    ) -> None:
        folder = RunFolder(tmp_path)
        await folder.open()
        lanes = [StoredLane(name, "x:Y", {}, first) for name, first in (("A", 0), ("B", 5))]
        await folder.describe("", lanes)
        await folder.close()
        await folder.open(left_behind=left_behind)
        assert folder.journal.next == following
        await folder.close()

    async def test_a_damaged_cursor_of_one_tracker_does_not_keep_the_others_from_theirs(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await save_cursor(tmp_path / "cursors" / "Good.cursor", Cursor(position=5))
        (tmp_path / "cursors" / "Bad.cursor").write_bytes(b"")
        folder = RunFolder(tmp_path)
        await folder.open()
        assert set(folder.cursors()) == {"Good"}
        assert folder.journal.next == 5
        await folder.close()
        assert "Bad.cursor is not a cursor" in caplog.text


class TestWhatIsLeftOfARun:
    def test_nothing_where_all_is_delivered(self, directory: Path, tmp_path: Path) -> None:
        trackers = LogWitness(tmp_path / "seen"), FileTracker(str(tmp_path / "tracked"))
        with running(*trackers, directory=directory) as run:
            for _ in range(100):
                run.step(logs={"loss": 1.0})
            run.close(60.0)
        assert list(directory.iterdir()) == []
        assert len(read_lines(tmp_path / "tracked")) == 101

    def test_nothing_by_the_time_that_another_may_have_the_lock(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            (folder,) = directory.iterdir()
            (folder / "uploads").mkdir()
            for number in range(2000):  # which takes a while to remove
                (folder / "uploads" / str(number)).touch()
            left: list[bool] = []
            with open(folder / "lock") as lock:

                def wait_for_it() -> None:
                    fcntl.flock(lock, fcntl.LOCK_SH)
                    left.append(folder.exists())

                waiting = threading.Thread(target=wait_for_it)
                waiting.start()
                run.close(60.0)
                waiting.join()
        assert left == [False]

    def test_what_others_put_there(self, directory: Path, tmp_path: Path) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            (folder,) = directory.iterdir()
            (folder / "decisions.jsonl").write_text("{}\n")
            run.close(60.0)
        assert [path.name for path in folder.iterdir()] == ["decisions.jsonl"]

    def test_all_of_it_where_something_is_not_delivered(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(AwayTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            (folder,) = directory.iterdir()
            eventually(lambda: (folder / "run.json").exists())
            run.close(1.0)
        assert {"run.json", "journal", "lock", "companion.log"} <= {
            path.name for path in folder.iterdir()
        }

    def test_all_of_it_where_a_callback_has_failed(self, directory: Path) -> None:
        callback = FailsInCompanion()
        callback.on_error = "warn"
        with running(callback, directory=directory) as run:
            run.step(logs={"loss": 1.0})
            run.close(60.0)
        (folder,) = directory.iterdir()
        assert "this one always fails" in (folder / "companion.log").read_text()

    def test_all_of_it_where_that_is_wanted(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCCB_JOURNAL_KEEP", "1")
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            run.close(60.0)
        (folder,) = directory.iterdir()
        assert (folder / "run.json").exists()


class TestEndThatWasNone:
    """What another version's `asynccb sync` may do beside a companion that has died."""

    async def end(self, path: Path) -> None:
        folder = RunFolder(path)
        await folder.open()
        await folder.record_crash_unless_ended()
        cursor = Cursor(position=folder.journal.next, finished=True)
        await save_cursor(path / "cursors" / "FileTracker.cursor", cursor)
        await folder.close()

    def test_what_comes_after_it_is_counted_as_not_delivered_and_stays(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            folder = companion_of(run).directory
            kill_companion(run)
            anyio.run(self.end, folder)
            for _ in range(5):
                run.step(logs={"loss": 1.0})
            run.close(60.0)
        assert read_steps(tmp_path / "tracked") == [1]
        # Four logs and the end: the log that came first has the number of the end that was none.
        assert "5 records NOT delivered" in capsys.readouterr().err
        (folder,) = directory.iterdir()
        assert {"run.json", "journal"} <= {path.name for path in folder.iterdir()}


class TestCursorThatCannotBeWritten:
    def test_its_tracker_goes_on_and_it_is_written_as_soon_as_it_can_be(
        self, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(FileTracker(str(tmp_path / "tracked")), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            (folder,) = directory.iterdir()
            cursors = folder / "cursors"
            eventually(lambda: list(cursors.glob("*.cursor")))
            cursors.rename(folder / "away")
            cursors.write_text("in the way")
            for _ in range(9):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            assert read_steps(tmp_path / "tracked") == list(range(1, 11))
            refusal = "FileTracker: the cursor cannot be written"
            eventually(lambda: run.statistics() and refusal in caplog.text)

            cursors.unlink()
            (folder / "away").rename(cursors)
            path = cursors / "FileTracker.cursor"
            eventually(lambda: load_cursor(path).position == 11)
        assert list(directory.iterdir()) == []


class TestLimit:
    def test_a_tracker_that_is_away_loses_the_oldest_events_only_and_counts_them(
        self,
        directory: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("ASYNCCB_JOURNAL_LIMIT", "64M")
        monkeypatch.setenv("ASYNCCB_JOURNAL_FSYNC", "never")
        away, here = AwayTracker(str(tmp_path / "away")), LogWitness(tmp_path / "here")
        here.needs_history = False
        total = 400
        with running(away, here, directory=directory) as run:
            run.emit("on_train_begin")
            for step in range(1, total + 1):
                run.step(logs={"text": "x" * 300_000})
                if step % 50 == 0:  # it keeps up, on a machine however slow
                    eventually(lambda step=step: step in read_steps(tmp_path / "here"))
            (folder,) = directory.iterdir()
            size = sum(path.stat().st_size for _, path in segments(folder / "journal"))
            assert size <= (64 + 16 + 8) << 20
            run.close(1.0)
        assert "are dropped; each tracker counts the events that it misses" in caplog.text
        assert read_steps(tmp_path / "here") == list(range(1, total + 1))

        (tmp_path / "away.up").touch()
        synced = anyio.run(sync_run, folder, 60.0, lambda done, of: None)
        late = read_steps(tmp_path / "away")
        assert late == list(range(late[0], total + 1))
        assert 50 < len(late) < 350
        assert synced["AwayTracker"].lost == total - len(late)
        assert read_lines(tmp_path / "away")[-1]["status"] == "finished"
