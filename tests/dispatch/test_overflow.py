"""What happens when a lane, or the companion, is behind: the four overflow policies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asynccb import CallbackDispatcher, MailboxFullError
from tests.support.callbacks_for_tests import LogWitness, read_lines
from tests.support.running import Everything, Logs, companion_of, running
from tests.support.waiting import eventually


class TestMailbox:
    def overfill(self, policy: Any, own: Any = None, capacity: int = 5) -> Any:
        everything = Everything()
        everything.overflow = own
        everything.open.clear()
        raised = 0
        with running(everything, capacity=capacity, overflow=policy) as run:
            run.emit("on_step_end")
            eventually(lambda: everything.entered)  # the hook holds it: the mailbox is empty
            run.emit("on_train_begin")
            for step in range(20):
                run.state.global_step = step
                try:
                    run.emit("on_substep_end")
                except MailboxFullError:
                    raised += 1
            run.emit("on_train_end")
            everything.open.set()
            assert run.flush(20)
            counts = run.statistics().callbacks["Everything"]
        return [(each[0], each[2].global_step) for each in everything.seen[1:]], counts, raised

    def test_drop_newest_loses_the_newest_and_no_terminal_event(self) -> None:
        seen, counts, _ = self.overfill("drop_newest")
        steps = [("on_substep_end", step) for step in range(4)]
        assert seen == [("on_train_begin", 0), *steps, ("on_train_end", 19)]
        assert counts.dropped == 16

    def test_drop_oldest_loses_the_oldest_and_no_terminal_event(self) -> None:
        seen, counts, _ = self.overfill("drop_oldest")
        steps = [("on_substep_end", step) for step in range(16, 20)]
        assert seen == [("on_train_begin", 0), *steps, ("on_train_end", 19)]
        assert counts.dropped == 16

    def test_raise_raises_for_each_event_that_is_lost(self) -> None:
        _, counts, raised = self.overfill("raise")
        assert (counts.dropped, raised) == (16, 16)

    def test_a_callbacks_own_policy_comes_before_the_dispatchers(self) -> None:
        _, counts, raised = self.overfill("raise", own="drop_newest")
        assert (counts.dropped, raised) == (16, 0)

    def test_block_loses_nothing_waits_and_says_so_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        everything = Everything()
        everything.open.clear()
        with running(everything, capacity=5) as run:

            def release() -> None:
                eventually(lambda: "is behind by 5 events" in caplog.text)
                everything.open.set()

            thread = threading.Thread(target=release)
            thread.start()
            for _ in range(200):
                run.step()
            thread.join()
            assert run.flush(20)
            counts = run.statistics().callbacks["Everything"]
        assert [each[2].global_step for each in everything.seen] == list(range(1, 201))
        assert (counts.dropped, counts.blocked > 0) == (0, True)
        messages = [record.getMessage() for record in caplog.records]
        assert [m.startswith("Everything is behind by 5 events") for m in messages] == [True]

    def test_an_event_that_one_lane_refuses_still_reaches_the_others(self) -> None:
        full, logs = Everything(), Logs()
        full.overflow = "raise"
        full.open.clear()
        with running(full, logs, capacity=3) as run:
            for step in range(20):
                run.state.global_step = step
                try:
                    run.emit("on_log", logs={})
                except MailboxFullError:
                    assert run.flush(0.0) is False
                eventually(lambda step=step: logs.steps[-1:] == [step], 3.0)
            full.open.set()
        assert logs.steps == list(range(20))


BIG = "x" * 200_000
MORE_THAN_THE_RING = 60
"""Events with `BIG` that are more than 8 MiB."""


class TestRing:
    """A companion that is stopped for a while takes nothing out of its ring."""

    @contextmanager
    def stopped(self, tmp_path: Path, policy: Any, **options: Any) -> Iterator[CallbackDispatcher]:
        witness = LogWitness(tmp_path / "output")
        with running(witness, directory=tmp_path / "runs", overflow=policy, **options) as run:
            run.emit("on_log", logs={})
            assert run.flush(20)
            pid = companion_of(run).pid
            os.kill(pid, signal.SIGSTOP)
            try:
                yield run
            finally:
                os.kill(pid, signal.SIGCONT)
            assert run.flush(20)

    def steps(self, tmp_path: Path) -> list[int]:
        return [line["step"] for line in read_lines(tmp_path / "output")[1:]]

    def overfill(self, run: CallbackDispatcher) -> int:
        """Emit more than the ring holds; return how often that raised."""
        raised = 0
        for step in range(MORE_THAN_THE_RING):
            run.state.global_step = step
            try:
                run.emit("on_log", logs={"text": BIG})
            except MailboxFullError:
                raised += 1
        return raised

    def test_drop_newest_loses_the_newest_and_counts_them(self, tmp_path: Path) -> None:
        with self.stopped(tmp_path, "drop_newest") as run:
            assert self.overfill(run) == 0
            dropped = run.statistics().dropped
        assert dropped > 0
        assert self.steps(tmp_path) == list(range(MORE_THAN_THE_RING - dropped))

    def test_raise_raises_for_each_event_that_is_lost(self, tmp_path: Path) -> None:
        with self.stopped(tmp_path, "raise") as run:
            raised = self.overfill(run)
            assert run.statistics().dropped == raised > 0
        assert self.steps(tmp_path) == list(range(MORE_THAN_THE_RING - raised))

    def test_drop_oldest_keeps_the_newest_beside_the_ring(self, tmp_path: Path) -> None:
        with self.stopped(tmp_path, "drop_oldest", capacity=3) as run:
            assert self.overfill(run) == 0
            dropped = run.statistics().dropped
        steps = self.steps(tmp_path)
        assert dropped > 0
        assert len(steps) == MORE_THAN_THE_RING - dropped
        assert steps == sorted(steps)
        assert steps[-3:] == list(range(MORE_THAN_THE_RING - 3, MORE_THAN_THE_RING))

    def test_block_loses_nothing_waits_and_says_so_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with self.stopped(tmp_path, "block") as run:
            pid = companion_of(run).pid

            def release() -> None:
                eventually(lambda: "training waits for the companion" in caplog.text)
                os.kill(pid, signal.SIGCONT)

            thread = threading.Thread(target=release)
            thread.start()
            self.overfill(run)
            thread.join()
            assert run.statistics().dropped == 0
            assert run.statistics().blocked > 0
        assert self.steps(tmp_path) == list(range(MORE_THAN_THE_RING))
        assert caplog.text.count("training waits for the companion") == 1

    @pytest.mark.parametrize("policy", ["drop_newest", "raise"])
    def test_an_event_that_begins_ends_or_steers_a_run_is_waited_for(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: Any
    ) -> None:
        saves = SaveWitness(tmp_path / "saves")
        with self.stopped(tmp_path, policy) as run:
            pid = companion_of(run).pid
            run.add_callback(saves)
            self.overfill(run)
            done = threading.Event()

            def release() -> None:
                while not done.wait(0.05):
                    os.kill(pid, signal.SIGCONT)

            thread = threading.Thread(target=release)
            thread.start()
            run.emit("on_save", text=BIG)
            done.set()
            thread.join()
        assert [line["event"] for line in saves.lines()] == ["on_save"]


class SaveWitness(LogWitness):
    async def on_log(self, args, state, control, logs=None, **kwargs): ...

    async def on_save(self, args, state, control, **kwargs):
        self.write(event="on_save")
