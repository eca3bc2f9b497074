"""One callback's lane: its errors, its counts, and what its hooks get."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import numpy
import pytest

import asynccb
from asynccb import TrainerCallback
from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, FrozenError, TransientError, UndecidedError
from asynccb._state.control import TrainerControl
from asynccb.trackers.base import Tracker
from tests.lanes.lanes import lane, letter


class Raises(TrainerCallback):
    """Raise what it was given, from the same line each time."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def on_log(self, args, state, control, **kwargs):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


class FallibleError(Exception):
    """Raised by hooks of these tests."""


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "asynccb"]


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            FallibleError("x"),
            SystemExit(3),
            KeyboardInterrupt(),
            asyncio.CancelledError(),
            TimeoutError("x"),
            StopAsyncIteration(),
            ExceptionGroup("x", [FallibleError("x")]),
            BaseExceptionGroup("x", [SystemExit(3)]),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_nothing_that_a_hook_raises_leaves_the_lane(self, error: BaseException) -> None:
        one = lane(Raises(error))
        await one.call(letter(1))
        await one.call(letter(2))
        assert (one.counts.failed, one.counts.delivered) == (1, 1)

    async def test_the_cancellation_of_the_lane_itself_is_not_swallowed(self) -> None:
        class Waits(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                await anyio.sleep_forever()

        one = lane(Waits())
        async with anyio.create_task_group() as group:
            group.start_soon(one.call, letter())
            await asyncio.sleep(0)
            group.cancel_scope.cancel()
        assert group.cancel_scope.cancel_called
        assert one.counts.failed == 0

    @pytest.mark.parametrize("returns", [True, False])
    async def test_a_hook_that_cancels_its_own_task_does_not_end_the_lane(
        self, *, returns: bool
    ) -> None:
        class Cancels(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                if not returns:
                    await asyncio.sleep(0)

        one = lane(Cancels())
        for _ in range(3):
            await one.call(letter())
        await asyncio.sleep(0)  # where a cancellation that is left would be raised
        assert (one.counts.delivered, one.counts.failed) == ((3, 0) if returns else (0, 3))

    async def test_flags_that_are_neither_true_nor_false_fail_within_the_lane(self) -> None:
        class Odd(TrainerCallback):
            @asynccb.decides()
            async def on_log(self, args, state, control, **kwargs):
                control.should_save = numpy.array([True, False])

        one = lane(Odd())
        await one.call(letter())
        assert one.counts.failed == 1

    async def test_a_cause_is_logged_once_with_its_traceback_and_counted_each_time(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = lane(Raises(*(FallibleError(f"number {n}") for n in range(5))))
        for _ in range(5):
            await one.call(letter())
        assert one.counts.failed == 5
        (message,) = warnings(caplog)
        assert message.startswith("Raises: on_log failed: FallibleError: number 0")
        assert caplog.records[0].exc_info is not None
        assert "raise self.errors.pop(0)" in caplog.text

    async def test_a_second_cause_is_logged_too(self, caplog: pytest.LogCaptureFixture) -> None:
        one = lane(Raises(FallibleError("one"), KeyError("two"), FallibleError("three")))
        for _ in range(3):
            await one.call(letter())
        assert ["FallibleError: one" in m or "KeyError: 'two'" in m for m in warnings(caplog)] == [
            True,
            True,
        ]

    async def test_disable_ends_the_callback_at_its_first_error(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        callback = Raises(FallibleError("x"))
        callback.on_error = "disable"
        one = lane(callback)
        for _ in range(3):
            await one.call(letter())
        assert callback.calls == 1
        assert (one.counts.disabled, one.counts.failed, one.counts.dropped) == (True, 1, 2)
        assert "Raises is disabled after an error in on_log" in warnings(caplog)

    async def test_raise_hands_the_error_on_and_goes_on(self) -> None:
        faults: list[BaseException] = []
        error = FallibleError("x")
        callback = Raises(error)
        callback.on_error = "raise"
        one = lane(callback, faults.append)
        await one.call(letter())
        await one.call(letter())
        assert faults == [error]
        assert one.counts.delivered == 1

    async def test_events_without_a_hook_count_nothing(self) -> None:
        one = lane(Raises())
        await one.call(letter(event=Event.SAVE))
        assert one.counts == type(one.counts)()


class TestTimeouts:
    async def test_a_hook_that_takes_too_long_is_cancelled_and_counted(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        cancelled = False

        class Slow(TrainerCallback):
            timeout = 0.02

            async def on_log(self, args, state, control, **kwargs):
                nonlocal cancelled
                try:
                    await anyio.sleep_forever()
                except asyncio.CancelledError:
                    cancelled = True
                    raise

        one = lane(Slow())
        with anyio.fail_after(5):
            await one.call(letter())
        assert cancelled
        assert (one.counts.timed_out, one.counts.failed, one.counts.delivered) == (1, 1, 0)
        assert "took more than 0.02 s and was cancelled" in warnings(caplog)[0]

    async def test_a_quick_failure_is_no_timeout(self) -> None:
        callback = Raises(FallibleError("x"))
        callback.timeout = 100.0
        one = lane(callback)
        await one.call(letter())
        assert (one.counts.timed_out, one.counts.failed) == (0, 1)


class TestWhatHooksGet:
    async def call(self, hook: Any, **options: Any) -> Any:
        class Uses(TrainerCallback):
            async def on_log(self, args, state, control, **kwargs):
                return hook(state, control, kwargs)

        one = lane(Uses())
        await one.call(letter(7, flags=0b00101, **options))
        return one

    async def test_writing_to_the_control_explains_how_to_decide(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def stop(state: Any, control: Any, keywords: Any) -> None:
            control.should_training_stop = True

        one = await self.call(stop)
        assert one.counts.failed == 1
        assert UndecidedError.__name__ in caplog.text
        assert "@asynccb.decides" in caplog.text

    async def test_returning_a_control_with_other_flags_explains_it_too(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = await self.call(lambda *about: TrainerControl(should_training_stop=True))
        assert one.counts.failed == 1
        assert "cannot return a control with other flags" in caplog.text
        assert "@asynccb.decides" in caplog.text

    async def test_returning_the_control_as_it_came_is_nothing(self) -> None:
        one = await self.call(lambda state, control, keywords: control)
        assert (one.counts.failed, one.counts.delivered) == (0, 1)

    async def test_writing_to_the_state_is_an_error_that_says_why(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def write(state: Any, control: Any, keywords: Any) -> None:
            state.best_metric = 1.0

        one = await self.call(write)
        assert one.counts.failed == 1
        assert FrozenError.__name__ in caplog.text
        assert "snapshot of step 7" in caplog.text

    async def test_the_control_shows_the_flags_of_the_emission(self) -> None:
        seen: list[Any] = []
        await self.call(lambda state, control, keywords: seen.append(control))
        assert isinstance(seen[0], TrainerControl)
        assert seen[0].should_training_stop
        assert not seen[0].should_epoch_stop
        assert seen[0].should_save

    async def test_a_hook_may_change_its_logs_without_another_lane_seeing_it(self) -> None:
        logs = {"loss": 1.0}
        await self.call(lambda state, control, keywords: keywords["logs"].clear(), logs=logs)
        assert logs == {"loss": 1.0}

    async def test_returning_the_control_is_fine(self) -> None:
        one = await self.call(lambda state, control, keywords: control)
        assert (one.counts.delivered, one.counts.failed) == (1, 0)

    async def test_returning_nonsense_is_named_once(self, caplog: pytest.LogCaptureFixture) -> None:
        one = await self.call(lambda state, control, keywords: 3)
        await one.call(letter())
        (message,) = warnings(caplog)
        assert "Uses.on_log returned int; a hook returns None, or a control" in message


class Delivering(Tracker):
    """A tracker whose deliveries fail as it is told."""

    interval = 0.01
    address = "http://server/run/1"
    rejected = 0
    time = 0

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.sent: list[int] = []
        self.outbox: list[int] = []
        self.statuses: list[str] = []

    def describe(self, run: Any) -> None: ...

    async def on_log(self, args, state, control, **kwargs):
        self.outbox.append(self.time)

    async def flush(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent += self.outbox
        self.outbox.clear()

    async def finish(self, status: str) -> None:
        self.statuses.append(status)

    async def close(self) -> None: ...


class TestDelivery:
    async def test_events_count_as_delivered_when_the_server_has_acknowledged(self) -> None:
        one = lane(Delivering())
        await one.call(letter(1))
        await one.call(letter(2))
        assert one.counts.delivered == 0
        await one.flush()
        assert one.counts.delivered == 2
        assert one.counts.address == "http://server/run/1"

    async def test_a_tracker_sees_the_time_of_the_emission(self) -> None:
        tracker = Delivering()
        one = lane(tracker)
        await one.call(letter(17))
        await one.flush()
        assert tracker.sent == [17]

    async def test_a_server_that_comes_back_gets_everything_and_retries_are_counted(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = Delivering(*(TransientError("away", retry_after=0.0) for _ in range(2)))
        one = lane(tracker)
        await one.call(letter(1))
        await one.flush()
        assert (tracker.sent, one.counts.retried, one.counts.failed) == ([1], 2, 0)
        (message,) = warnings(caplog)
        assert "it is tried again until it succeeds" in message

    async def test_a_server_that_refuses_access_ends_the_tracker(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracker = Delivering(AccessError("401: log in"))
        one = lane(tracker)
        await one.call(letter(1))
        await one.flush()
        await one.finish("finished", 0)
        assert one.counts.disabled
        assert one.counts.delivered == 0
        assert tracker.statuses == []
        assert "Delivering gives up: 401: log in" in caplog.text

    async def test_a_bug_in_a_delivery_ends_the_tracker_rather_than_skip_what_was_not_sent(
        self,
    ) -> None:
        tracker = Delivering(FallibleError("bug"))
        one = lane(tracker)
        await one.call(letter(1))
        await one.flush()
        assert (one.counts.disabled, one.counts.delivered, one.counts.failed) == (True, 0, 1)
