"""The end of a dispatcher whose hooks run on the thread, and its last line."""

from __future__ import annotations

import gc
import re
import threading
import time
import weakref
from typing import Any

import anyio
import pytest

from asynccb import CallbackDispatcher, ClosedError, TrainerCallback, TrainerState
from tests.support.running import Inline, Logs, running
from tests.support.waiting import PROMPT, eventually, open_descriptors


class Hangs(TrainerCallback):
    async def on_log(self, args, state, control, **kwargs):
        await anyio.sleep_forever()


def test_close_delivers_everything_first() -> None:
    logs = Logs()
    run = CallbackDispatcher([logs])
    for _ in range(500):
        run.step(logs={"loss": 1.0})
    run.close(20)
    assert logs.steps == list(range(1, 501))


def test_a_second_close_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run = CallbackDispatcher([Logs()])
    run.close()
    first = capsys.readouterr().err
    run.close()
    assert first.count("\n") == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("event", ["on_log", "on_train_begin", "on_epoch_end", "no event"])
def test_an_event_after_the_close_is_refused(event: str) -> None:
    run = CallbackDispatcher([Inline()])
    run.close()
    with pytest.raises(ClosedError, match="make a new one for another run"):
        run.emit(event)


@pytest.mark.parametrize("callback", [Inline, Logs])
def test_a_callback_added_after_the_close_is_refused(callback: Any) -> None:
    run = CallbackDispatcher([Logs()])
    run.close()
    with pytest.raises(ClosedError):
        run.add_callback(callback)


def test_callbacks_may_be_removed_after_the_close() -> None:
    logs = Logs()
    run = CallbackDispatcher([logs])
    run.close()
    assert run.pop_callback(logs) is logs
    with pytest.raises(ClosedError):
        run.step()


def test_statistics_are_there_after_the_close() -> None:
    with running(Logs()) as run:
        run.step(logs={"loss": 1.0})
    assert run.statistics().delivered == 1
    assert run.statistics().callbacks["Logs"].pending == 0


def test_a_hook_that_hangs_delays_the_close_to_its_deadline_and_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs = Logs()
    run = CallbackDispatcher([Hangs(), logs])
    for _ in range(3):
        run.step(logs={"loss": 1.0})
    begin = time.monotonic()
    run.close(0.3)
    assert 0.3 <= time.monotonic() - begin < PROMPT
    assert logs.steps == [1, 2, 3]
    assert re.search(r"Hangs: 0 delivered, 3 events NOT delivered", capsys.readouterr().err)


def test_a_hook_that_blocks_the_loop_delays_the_close_to_its_deadline() -> None:
    released = threading.Event()

    class Blocks(TrainerCallback):
        async def on_log(self, args, state, control, **kwargs):
            released.wait()

    run = CallbackDispatcher([Blocks()])
    run.step(logs={"loss": 1.0})
    begin = time.monotonic()
    try:
        run.close(0.3)
        assert 0.3 <= time.monotonic() - begin < PROMPT
    finally:
        released.set()


def test_a_close_without_time_returns_at_once() -> None:
    run = CallbackDispatcher([Hangs()])
    run.step(logs={"loss": 1.0})
    begin = time.monotonic()
    run.close(0)
    assert time.monotonic() - begin < PROMPT


def test_flush_says_that_something_is_left_at_its_deadline() -> None:
    with running(Hangs()) as run:
        run.step(logs={"loss": 1.0})
        begin = time.monotonic()
        assert run.flush(0.2) is False
        assert 0.2 <= time.monotonic() - begin < PROMPT
        run.close(0.1)


def test_flush_without_lanes_has_nothing_to_wait_for() -> None:
    with running(Inline()) as run:
        assert run.flush() is True


def test_the_last_line_sums_the_run_up(capsys: pytest.CaptureFixture[str]) -> None:
    class Fails(TrainerCallback):
        async def on_log(self, args, state, control, **kwargs):
            raise RuntimeError("x")

    with running(Logs(), Fails()) as run:
        for _ in range(4):
            run.step(logs={"loss": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"asynccb: 4 steps, 4 events, \d+ us of training time a step; Logs: 4 delivered; "
        r"Fails: 0 delivered, 4 failed",
        line,
    )


def test_steps_before_a_checkpoint_are_not_counted_as_this_run_s() -> None:
    with CallbackDispatcher([Logs()], state=TrainerState(global_step=1000)) as run:
        for _ in range(4):
            run.step(logs={"loss": 1.0})
        assert run.statistics().steps == 4


@pytest.mark.parametrize("step", [None, "seven", float("nan"), float("inf")])
def test_a_step_that_is_no_number_counts_as_none(step: Any) -> None:
    with running(Inline()) as run:
        run.step()
        run.emit("on_train_end")
        run.state = TrainerState(global_step=step)
        run.emit("on_train_begin")
        assert run.statistics().steps == 1


@pytest.mark.parametrize("ended", [True, False], ids=["which has ended", "which has not ended"])
def test_steps_of_a_training_before_are_counted(ended: bool) -> None:
    with running(Logs()) as run:
        for _ in range(3):
            run.step(logs={"loss": 1.0})
        if ended:
            run.emit("on_train_end")
        run.state = TrainerState()
        run.emit("on_train_begin")
        run.step(logs={"loss": 1.0})
        run.step(logs={"loss": 1.0})
        assert run.statistics().steps == 5


def test_a_run_without_steps_says_what_it_cost_in_all(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Logs()) as run:
        run.log({"loss": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"asynccb: 0 steps, \d events, \d+ us of training time; .*", line)


def test_a_run_without_async_hooks_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Inline()) as run:
        run.step()
    assert capsys.readouterr().err == ""


def test_after_the_close_no_thread_and_no_descriptor_is_left() -> None:
    with running(Logs()) as run:
        run.step(logs={"loss": 1.0})
    threads, descriptors = threading.active_count(), open_descriptors()
    for _ in range(5):
        with running(Logs()) as run:
            run.step(logs={"loss": 1.0})
    eventually(lambda: threading.active_count() <= threads)
    assert open_descriptors() == descriptors


def test_a_closed_dispatcher_and_what_it_was_given_can_be_freed() -> None:
    class Model: ...

    model = Model()
    run = CallbackDispatcher([Logs()], model=model)
    run.step(logs={"loss": 1.0})
    run.close()
    freed = weakref.ref(model)
    del run, model
    gc.collect()
    assert freed() is None


def test_two_dispatchers_share_nothing() -> None:
    first, second = Logs(), Logs()
    with running(first) as one, running(second) as other:
        one.step(logs={"loss": 1.0})
        other.step(logs={"loss": 2.0})
        one.close()
        other.step(logs={"loss": 3.0})
    assert [logs["loss"] for _, logs in first.seen] == [1.0]
    assert [logs["loss"] for _, logs in second.seen] == [2.0, 3.0]
