"""Lanes on the event-loop thread."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import threading
import time
from typing import Any

import anyio
import pytest

from asynccb import TrainerCallback
from asynccb._lanes.loop_thread import LoopThread
from tests.lanes.lanes import letter, looping, put, thread_lane
from tests.support.waiting import PROMPT, eventually


class Notes(TrainerCallback):
    """Note steps, after giving other tasks the chance to come first."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def on_log(self, args, state, control, **kwargs):
        for _ in range(state.global_step % 3):
            await anyio.lowlevel.checkpoint()
        self.seen.append(state.global_step)


class Meets(TrainerCallback):
    """Return only when `together` calls are under way at once."""

    def __init__(self, together: int) -> None:
        self.concurrency = together
        self.active = 0
        self.most = 0

    async def on_log(self, args, state, control, **kwargs):
        self.active += 1
        self.most = max(self.most, self.active)
        while self.most < self.concurrency:
            await anyio.sleep(0.001)
        self.active -= 1


class Hangs(TrainerCallback):
    async def on_log(self, args, state, control, **kwargs):
        await anyio.sleep_forever()


class Blocks(TrainerCallback):
    """Block the event loop until it is let go."""

    def __init__(self, before: float = 0.0) -> None:
        self.before = before
        self.released = threading.Event()

    async def on_log(self, args, state, control, **kwargs):
        await anyio.sleep(self.before)
        while not self.released.is_set():
            time.sleep(0.01)  # noqa: ASYNC251 - blocking is the point


def line_of(text: str) -> int:
    lines, first = inspect.getsourcelines(Blocks)
    return next(first + place for place, line in enumerate(lines) if text in line)


