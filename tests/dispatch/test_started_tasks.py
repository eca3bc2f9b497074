"""Tasks that hooks start are cancelled at the end of the run, and waited for by its deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

import asynccb
from tests.support.callbacks_for_tests import StartsDeafTask, StartsTask
from tests.support.waiting import PROMPT, eventually

PLACES = ["thread", "process"]


def made(kind: type[StartsTask], path: Path, place: Any) -> StartsTask:
    callback = kind(path)
    callback.placement = place
    return callback


def one_log(run: asynccb.CallbackDispatcher) -> None:
    run.emit("on_train_begin")
    run.step(logs={"loss": 1.0})
    assert run.flush(20.0)


@pytest.mark.parametrize("place", PLACES)
def test_a_task_has_cleaned_up_when_close_returns(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    callback = made(StartsTask, tmp_path / "seen", place)
    with asynccb.CallbackDispatcher([callback], directory=tmp_path / "runs") as run:
        one_log(run)
        assert callback.lines() == []
        assert (place == "process") == (run._run.publisher.companion is not None)
    assert [line["cleaned"] for line in callback.lines()] == [True]
    assert "destroyed but it is pending" not in caplog.text
    counts = run.statistics().callbacks["StartsTask"]
    assert (counts.failed, counts.dropped) == (0, 0)


@pytest.mark.parametrize("place", PLACES)
def test_a_task_that_does_not_end_holds_close_up_until_its_deadline_only(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "asynccb")
    callback = made(StartsDeafTask, tmp_path / "seen", place)
    run = asynccb.CallbackDispatcher([callback], directory=tmp_path / "runs")
    one_log(run)
    begin = time.monotonic()
    run.close(1.0)
    assert time.monotonic() - begin < PROMPT
    assert callback.lines()
    if place == "thread":
        eventually(lambda: "tasks that do not end though they are cancelled" in caplog.text)


def test_a_task_may_start_another_while_it_ends(tmp_path: Path) -> None:
    ended: list[str] = []

    class Chain(asynccb.TrainerCallback):
        async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.first = asyncio.create_task(self.work("first"))

        async def work(self, name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                if name == "first":
                    self.second = asyncio.create_task(self.work("second"))
                    await asyncio.sleep(0)
                ended.append(name)

    with asynccb.CallbackDispatcher([Chain()]) as run:
        one_log(run)
    assert ended == ["first", "second"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_task_that_raises_as_it_is_cancelled_stops_no_other(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    class Two(asynccb.TrainerCallback):
        async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.tasks = [asyncio.create_task(self.work(name)) for name in ("raises", "ends")]

        async def work(self, name: str) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if name == "raises":
                    raise error("at the end") from None
                await asyncio.sleep(0)
                ended.append(name)

    callback = Two()
    with asynccb.CallbackDispatcher([callback]) as run:
        one_log(run)
    assert ended == ["ends"]
    assert isinstance(callback.tasks[0].exception(), error)


def test_a_far_deadline_is_not_waited_for(tmp_path: Path) -> None:
    callback = made(StartsTask, tmp_path / "seen", "process")
    run = asynccb.CallbackDispatcher([callback], directory=tmp_path / "runs")
    one_log(run)
    begin = time.monotonic()
    run.close(600.0)
    assert time.monotonic() - begin < PROMPT
