"""When a decision of an async hook reaches the control."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import anyio
import pytest

from asynccb import (
    CallbackDispatcher,
    CallbackError,
    ClosedError,
    ConfigurationError,
    LateDecisionError,
    TrainerCallback,
    TrainerState,
    UndecidedError,
    decides,
)
from asynccb._state.control import FLAGS, Decision
from tests.decisions.deciding import Decides, saves, saves_at
from tests.support.running import Everything, running
from tests.support.waiting import eventually


class TestBoundaries:
    @pytest.mark.parametrize("lag", [1, 2, 5])
    def test_a_decision_is_applied_at_the_boundary_of_its_lag(self, lag: int) -> None:
        with running(Decides(saves_at(2, 9), lag)) as run:
            assert list(saves(run, 16)) == [2 + lag, 9 + lag]

    def test_a_decision_without_a_lag_is_applied_within_its_event(self) -> None:
        with running(Decides(saves_at(2), 0)) as run:
            assert list(saves(run, 4)) == [2]

    def test_the_boundary_comes_after_the_def_hooks_and_shows_them_nothing(self) -> None:
        seen: list[bool] = []

        class Looks(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                seen.append(control.should_save)
                control.should_save = False

        with running(Decides(saves_at(1)), Looks()) as run:
            assert list(saves(run, 3)) == [2]
        assert seen == [False] * 3

    def test_a_decision_can_clear_what_a_def_hook_has_set(self) -> None:
        class Wants(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_save = True

        class Clears(TrainerCallback):
            @decides()
            async def on_step_end(self, args, state, control, **kwargs):
                control.should_save = False

        with running(Wants(), Clears()) as run:
            assert list(saves(run, 3)) == [1]

    def test_asking_for_what_is_up_at_the_event_counts_where_it_is_down(self) -> None:
        class Saves(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_save = state.global_step == 2

        with running(Saves(), Decides(saves_at(2))) as run:
            assert list(saves(run, 4)) == [2, 3]

    def test_refusing_what_is_down_at_the_event_leaves_what_others_ask_for_later(self) -> None:
        class Saves(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_save = state.global_step > 2

        with running(Saves(), Decides(lambda step: Decision(should_save=False))) as run:
            assert list(saves(run, 4)) == [3]

    def test_no_decision_keeps_a_run_from_ending_at_its_last_step(self) -> None:
        class Asks(TrainerCallback):
            @decides(lag=0)
            async def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = False

        with running(Asks(), max_steps=2) as run:
            assert [run.step().should_training_stop for _ in range(2)] == [False, True]

    def test_the_loop_waits_for_a_decision_that_is_not_in(self) -> None:
        slow = Decides(saves_at(1))
        slow.open.clear()
        with running(slow) as run:
            run.step(logs={"loss": 1.0})
            eventually(lambda: slow.asked)
            threading.Timer(0.05, slow.open.set).start()
            assert run.step().should_save
            counts = run.statistics().callbacks["Decides"]
        assert counts.decided == 1
        assert counts.waited > 0

    def test_within_a_boundary_the_later_event_and_callback_win(self) -> None:
        def says(value: bool) -> Any:
            return lambda step: Decision(should_save=value, should_log=value if step == 2 else None)

        with running(Decides(says(False)), Decides(says(True))) as run:
            run.step(logs={"loss": 1.0})
            run.log({"loss": 2.0})
            control = run.step()
        assert control.should_save

    def test_a_boundary_that_is_jumped_over_is_made_up_for(self) -> None:
        with running(Decides(saves_at(1))) as run:
            run.step(logs={"loss": 1.0})
            run.state.global_step = 9
            assert run.step().should_save

    def test_the_control_of_a_hook_is_its_own_and_shows_the_flags_of_its_event(self) -> None:
        controls: list[Any] = []

        class Keeps(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_evaluate = True

            @decides()
            async def on_log(self, args, state, control, **kwargs):
                controls.append(control)
                control.should_evaluate = False
                return

        with running(Keeps()) as run:
            assert run.step(logs={}).should_evaluate
            assert not run.step().should_evaluate
        assert controls[0] is not run.control

    def test_the_control_that_a_hook_returns_is_its_decision(self) -> None:
        from asynccb import TrainerControl

        class Returns(TrainerCallback):
            @decides()
            async def on_log(self, args, state, control, **kwargs):
                return TrainerControl(should_save=True)

        with running(Returns()) as run:
            run.step(logs={})
            assert run.step().should_save

    def test_an_async_hook_without_the_mark_still_may_not_decide(self) -> None:
        class Undecided(TrainerCallback):
            on_error = "raise"

            async def on_log(self, args, state, control, **kwargs):
                control.should_save = True

        def steps(run: CallbackDispatcher) -> None:
            run.step(logs={})  # or raises itself
            assert run.flush(20)
            run.step()

        with running(Undecided()) as run, pytest.raises(CallbackError) as error:
            steps(run)
        assert isinstance(error.value.__cause__, UndecidedError)

    def test_every_event_can_be_decided_on_without_a_lag(self) -> None:
        from asynccb._ground.events import EVENTS

        class All(TrainerCallback):
            def __init__(self) -> None:
                for event in EVENTS:
                    setattr(self, event, hook)

        @decides(lag=0)
        async def hook(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_epoch_stop = not control.should_epoch_stop

        with running(All()) as run:
            for event in EVENTS:
                before = run.control.should_epoch_stop and event != "on_epoch_begin"
                assert run.emit(event).should_epoch_stop is not before

    def test_what_a_callback_sets_that_agrees_with_other_ranks_is_set_where_there_are_none(
        self,
    ) -> None:
        class Agrees(TrainerCallback):
            agreed = True

            def on_step_end(self, args, state, control, **kwargs):
                control.should_save, control.should_log = True, False

        with running(Agrees()) as run:
            run.control.should_log = True
            control = run.emit("on_step_end")
        assert (control.should_save, control.should_log) == (True, False)

    def test_nothing_is_asked_where_nobody_decides(self) -> None:
        with running(Everything()) as run:
            assert not any(route and route.deciders for route in run._emitter.routes.values())
            run.step(logs={})
            assert run.state_dict()["emission"] == 0

    def test_a_callback_of_another_rank_decides_nothing_here_but_is_on_the_schedule(self) -> None:
        elsewhere = Decides(saves_at(1))
        elsewhere.ranks = "world_zero"
        with running(elsewhere, state=TrainerState(is_world_process_zero=False)) as run:
            assert list(saves(run, 3)) == []
            assert run.state_dict()["emission"] == 3
        assert elsewhere.asked == []


class TestThoseWhoDoNotAnswer:
    def test_a_hook_that_fails_decides_nothing_and_its_error_goes_its_usual_way(self) -> None:
        class Fails(TrainerCallback):
            @decides()
            async def on_log(self, args, state, control, **kwargs):
                control.should_save = True
                raise OSError("no paper")

        with running(Fails()) as run:
            assert list(saves(run, 3)) == []
            assert run.statistics().callbacks["Fails"].failed == 2

    def test_a_hook_that_times_out_decides_nothing(self) -> None:
        class Hangs(TrainerCallback):
            timeout = 0.01

            @decides()
            async def on_log(self, args, state, control, **kwargs):
                control.should_save = True
                await anyio.sleep_forever()

        with running(Hangs()) as run:
            assert list(saves(run, 2)) == []
            assert run.statistics().callbacks["Hangs"].timed_out == 1

    def test_a_disabled_callback_holds_nobody_up_and_that_is_said_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class FailsOnce(TrainerCallback):
            on_error = "disable"

            @decides()
            async def on_log(self, args, state, control, **kwargs):
                raise OSError

        with running(FailsOnce()) as run:
            assert list(saves(run, 5)) == []
        said = [r.message for r in caplog.records if "does not decide any more" in r.message]
        assert len(said) == 1

    @pytest.mark.parametrize("answered", [True, False])
    def test_what_a_removed_callback_was_asked_for_is_lost_whether_it_had_answered_or_not(
        self, answered: bool
    ) -> None:
        leaves = Decides(saves_at(1))
        if not answered:
            leaves.open.clear()
        with running(leaves) as run:
            run.step(logs={"loss": 1.0})
            if answered:
                assert run.flush(20)
            run.remove_callback(leaves)
            assert not run.step().should_save
            leaves.open.set()

    def test_one_that_is_removed_during_the_event_is_not_heard_however_fast_it_is(self) -> None:
        decides = Decides(saves_at(1))

        class Removes(TrainerCallback):
            def on_log(self, args, state, control, **kwargs):
                run.remove_callback(decides)

        with running(Removes(), decides) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            assert not run.step().should_save

    @pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "raise"])
    def test_no_overflow_policy_drops_an_event_that_a_decision_waits_for(
        self, overflow: Any
    ) -> None:
        slow = Decides(saves_at(1, 2, 3), 3)
        slow.open.clear()
        with running(slow, overflow=overflow, capacity=3) as run:
            for _ in range(3):
                run.step(logs={"loss": 1.0})
            slow.open.set()
            assert list(saves(run, 3)) == [4, 5, 6]

    def test_an_error_that_is_to_be_raised_is_raised_and_holds_nobody_up(self) -> None:
        class Fails(TrainerCallback):
            on_error = "raise"

            @decides(lag=0)
            async def on_log(self, args, state, control, **kwargs):
                raise OSError("no paper")

        with running(Fails()) as run, pytest.raises(CallbackError, match="no paper"):
            run.emit("on_log", logs={})


class TestLateness:
    def late(self, **terms: Any) -> Decides:
        slow = Decides(saves_at(1), limit=0.02, **terms)
        slow.open.clear()
        return slow

    def test_past_the_limit_a_warning_names_whom_the_training_waits_for(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        slow = self.late()
        with running(slow) as run:
            run.step(logs={"loss": 1.0})
            threading.Thread(
                target=lambda: eventually(lambda: len(caplog.records) > 1) and slow.open.set()
            ).start()
            assert run.step().should_save
            assert run.statistics().callbacks["Decides"].late == 1
        assert "the decision of Decides.on_log of step 1 is not in after 0.0 s" in caplog.text
        assert [record.levelno for record in caplog.records[:2]] == [logging.WARNING] * 2

    def test_skip_goes_on_and_discards_what_comes_later(self) -> None:
        slow = self.late(on_late="skip")
        with running(slow) as run:
            run.step(logs={"loss": 1.0})
            assert not run.step().should_save
            slow.open.set()
            assert run.flush(20)
            assert not run.step().should_save
            assert run.statistics().callbacks["Decides"].late == 1

    def test_raise_raises_and_the_run_can_go_on(self) -> None:
        slow = self.late(on_late="raise")
        with running(slow) as run:
            run.step(logs={"loss": 1.0})
            with pytest.raises(LateDecisionError, match=r"Decides\.on_log of step 1 .*on_late"):
                run.step()
            slow.open.set()
            assert not run.step().should_save

    def test_ctrl_c_ends_the_wait_and_the_decision_is_not_lost(self) -> None:
        slow = Decides(saves_at(1))
        slow.open.clear()
        main = threading.main_thread().ident
        assert main is not None
        with running(slow) as run:
            run.step(logs={"loss": 1.0})
            timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                run.step()
            timer.join()
            slow.open.set()
            assert run.step().should_save

    def test_what_is_never_applied_is_counted(self, capsys: pytest.CaptureFixture[str]) -> None:
        with running(Decides(saves_at(3), 5)) as run:
            list(saves(run, 3))
        assert run.statistics().callbacks["Decides"].undue == 1
        assert "1 decisions for steps that did not come" in capsys.readouterr().err

    def test_a_training_that_begins_has_nothing_to_do_with_the_one_before(self) -> None:
        with running(Decides(saves_at(1))) as run:
            for _ in range(2):  # each of a single step, whose decision is due at the second
                run.state.global_step = 0
                run.emit("on_train_begin")
                run.step(logs={"loss": 1.0})
            assert not run.control.should_save
        assert run.statistics().callbacks["Decides"].undue == 2


class TestRequests:
    @pytest.mark.parametrize("flag", FLAGS)
    def test_a_request_is_applied_at_the_next_boundary_only(self, flag: str) -> None:
        with running() as run:
            run.request(**{flag: True})
            assert getattr(run.control, flag) is False
            assert getattr(run.step(), flag) is True

    def test_whatever_is_true_asks_for_a_flag(self) -> None:
        with running() as run:
            run.request(should_save="yes")  # type: ignore[arg-type]
            assert run.step().should_save is True

    def test_a_request_comes_from_any_thread_and_from_a_signal(self) -> None:
        with running() as run:
            before = signal.signal(
                signal.SIGUSR1, lambda number, frame: run.request(should_log=True)
            )
            try:
                thread = threading.Thread(target=run.request, kwargs={"should_save": True})
                thread.start()
                thread.join()
                signal.raise_signal(signal.SIGUSR1)
                control = run.step()
            finally:
                signal.signal(signal.SIGUSR1, before)
        assert (control.should_save, control.should_log) == (True, True)

    def test_a_callback_requests_from_a_task_of_its_own(self) -> None:
        class Button(TrainerCallback):
            async def on_step_end(self, args, state, control, **kwargs):
                self.request(should_training_stop=True)

        with running(Button()) as run:
            run.step()
            assert run.flush(20)
            assert run.step().should_training_stop

    def test_a_request_of_nothing_and_one_without_a_run_are_refused(self) -> None:
        with running() as run, pytest.raises(ConfigurationError, match="nothing is requested"):
            run.request()
        with pytest.raises(ConfigurationError, match="there is no run to ask"):
            TrainerCallback().request(should_save=True)

    def test_a_request_after_the_end_is_refused(self) -> None:
        with running() as run:
            pass
        with pytest.raises(ClosedError):
            run.request(should_save=True)
