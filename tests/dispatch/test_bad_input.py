"""What is wrong is refused where it is given, by name, with what to do."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from asynccb import (
    CallbackDispatcher,
    ConfigurationError,
    DefinitionError,
    TensorBoardCallback,
    TrainerCallback,
    UnknownEventError,
)
from tests.support.running import Everything, Inline, Logs, running


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"overflow": "wait"}, "overflow is 'wait'; it takes one of block, drop_oldest"),
            ({"overflow": None}, "overflow is None; it takes one of"),
            ({"capacity": 0}, "capacity is 0; it takes an integer above 0"),
            ({"capacity": -1}, "capacity is -1"),
            ({"capacity": 1.5}, "capacity is 1.5"),
            ({"max_steps": -1}, "max_steps is -1; it takes 0 or a number of steps"),
            ({"max_steps": 2.0}, "max_steps is 2.0"),
            ({"max_steps": None}, "max_steps is None"),
        ],
    )
    def test_a_value_out_of_range_is_refused(self, options: Any, complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(complaint)):
            CallbackDispatcher([], **options)

    @pytest.mark.parametrize("callbacks", [None, 3, "callbacks", Inline, Inline()])
    def test_callbacks_that_are_no_list_are_refused(self, callbacks: Any) -> None:
        with pytest.raises(DefinitionError, match="it takes a list of callbacks"):
            CallbackDispatcher(callbacks)

    @pytest.mark.parametrize("directory", [3, b"bytes"])
    def test_a_directory_that_is_none_is_refused(self, directory: Any) -> None:
        with pytest.raises(TypeError):
            CallbackDispatcher([], directory=directory)

    @pytest.mark.parametrize("timeout", [None, "5", -1, True, float("nan"), float("inf")])
    def test_a_close_without_a_number_of_seconds_is_refused_and_closes_nothing(
        self, timeout: Any
    ) -> None:
        logs = Logs()
        with running(logs) as run:
            with pytest.raises(ConfigurationError, match=re.escape(f"timeout is {timeout!r}")):
                run.close(timeout)
            run.step(logs={"loss": 1.0})
        assert logs.steps == [1]


class TestCallbacks:
    def test_where_one_cannot_work_none_is_served(self, tmp_path: Path) -> None:
        before = threading.enumerate()
        with pytest.raises(DefinitionError, match="is not a callback"):
            CallbackDispatcher(
                [Logs(), TensorBoardCallback(), object()], directory=tmp_path / "runs"
            )
        assert threading.enumerate() == before
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("callback", [3, "Inline", object(), object, dict, print])
    def test_an_object_that_is_no_callback_is_refused(self, callback: Any) -> None:
        with pytest.raises(DefinitionError, match="is not a callback: inherit from"):
            CallbackDispatcher([callback])

    def test_a_misspelt_hook_is_refused_with_the_name_that_is_meant(self) -> None:
        class Misspelt(TrainerCallback):
            def on_step_ended(self, args, state, control, **kwargs): ...

        with pytest.raises(DefinitionError, match=r"Misspelt\.on_step_ended.*'on_step_end'"):
            CallbackDispatcher([Misspelt])

    def test_a_hook_with_a_wrong_signature_is_refused(self) -> None:
        class Narrow(TrainerCallback):
            def on_log(self, args, state, control): ...

        with pytest.raises(
            DefinitionError, match=r"Narrow\.on_log cannot be called with a hook's arguments"
        ):
            CallbackDispatcher([Narrow()])

    def test_a_refused_callback_leaves_the_others_as_they_were(self) -> None:
        one = Inline("x")
        with running(one) as run:
            with pytest.raises(DefinitionError):
                run.add_callback(object())
            run.emit("on_step_end")
            assert run.callbacks == [one]
        assert one.seen == ["x"]

    def test_a_class_that_needs_arguments_fails_where_it_is_added(self) -> None:
        class Needs(TrainerCallback):
            def __init__(self, path: str) -> None: ...

        with pytest.raises(TypeError, match="path"):
            CallbackDispatcher([Needs])


class TestEvents:
    @pytest.mark.parametrize(
        ("event", "meant"),
        [
            ("on_step_ended", "on_step_end"),
            ("on_train_start", "on_train_begin"),
            ("step_end", "on_step_end"),
        ],
    )
    def test_an_unknown_event_is_refused_with_the_one_that_is_meant(
        self, event: str, meant: str
    ) -> None:
        with running() as run, pytest.raises(UnknownEventError, match=f"did you mean '{meant}'"):
            run.emit(event)

    @pytest.mark.parametrize("event", [None, 3, "", "xyzzy"])
    def test_nonsense_is_refused_without_a_guess(self, event: Any) -> None:
        with running() as run, pytest.raises(UnknownEventError, match="there is no event"):
            run.emit(event)

    @pytest.mark.parametrize("logs", [3, "loss", [1.0], object()])
    def test_logs_that_are_no_mapping_are_refused_before_anything_changes(self, logs: Any) -> None:
        with running() as run:
            with pytest.raises(TypeError, match="logs"):
                run.step(logs=logs)
            assert run.state.log_history == []
            assert run.state.global_step == 0

    @pytest.mark.parametrize(("event", "name"), [("on_log", "logs"), ("on_evaluate", "metrics")])
    def test_what_is_emitted_with_values_that_are_no_mapping_is_refused(
        self, event: str, name: str
    ) -> None:
        heard = Everything()
        with running(heard) as run:
            with pytest.raises(
                DefinitionError, match=re.escape(f"{name} is [1.0]; it takes a map")
            ):
                run.emit(event, **{name: [1.0]})
            run.emit(event, **{name: None})
            assert run.flush(20)
        assert len(heard.seen) == 1
