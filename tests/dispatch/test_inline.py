"""`def` hooks: run inline, in order, with the semantics of transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb import (
    CallbackDispatcher,
    ClosedError,
    Event,
    HookReturnError,
    TrainerCallback,
    TrainerControl,
)
from asynccb._ground.events import EVENTS, RESETS
from asynccb._state.control import FLAGS
from tests.support.callbacks_for_tests import StepsOnly
from tests.support.running import Inline, Logs, running


class On(TrainerCallback):
    """Do something at one event."""

    def __init__(self, event: Event, what: Any) -> None:
        def hook(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            return what(args=args, state=state, control=control, **kwargs)

        setattr(self, event, hook)


class TestOrder:
    def test_hooks_run_in_the_order_of_the_callbacks_on_the_callers_thread(self) -> None:
        seen: list[str] = []
        with running(Inline("a", seen), Inline("b", seen), Inline("c", seen)) as run:
            run.emit("on_step_end")
            assert seen == ["a", "b", "c"]

    def test_a_callback_added_during_an_event_takes_part_from_the_next_one_on(self) -> None:
        seen: list[str] = []
        added = Inline("added", seen)
        with running() as run:

            def add(**kwargs: Any) -> None:
                if added not in run.callbacks:
                    run.add_callback(added)

            run.add_callback(On(Event.STEP_END, add))
            run.emit("on_step_end")
            assert seen == []
            run.emit("on_step_end")
            assert seen == ["added"]

    def test_a_callback_that_removes_itself_does_not_make_the_next_one_miss_the_event(self) -> None:
        seen: list[str] = []
        with running() as run:
            leaving = On(Event.STEP_END, lambda **kwargs: run.remove_callback(leaving))
            run.add_callback(leaving)
            run.add_callback(Inline("next", seen))
            run.emit("on_step_end")
            run.emit("on_step_end")
            assert seen == ["next", "next"]
            assert leaving not in run.callbacks


class TestArguments:
    def test_every_event_passes_state_control_args_and_all_objects(self) -> None:
        objects = {
            name: object()
            for name in (
                "model",
                "optimizer",
                "lr_scheduler",
                "processing_class",
                "train_dataloader",
                "eval_dataloader",
            )
        }
        for event in EVENTS:
            seen: list[dict[str, Any]] = []
            with running(On(event, lambda seen=seen, **kw: seen.append(kw)), **objects) as run:
                run.emit(event)
                assert seen == [
                    {"args": run.args, "state": run.state, "control": run.control, **objects}
                ]

    def test_what_is_emitted_with_an_event_reaches_the_hooks_as_it_is(self) -> None:
        logs = {"loss": 1.0}
        seen: list[Any] = []
        with running(On(Event.LOG, lambda logs, **kw: seen.append(logs))) as run:
            run.emit("on_log", logs=logs)
        assert seen[0] is logs

    def test_objects_set_later_reach_the_hooks(self) -> None:
        seen: list[Any] = []
        with running(On(Event.STEP_END, lambda optimizer, **kw: seen.append(optimizer))) as run:
            run.optimizer = "the optimizer"
            run.emit("on_step_end")
            assert run.optimizer == "the optimizer"
        assert seen == ["the optimizer"]


class TestControl:
    @pytest.mark.parametrize("event", EVENTS)
    def test_an_event_clears_its_own_flags_before_its_hooks_and_no_others(
        self, event: Event
    ) -> None:
        seen: dict[str, bool] = {}

        def look(control: TrainerControl, **kwargs: Any) -> None:
            seen.update({flag: getattr(control, flag) for flag in FLAGS})

        with running(On(event, look)) as run:
            for flag in FLAGS:
                setattr(run.control, flag, True)
            run.emit(event)
        assert {flag for flag, value in seen.items() if not value} == set(RESETS.get(event, ()))

    @pytest.mark.parametrize("event", EVENTS)
    def test_flags_are_cleared_without_any_callback_too(self, event: Event) -> None:
        with running() as run:
            for flag in FLAGS:
                setattr(run.control, flag, True)
            control = run.emit(event)
            cleared = {flag for flag in FLAGS if not getattr(control, flag)}
        assert cleared == set(RESETS.get(event, ()))

    def test_a_later_hook_sees_and_undoes_what_an_earlier_one_set(self) -> None:
        def want(control: TrainerControl, **kwargs: Any) -> None:
            control.should_save = control.should_log = True

        def undo(control: TrainerControl, **kwargs: Any) -> None:
            control.should_save = not control.should_save

        with running(On(Event.STEP_END, want), On(Event.STEP_END, undo)) as run:
            control = run.emit("on_step_end")
        assert (control.should_save, control.should_log) == (False, True)

    def test_a_returned_control_replaces_the_one_of_the_run_for_good(self) -> None:
        mine = TrainerControl(should_training_stop=True)
        seen: list[Any] = []
        with running(
            On(Event.STEP_END, lambda **kwargs: mine),
            On(Event.STEP_END, lambda control, **kwargs: seen.append(control)),
        ) as run:
            assert run.emit("on_step_end") is mine
            assert run.emit("on_substep_end") is mine
            assert run.control is mine
        assert seen[0] is mine

    @pytest.mark.parametrize("nonsense", [True, 0, "stop", object()])
    def test_returning_anything_else_names_hook_and_value(self, nonsense: object) -> None:
        with running(On(Event.STEP_END, lambda **kwargs: nonsense)) as run:
            before = run.control
            with pytest.raises(HookReturnError, match=r"On\.on_step_end returned") as caught:
                run.emit("on_step_end")
            assert repr(nonsense) in str(caught.value)
            assert run.control is before

    def test_a_coroutine_returned_by_a_plain_hook_is_refused(self) -> None:
        async def later() -> None: ...

        coroutine = later()
        with (
            running(On(Event.STEP_END, lambda **kwargs: coroutine)) as run,
            pytest.raises(HookReturnError, match="returned coroutine"),
        ):
            run.emit("on_step_end")
        coroutine.close()


class TestErrors:
    def test_an_error_in_a_hook_reaches_the_caller_and_later_hooks_are_not_called(self) -> None:
        error = RuntimeError("x")

        def fail(control: TrainerControl, **kwargs: Any) -> None:
            control.should_save = True
            raise error

        seen: list[str] = []
        with running(On(Event.STEP_END, fail), Inline("later", seen)) as run:
            with pytest.raises(RuntimeError) as caught:
                run.emit("on_step_end")
            assert caught.value is error
            assert run.control.should_save
            run.pop_callback(On)
            run.emit("on_step_end")
        assert seen == ["later"]

    def test_the_lanes_get_the_event_even_where_an_inline_hook_raised(self) -> None:
        def fail(**kwargs: Any) -> None:
            raise RuntimeError("x")

        logs = Logs()
        with running(On(Event.LOG, fail), logs) as run:
            with pytest.raises(RuntimeError):
                run.emit("on_log", logs={"loss": 1.0})
            assert run.flush(10)
        assert logs.seen == [(0, {"loss": 1.0})]


class TestNobodyListens:
    def test_an_event_that_resets_nothing_and_has_no_listener_has_no_route(self) -> None:
        with running(Inline()) as run:
            idle = {event for event in EVENTS if run._emitter.routes[event] is None}
            assert idle == set(EVENTS) - set(RESETS) - {Event.STEP_END, Event.TRAIN_END}
            run.pop_callback(Inline)
            boundary = run._emitter.routes[Event.STEP_END]  # of decisions
            assert not boundary.is_heard

    def test_without_async_hooks_neither_thread_nor_process_nor_folder_is_made(
        self, tmp_path: Any
    ) -> None:
        with running(Inline(), directory=tmp_path / "runs") as run:
            run.step(logs={"loss": 1.0})
            assert run._run.publisher.thread.loop._thread is None
            assert run._run.publisher.companion is None
        assert not (tmp_path / "runs").exists()

    def test_events_that_nobody_listens_to_are_not_counted(self) -> None:
        with running() as run:
            run.emit("on_step_end")
            assert run.statistics().events == 0


class TestCallbacks:
    def test_a_class_is_made_into_an_instance_and_an_instance_is_taken_as_it_is(self) -> None:
        one = Logs()
        with running(Inline, one) as run:
            assert [type(callback) for callback in run.callbacks] == [Inline, Logs]
            assert run.callbacks[1] is one
            assert run.callback_list == "Inline\nLogs"

    def test_a_second_one_of_a_class_is_added_with_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[str] = []
        with running(Inline("a", seen), Inline("b", seen)) as run:
            run.emit("on_step_end")
        assert seen == ["a", "b"]
        (record,) = caplog.records
        assert "a second Inline is added" in record.getMessage()

    def test_a_subclass_of_one_that_is_there_is_added_without_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Child(Inline): ...

        with running(Inline(), Child()) as run:
            assert len(run.callbacks) == 2
        assert caplog.records == []

    def test_popping_a_class_takes_the_first_that_is_one_and_returns_it(self) -> None:
        class Child(Inline): ...

        first, second = Child(), Inline()
        with running(Logs(), first, second) as run:
            assert run.pop_callback(Inline) is first
            assert run.pop_callback(Inline) is second
            assert run.pop_callback(Inline) is None

    def test_popping_the_base_class_takes_the_first_of_all(self) -> None:
        first = Inline()
        with running(first, Logs()) as run:
            assert run.pop_callback(TrainerCallback) is first

    def test_popping_an_instance_takes_exactly_that_one(self) -> None:
        first, second = Inline("a"), Inline("b")
        with running(first, second) as run:
            assert run.pop_callback(second) is second
            assert run.pop_callback(second) is None
            assert run.callbacks == [first]

    def test_popping_an_instance_tells_equal_ones_apart(self) -> None:
        @dataclasses.dataclass
        class Equal(TrainerCallback):
            url: str = ""

        one, other = Equal(), Equal()
        with running(one, other) as run:
            assert run.pop_callback(other) is other
            assert run.callbacks[0] is one

    def test_a_callback_that_cannot_be_written_to_can_ask_for_something(self) -> None:
        @dataclasses.dataclass(frozen=True)
        class Frozen(TrainerCallback):
            url: str = ""

        frozen = Frozen()
        with running(frozen) as run:
            frozen.request(should_save=True)
            assert run.step().should_save

    def test_removing_a_class_that_is_not_there_is_silent(self) -> None:
        with running() as run:
            run.remove_callback(Inline)

    def test_removing_an_instance_that_is_not_there_names_it_and_those_that_are(self) -> None:
        with (
            running(Logs()) as run,
            pytest.raises(ValueError, match=r"Inline.* is not one.*: Logs"),
        ):
            run.remove_callback(Inline())

    def test_a_removed_callback_is_called_no_more(self) -> None:
        one = Inline("x")
        with running(one) as run:
            run.emit("on_step_end")
            run.remove_callback(one)
            run.emit("on_step_end")
        assert one.seen == ["x"]

    def test_a_callback_of_transformers_is_taken_as_it_is(self) -> None:
        import transformers

        class Theirs(transformers.TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_log = True
                return control

        with running(Theirs) as run:
            assert run.emit("on_step_end").should_log


class TestStep:
    def test_what_a_step_has_logged_is_kept_where_an_error_is_raised_at_it(self) -> None:
        def fail(**kwargs: Any) -> None:
            raise ZeroDivisionError

        logs = Logs()
        with running(On(Event.STEP_END, fail), logs) as run:
            with pytest.raises(ZeroDivisionError):
                run.step(logs={"loss": 1.0})
            assert run.state.log_history == [{"loss": 1.0, "step": 1}]
        assert logs.steps == [1]

    def test_a_hook_that_closes_the_run_ends_it_with_that_event(self, tmp_path: Path) -> None:
        inline, remote = Inline(), StepsOnly(str(tmp_path / "file"))
        closes = On(Event.STEP_END, lambda **kwargs: run.close())
        with running(closes, inline, remote, directory=tmp_path) as run:
            run.step()
            with pytest.raises(ClosedError):
                run.step()
        assert len(inline.seen) == 1

    def test_a_step_is_counted_before_its_hooks_run(self) -> None:
        seen: list[int] = []
        with running(On(Event.STEP_END, lambda state, **kw: seen.append(state.global_step))) as run:
            run.step()
            run.step()
            assert run.statistics().steps == 2
        assert seen == [1, 2]

    def test_events_come_in_the_order_step_log_log_evaluate(self) -> None:
        seen: list[tuple[str, Any]] = []
        hooks = [
            On(
                event,
                lambda event=event, logs=None, metrics=None, **kw: seen.append(
                    (event, logs or metrics)
                ),
            )
            for event in (Event.STEP_END, Event.LOG, Event.EVALUATE)
        ]
        with running(*hooks) as run:
            run.step(logs={"loss": 1.0}, metrics={"eval_loss": 2.0})
        assert seen == [
            ("on_step_end", None),
            ("on_log", {"loss": 1.0}),
            ("on_log", {"eval_loss": 2.0}),
            ("on_evaluate", {"eval_loss": 2.0}),
        ]

    def test_logs_and_metrics_go_to_the_log_history_with_the_step(self) -> None:
        logs = {"loss": 1.0}
        with running() as run:
            run.step(logs=logs)
            run.step(metrics={"eval_loss": 2.0})
            run.step()
            assert run.state.log_history == [
                {"loss": 1.0, "step": 1},
                {"eval_loss": 2.0, "step": 2},
            ]
        assert logs == {"loss": 1.0}

    def test_empty_logs_are_logged_all_the_same(self) -> None:
        seen: list[Any] = []
        with running(On(Event.LOG, lambda logs, **kw: seen.append(logs))) as run:
            run.step(logs={})
        assert seen == [{}]

    def test_the_flags_of_the_step_before_are_cleared_and_stops_are_kept(self) -> None:
        with running() as run:
            for flag in FLAGS:
                setattr(run.control, flag, True)
            control = run.step()
        assert [flag for flag in FLAGS if getattr(control, flag)] == [
            "should_training_stop",
            "should_epoch_stop",
        ]

    def test_what_a_hook_asks_for_at_the_step_is_returned(self) -> None:
        def save(control: TrainerControl, **kwargs: Any) -> None:
            control.should_save = True

        with running(On(Event.STEP_END, save)) as run:
            assert run.step().should_save

    def test_max_steps_asks_for_the_end_exactly_there(self) -> None:
        with running(max_steps=3) as run:
            assert [run.step().should_training_stop for _ in range(3)] == [False, False, True]
            assert run.state.max_steps == 3

    def test_without_max_steps_nothing_asks_for_the_end(self) -> None:
        with running() as run:
            assert not any(run.step().should_training_stop for _ in range(50))

    def test_a_state_that_was_given_goes_on_from_its_step(self) -> None:
        state = asynccb.TrainerState(global_step=9, log_history=[{"loss": 3.0, "step": 9}])
        with running(state=state, max_steps=10) as run:
            assert run.step(logs={"loss": 1.0}).should_training_stop
            assert run.state is state
        assert [entry["step"] for entry in state.log_history] == [9, 10]


class TestTraining:
    def test_the_with_block_begins_and_ends_the_training(self) -> None:
        seen: list[str] = []
        hooks = [
            On(event, lambda event=event, **kw: seen.append(event))
            for event in (Event.TRAIN_BEGIN, Event.STEP_END, Event.TRAIN_END)
        ]
        with CallbackDispatcher(hooks) as run:
            run.step()
        assert seen == ["on_train_begin", "on_step_end", "on_train_end"]

    def test_a_body_that_raises_does_not_end_the_training_as_if_it_were_done(self) -> None:
        seen: list[str] = []
        hook = On(Event.TRAIN_END, lambda **kw: seen.append("end"))
        error = RuntimeError("x")

        def train() -> None:
            with CallbackDispatcher([hook]):
                raise error

        with pytest.raises(RuntimeError) as caught:
            train()
        assert caught.value is error
        assert seen == []