class TestOrder:
    def test_events_of_a_lane_run_one_after_another_in_order(self) -> None:
        notes = Notes()
        one = thread_lane(notes)
        with looping(one) as loop:
            put(loop, one, *map(letter, range(500)))
            assert loop.wait(lambda lane: lane.idle, time.monotonic() + 20)
        assert notes.seen == list(range(500))
        assert one.counts.delivered == 500

    def test_concurrency_lets_that_many_run_at_once_and_no_more(self) -> None:
        meets = Meets(3)
        one = thread_lane(meets)
        with looping(one) as loop:
            put(loop, one, *map(letter, range(12)))
            assert loop.wait(lambda lane: lane.idle, time.monotonic() + 20)
        assert meets.most == 3
        assert one.counts.delivered == 12

    def test_a_hook_that_hangs_delays_no_other_lane(self) -> None:
        hangs, notes = thread_lane(Hangs()), Notes()
        other = thread_lane(notes)
        with looping(hangs, other) as loop:
            put(loop, hangs, letter())
            put(loop, other, *map(letter, range(100)))
            eventually(lambda: other.counts.delivered == 100)
            begin = time.monotonic()
            left = loop.close("finished", begin + 0.2)
            assert left == {"Hangs": 1}
            assert time.monotonic() - begin < PROMPT

    def test_an_event_that_comes_long_after_the_loop_fell_asleep_wakes_it(self) -> None:
        one = thread_lane(Notes())
        with looping(one) as loop:
            for step in range(3):
                eventually(lambda: not loop._awake)
                put(loop, one, letter(step))
                eventually(lambda step=step: one.counts.delivered == step + 1)

    def test_the_loop_looks_for_events_in_vain_only_while_they_are_dense(self) -> None:
        looks: list[bool] = []

        class Follows(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                looks.append(loop._awake)  # where not, it sleeps until it is woken
                if state.global_step < 200:
                    put(loop, one, letter(state.global_step + 1))

        one = thread_lane(Follows())
        with looping(one) as loop:
            assert eventually(lambda: one._loop is not None)
            put(loop, one, letter(1))
            assert eventually(lambda: len(looks) == 200)
        assert looks[0] is False
        assert any(looks)

    def test_a_lane_that_is_started_later_gets_its_events(self) -> None:
        first, second = thread_lane(Notes()), thread_lane(Notes())
        with looping(first) as loop:
            eventually(lambda: not loop._awake)
            loop.start_lane(second)
            put(loop, second, letter())
            eventually(lambda: second.counts.delivered == 1)


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("x", [SystemExit(3)])],
        ids=lambda error: type(error).__name__,
    )
    def test_a_hook_that_tries_to_end_the_process_ends_no_lane(self, error: BaseException) -> None:
        class Exits(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                raise error

        exits, notes = thread_lane(Exits()), thread_lane(Notes())
        with looping(exits, notes) as loop:
            put(loop, exits, letter(), letter())
            put(loop, notes, letter())
            eventually(lambda: exits.counts.failed == 2, 3.0)
            put(loop, notes, letter())
            eventually(lambda: notes.counts.delivered == 2)

    def test_a_hook_that_stops_the_event_loop_ends_no_lane(self) -> None:
        class Stops(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                asyncio.get_running_loop().stop()

        stops, notes = thread_lane(Stops()), thread_lane(Notes())
        with looping(stops, notes) as loop:
            for lane in (stops, notes, notes):
                put(loop, lane, letter())
            eventually(lambda: notes.counts.delivered == 2, 3.0)

    def test_a_scope_that_a_hook_leaves_open_ends_its_lane_alone(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class LeavesOpen(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                await anyio.create_task_group().__aenter__()

        leaves, notes = thread_lane(LeavesOpen()), thread_lane(Notes())
        with looping(leaves, notes) as loop:
            put(loop, leaves, letter())
            eventually(lambda: leaves.counts.delivered == 1)
            loop.end_lane(leaves, "finished")
            eventually(lambda: leaves.done)
            put(loop, notes, letter())
            eventually(lambda: notes.counts.delivered == 1)
        assert leaves.counts.disabled
        assert "LeavesOpen is not served any more" in caplog.text

    def test_a_task_of_a_hook_that_exits_ends_no_lane(self) -> None:
        class ExitsInATask(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                async def leave() -> None:
                    raise SystemExit(3)

                async with anyio.create_task_group() as group:
                    group.start_soon(leave)

        exits, notes = thread_lane(ExitsInATask()), thread_lane(Notes())
        with looping(exits, notes) as loop:
            put(loop, exits, letter())
            eventually(lambda: exits.counts.failed == 1, 3.0)
            put(loop, notes, letter())
            eventually(lambda: notes.counts.delivered == 1, 3.0)

    def test_a_disabled_lane_drops_what_comes_later_and_does_not_fill_up(self) -> None:
        class Fails(TrainerCallback):
            on_error = "disable"

            async def on_log(self, args, state, control, **kwargs):
                raise RuntimeError("x")

        one = thread_lane(Fails(), capacity=5)
        with looping(one) as loop:
            put(loop, one, letter())
            eventually(lambda: one.mailbox.stopped)
            put(loop, one, *map(letter, range(20)))
        assert one.mailbox.dropped + one.counts.dropped == 20


class TestStalls:
    def wait_for_stall(self, caplog: pytest.LogCaptureFixture) -> str:
        def stalled() -> str:
            messages = [record.getMessage() for record in caplog.records]
            return next((m for m in messages if "has blocked the event loop" in m), "")

        return eventually(stalled, 5.0)

    def test_a_blocking_call_is_named_with_its_line_while_it_lasts_and_counted(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        blocks = Blocks()
        one = thread_lane(blocks)
        with looping(one) as loop:
            put(loop, one, letter())
            message = self.wait_for_stall(caplog)
            assert not blocks.released.is_set()
            blocks.released.set()
            eventually(lambda: one.counts.delivered == 1)
        place = re.search(r"at (\S+):(\d+) \((\w+)\)", message)
        assert place is not None
        assert message.startswith("Blocks has blocked the event loop for ")
        assert (place[1], place[3]) == (__file__, "on_log")
        assert int(place[2]) in (line_of("time.sleep"), line_of("while not"))
        assert one.counts.stalled == 1

    def test_a_call_that_begins_to_block_when_no_events_come_any_more_is_named_too(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        blocks = Blocks(before=1.0)
        one = thread_lane(blocks)
        with looping(one) as loop:
            put(loop, one, letter())
            try:
                self.wait_for_stall(caplog)
            finally:
                blocks.released.set()

    def test_a_hook_that_awaits_for_long_is_no_stall(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Waits(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                await anyio.sleep(0.8)

        one = thread_lane(Waits())
        with looping(one) as loop:
            put(loop, one, letter())
            eventually(lambda: one.counts.delivered == 1)
        assert one.counts.stalled == 0
        assert "blocked" not in caplog.text

    def test_other_lanes_catch_up_before_a_lane_that_blocked_goes_on(self) -> None:
        order: list[Any] = []

        class BlocksOnce(TrainerCallback):
            released = threading.Event()

            async def on_log(self, args, state, control, **kwargs):
                order.append("blocked")
                while not self.released.is_set():
                    time.sleep(0.01)  # noqa: ASYNC251 - blocking is the point

        class Follows(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                order.append(state.global_step)

        blocking, follower = thread_lane(BlocksOnce()), thread_lane(Follows())
        with looping(blocking, follower) as loop:
            put(loop, blocking, letter(), letter())
            eventually(lambda: blocking.counts.stalled)
            put(loop, follower, *map(letter, range(5)))
            BlocksOnce.released.set()
            assert loop.wait(lambda lane: lane.idle, time.monotonic() + 10)
        assert order == ["blocked", 0, 1, 2, 3, 4, "blocked"]


class TestEnd:
    def test_closing_delivers_everything_first_and_ends_the_thread(self) -> None:
        one = thread_lane(Notes())
        before = threading.active_count()
        with looping(one) as loop:
            put(loop, one, *map(letter, range(200)))
            assert loop.close("finished", time.monotonic() + 10) == {}
        assert one.counts.delivered == 200
        eventually(lambda: threading.active_count() <= before)

    def test_ending_one_lane_leaves_the_others_running(self) -> None:
        first, second = thread_lane(Notes()), thread_lane(Notes())
        with looping(first, second) as loop:
            put(loop, first, *map(letter, range(10)))
            loop.end_lane(first, "finished")
            eventually(lambda: first.done)
            assert first.counts.delivered == 10
            put(loop, second, letter())
            eventually(lambda: second.counts.delivered == 1)

    def test_a_loop_that_was_never_needed_starts_no_thread(self) -> None:
        before = threading.active_count()
        loop = LoopThread()
        loop.wake()
        assert loop.wait(lambda lane: False, time.monotonic())
        assert loop.close("finished", time.monotonic()) == {}
        assert threading.active_count() <= before

    def test_nothing_is_logged_by_a_run_without_trouble(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "asynccb")
        one = thread_lane(Notes())
        with looping(one) as loop:
            put(loop, one, *map(letter, range(50)))
        assert [r for r in caplog.records if r.name == "asynccb"] == []
