"""Callbacks in the companion process: what they see, and that they see all of it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb import (
    CallbackDispatcher,
    CallbackError,
    ConfigurationError,
    MailboxFullError,
    TrainerState,
)
from asynccb._ground.events import EVENTS
from asynccb._state.control import FLAGS
from asynccb._state.trainer_state import STATE_FIELDS
from tests.support.callbacks_for_tests import (
    AllEvents,
    FailsInCompanion,
    FailsToUnpickle,
    FileTracker,
    HangsBlocking,
    LogWitness,
    Modules,
    StepsOnly,
    Unpicklable,
    UnpicklableByValue,
    WritesConcurrently,
    read_lines,
)
from tests.support.launching import output_of
from tests.support.running import companion_of, running
from tests.support.waiting import eventually


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def as_dict(state: TrainerState) -> dict[str, Any]:
    """Return the state's fields as plain data of their own."""
    fields = {name: getattr(state, name) for name in STATE_FIELDS}
    copied: dict[str, Any] = json.loads(json.dumps(fields))
    return copied


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_lines(path)]


class TestWhatArrives:
    def test_every_event_comes_in_order_with_the_state_and_control_of_its_emission(
        self, directory: Path, output: Path
    ) -> None:
        expected = []
        with running(AllEvents(output), directory=directory, max_steps=100) as run:
            for number, event in enumerate(EVENTS):
                run.state.global_step = number
                run.state.epoch = number / 10
                run.state.best_metric = None if number % 2 else float(number)
                run.state.trial_params = {"lr": number}
                run.control.should_epoch_stop = bool(number % 3)
                if number % 4 == 0:
                    run.log({"loss": number / 2})
                    expected.append(("on_log", as_dict(run.state), run.control.state()["args"]))
                control = run.emit(event)
                expected.append((event, as_dict(run.state), control.state()["args"]))
            assert run.flush(20)
        seen = [(line["event"], line["state"], line["control"]) for line in read_lines(output)]
        assert seen == expected

    def test_keywords_are_plain_data_and_logs_and_metrics_those_of_the_emission(
        self, directory: Path, output: Path
    ) -> None:
        import torch

        with running(
            AllEvents(output), directory=directory, model=torch.nn.Linear(2, 3), optimizer=object()
        ) as run:
            run.emit("on_train_begin")
            run.emit("on_log", logs={"loss": torch.tensor(0.5), "deep": {"a": [1, "x", None]}})
            run.emit("on_evaluate", metrics={"eval_loss": 2})
            run.emit("on_save", path=Path("/checkpoint"))
            assert run.flush(20)
        _, log, evaluate, save = (line["keywords"] for line in read_lines(output))
        assert log["logs"] == {"loss": 0.5, "deep": {"a": [1, "x", None]}}
        assert evaluate["metrics"] == {"eval_loss": 2}
        assert save["path"] == "/checkpoint"
        assert log["optimizer"] is None
        assert log["model"]["name"] == "Linear"
        assert log["model"]["parameters"] == 9

    def test_training_arguments_are_there_as_attributes(
        self, directory: Path, output: Path
    ) -> None:
        args = asynccb.TrainingArguments(learning_rate=0.25)
        with running(AllEvents(output), directory=directory, args=args) as run:
            run.emit("on_train_begin")
            run.emit("on_step_end")
            assert run.flush(20)
        assert [line["learning_rate"] for line in read_lines(output)] == [0.25, 0.25]

    def test_the_log_history_is_whole_for_a_callback_that_does_not_listen_to_logs(
        self, directory: Path, output: Path
    ) -> None:
        with running(StepsOnly(output), directory=directory) as run:
            for _ in range(3):
                run.step(logs={"loss": 1.0})
            run.step()
            assert run.flush(20)
            history = run.state.log_history
        assert read_lines(output)[-1]["history"] == history

    def test_the_log_history_of_a_resumed_run_begins_where_the_run_did(
        self, directory: Path, output: Path
    ) -> None:
        state = TrainerState(global_step=7, log_history=[{"loss": 2.0, "step": 7}])
        with running(AllEvents(output), directory=directory, state=state) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            expected = as_dict(run.state)
        assert read_lines(output)[-1]["state"] == expected

    def test_several_callbacks_each_get_everything(self, directory: Path, tmp_path: Path) -> None:
        witnesses = [LogWitness(tmp_path / name) for name in "abc"]
        with running(*witnesses, directory=directory) as run:
            for _ in range(200):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            assert run.statistics().delivered == 600
        assert [steps(tmp_path / name) for name in "abc"] == [list(range(1, 201))] * 3

    def test_concurrency_lets_several_events_be_under_way(
        self, directory: Path, output: Path
    ) -> None:
        with running(WritesConcurrently(output), directory=directory) as run:
            for _ in range(9):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
        assert sorted(steps(output)) == list(range(1, 10))
        assert max(line["active"] for line in read_lines(output)) == 3

    def test_more_than_the_ring_holds_arrives_whole(self, directory: Path, output: Path) -> None:
        with running(LogWitness(output), directory=directory) as run:
            for _ in range(60):
                run.step(logs={"text": "x" * 400_000})
            assert run.flush(30)
            assert run.statistics().dropped == 0
        assert steps(output) == list(range(1, 61))

    def test_logs_that_no_record_can_hold_arrive_as_plain_values_and_are_counted(
        self, directory: Path, output: Path
    ) -> None:
        import numpy as np

        logs = {
            "huge": 2**70,
            "numpy": np.float32(0.5),
            "array": np.array([1, 2]),
            "object": {1, 2}.__class__,
            3: "three",
        }
        with running(LogWitness(output), directory=directory) as run:
            run.step(logs=logs)  # type: ignore[arg-type]
            assert run.flush(20)
            assert run.statistics().odd == 1
        (line,) = read_lines(output)
        assert line["logs"] == {
            "huge": float(2**70),
            "numpy": 0.5,
            "array": [1, 2],
            "object": "<class 'set'>",
            "3": "three",
        }

    @pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "raise"])
    def test_what_a_dropped_event_changed_in_the_state_is_known_with_the_next_one(
        self, directory: Path, output: Path, overflow: Any
    ) -> None:
        with running(AllEvents(output), directory=directory, overflow=overflow, capacity=5) as run:
            run.step(logs={"first": 1.0})
            assert run.flush(20)
            companion = companion_of(run)
            os.kill(companion.pid, signal.SIGSTOP)
            for number in range(40):
                if number == 25:
                    run.state.best_metric = 77.0
                with contextlib.suppress(MailboxFullError):
                    run.log({"text": "x" * 400_000})
            assert run.statistics().dropped > 10
            os.kill(companion.pid, signal.SIGCONT)
            assert run.flush(20)
            run.log({"last": 1.0})
            assert run.flush(20)
        assert read_lines(output)[-1]["state"]["best_metric"] == 77.0

    @pytest.mark.parametrize(
        ("field", "value", "need"),
        [
            ("global_step", 2.5, "an integer"),
            ("global_step", "2", "an integer"),
            ("epoch", "first", "a number"),
            ("epoch", [1], "a number"),
        ],
    )
    def test_a_step_or_epoch_that_is_no_number_is_refused_and_harms_no_later_log(
        self, directory: Path, output: Path, field: str, value: Any, need: str
    ) -> None:
        with running(LogWitness(output), directory=directory) as run:
            before = getattr(run.state, field)
            setattr(run.state, field, value)
            complaint = f"state.{field} is {value!r}, and trackers need {need}; set it to one"
            with pytest.raises(ConfigurationError, match=re.escape(complaint)):
                run.log({"loss": 0.5})
            setattr(run.state, field, before)
            run.log({"loss": 0.25})
            assert run.flush(20)
        assert [line["logs"] for line in read_lines(output)] == [{"loss": 0.25}]

    def test_a_step_of_numpy_and_an_epoch_that_is_an_integer_arrive_as_numbers(
        self, directory: Path, output: Path
    ) -> None:
        import numpy as np

        with running(LogWitness(output), directory=directory) as run:
            run.state.global_step, run.state.epoch = np.int64(3), 2  # type: ignore[assignment]
            run.log({"loss": 0.5})
            assert run.flush(20)
        assert [line["step"] for line in read_lines(output)] == [3]

    def test_text_that_is_no_unicode_arrives_with_escapes_and_is_counted(
        self, directory: Path, output: Path
    ) -> None:
        name = b"caf\xe9.txt".decode("utf-8", "surrogateescape")  # as `os.listdir` returns it
        with running(LogWitness(output), directory=directory) as run:
            run.step(logs={"file": name, name: [1, {"inner": name}], "loss": 0.5})
            assert run.flush(20)
            assert run.statistics().odd == 1
        (line,) = read_lines(output)
        escaped = "caf\\udce9.txt"
        assert line["logs"] == {"file": escaped, escaped: [1, {"inner": escaped}], "loss": 0.5}

    def test_numbers_that_are_not_finite_arrive_as_they_are(
        self, directory: Path, output: Path
    ) -> None:
        with running(LogWitness(output), directory=directory) as run:
            run.step(logs={"a": float("nan"), "b": float("inf")})
            assert run.flush(20)
        (line,) = read_lines(output)
        assert repr(line["logs"]) == "{'a': nan, 'b': inf}"

    def test_a_record_too_large_for_the_ring_is_dropped_counted_and_said(
        self, directory: Path, output: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(LogWitness(output), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            run.step(logs={"text": "x" * (9 << 20)})
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            assert run.statistics().dropped == 1
        assert steps(output) == [1, 3]
        assert "is too large" in caplog.text

    def test_flush_returns_when_the_callback_has_seen_everything(
        self, directory: Path, output: Path
    ) -> None:
        with running(LogWitness(output), directory=directory) as run:
            for step in range(1, 30):
                run.step(logs={"loss": 1.0})
                assert run.flush(20)
                assert steps(output)[-1] == step

    def test_a_tracker_gets_the_time_of_the_emission_and_the_status_of_the_end(
        self, directory: Path, output: Path
    ) -> None:
        with CallbackDispatcher([TimedTracker(str(output))], directory=directory) as run:
            before = time.time_ns()
            run.step(logs={"loss": 1.0})
            after = time.time_ns()
        logged, ended = read_lines(output)
        assert before <= logged["time"] <= after
        assert ended["status"] == "finished"


class TimedTracker(FileTracker):
    async def on_log(self, args, state, control, **kwargs):
        self.outbox.append({"time": self.time})


class TestItsProcess:
    def test_it_is_another_process_that_loads_neither_torch_nor_the_training_program(
        self, directory: Path, output: Path
    ) -> None:
        with running(Modules(output), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
        (line,) = read_lines(output)
        assert line["pid"] != os.getpid()
        assert not {"torch", "transformers", "numpy", "tensorboard", "pytest", __name__} & set(
            line["modules"]
        )

    def test_a_short_life_of_it_takes_less_than_two_seconds_of_a_processor(
        self, directory: Path, output: Path
    ) -> None:
        def spent() -> float:
            return os.times().children_user + os.times().children_system

        begin = spent()
        with running(LogWitness(output), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(60)
        # Others can make it last longer, but hardly cost more.
        assert spent() - begin < 2.0

    def test_its_directory_is_private(
        self, directory: Path, output: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCCB_JOURNAL_KEEP", "1")
        with running(LogWitness(output), directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
        (folder,) = directory.iterdir()
        for path in [folder, *folder.rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path


class TestWhereItCannotLive:
    def on_thread(self, callback: Any, directory: Path) -> None:
        with running(callback, directory=directory) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            assert run._run.publisher.companion is None
        assert [line["pid"] for line in callback.lines()] == [os.getpid()]

    @pytest.mark.parametrize("kind", [Unpicklable, UnpicklableByValue])
    def test_a_callback_that_cannot_be_pickled_is_served_by_the_thread_with_one_line(
        self, directory: Path, output: Path, caplog: pytest.LogCaptureFixture, kind: Any
    ) -> None:
        self.on_thread(kind(output), directory)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert f"{kind.__name__} is served by a thread" in record.getMessage()

    def test_a_callback_of_a_function_is_served_by_the_thread(
        self, directory: Path, output: Path
    ) -> None:
        class Local(LogWitness): ...

        self.on_thread(Local(output), directory)

    def test_a_callback_of_the_main_script_is_served_by_the_thread_with_one_line(
        self, directory: Path
    ) -> None:
        out, _ = output_of("main_callback", directory)
        lines = out.splitlines()
        warning = [line for line in lines if line.startswith("WARNING")]
        assert len(warning) == 1
        assert "its class is defined in the main script" in warning[0]
        assert [line for line in lines if line.startswith("served")] == [
            f"served {step} True" for step in (1, 2, 3)
        ]

    @pytest.mark.parametrize("how", ["fails to unpickle", "cannot be imported"])
    def test_a_callback_that_fails_in_the_companion_is_served_by_the_thread_from_then_on(
        self,
        directory: Path,
        output: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
    ) -> None:
        callback: Any = FailsToUnpickle(output)
        if how == "cannot be imported":
            module = types.ModuleType("made_up_for_this_test")
            kind = type("MadeUp", (LogWitness,), {"__module__": module.__name__})
            module.MadeUp = kind  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
            callback = kind(output)
        with running(callback, directory=directory) as run:
            run.emit("on_train_begin")

            def served() -> bool:
                run.step(logs={"loss": 1.0})
                return bool(callback.lines())

            eventually(served, 3.0)
        assert {line["pid"] for line in callback.lines()} == {os.getpid()}
        counts = run.statistics().callbacks[type(callback).__name__]
        assert counts.dropped > 0
        assert len([r for r in caplog.records if "cannot live in the companion" in r.msg]) == 1


class TestErrors:
    def test_an_error_that_is_to_be_raised_comes_with_a_later_event(self, directory: Path) -> None:
        with running(FailsInCompanion(), directory=directory) as run:

            def raised() -> str:
                try:
                    run.step(logs={"loss": 1.0})
                except CallbackError as error:
                    return str(error)
                return ""

            message = eventually(raised)
        assert message.startswith("FailsInCompanion failed in the companion: RuntimeError: this")

    def test_a_failure_in_the_companion_is_logged_here_and_counted(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        callback = FailsInCompanion()
        callback.on_error = "warn"
        with running(callback, directory=directory) as run:
            for _ in range(3):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            eventually(lambda: run.statistics().callbacks["FailsInCompanion"].failed == 3)
        messages = [record.getMessage() for record in caplog.records]
        assert [m.startswith("FailsInCompanion: on_log failed: Runt") for m in messages] == [True]

    def test_a_callback_that_blocks_the_companions_loop_is_named_while_it_lasts(
        self, directory: Path, output: Path
    ) -> None:
        with running(HangsBlocking(output), directory=directory) as run:
            run.step(logs={"loss": 1.0})

            def named() -> str:
                logs = [path.read_text() for path in directory.glob("*/companion.log")]
                return logs[0] if logs and "has blocked" in logs[0] else ""

            log = eventually(named)
            run.close(0.5)
        assert "HangsBlocking has blocked the event loop for" in log
        assert "callbacks_for_tests.py:" in log


class TestComingAndGoing:
    def test_a_removed_callback_gets_what_was_emitted_before_and_nothing_after(
        self, directory: Path, tmp_path: Path
    ) -> None:
        leaves, stays = LogWitness(tmp_path / "leaves"), LogWitness(tmp_path / "stays")
        with running(leaves, stays, directory=directory) as run:
            for _ in range(100):
                run.step(logs={"loss": 1.0})
            run.remove_callback(leaves)
            for _ in range(100):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            eventually(lambda: len(leaves.lines()) >= 100)
        assert steps(tmp_path / "leaves") == list(range(1, 101))
        assert steps(tmp_path / "stays") == list(range(1, 201))

    def test_a_callback_added_during_training_sees_what_comes_then_with_the_whole_state(
        self, directory: Path, tmp_path: Path
    ) -> None:
        with running(LogWitness(tmp_path / "first"), directory=directory) as run:
            run.state.best_metric = 0.5
            for _ in range(10):
                run.step(logs={"loss": 1.0})
            run.add_callback(AllEvents(tmp_path / "late"))
            expected = []
            for _ in range(3):
                run.step()
                expected.append(as_dict(run.state))
            assert run.flush(20)
        late = read_lines(tmp_path / "late")
        assert [line["event"] for line in late] == ["on_step_end"] * 3
        assert [line["state"] for line in late] == expected
        assert set(late[0]["control"]) == set(FLAGS)
