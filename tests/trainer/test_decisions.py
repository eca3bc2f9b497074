"""
Decisions in a Trainer: at their boundaries, in checkpoints, through kills, from a trace.

`python tests/decisions/prove_decisions.py kills 50` has more kills.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from asynccb import ConfigurationError, EarlyStoppingCallback, TrainerCallback, decides
from asynccb._state.control import FLAGS
from asynccb.checkpoint.callback_states import DISPATCHER
from tests.decisions.deciding import lines_of, trace_of
from tests.decisions.deciding_training import STEPS, draw_kill, go_on, kill_and_go_on
from tests.support.regression import Recorder, history, train, weights


class AtStep(TrainerCallback):
    """Set flags at the end of a step, applied one step later."""

    def __init__(self, step: int, *flags: str) -> None:
        self.step, self.flags = step, flags

    @decides()
    async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            for flag in self.flags:
                setattr(control, flag, True)


def test_what_was_decided_is_done_at_its_boundary_as_if_a_def_hook_had_asked(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    flags = ("should_log", "should_evaluate", "should_save")
    train(tmp_path, AtStep(1, *flags), recorder, max_steps=3, save_strategy="no", logging_steps=100)
    ends = [n for n, event in enumerate(recorder.events) if event == "on_step_end"]
    evaluation = ["on_prediction_step"] * 2 + ["on_log", "on_evaluate"]
    assert recorder.events[ends[1] + 1 : ends[2] - 3] == ["on_log", *evaluation, "on_save"]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_stop_ends_the_training_at_its_boundary(tmp_path: Path) -> None:
    assert train(tmp_path, AtStep(2, "should_training_stop")).state.global_step == 3


def test_an_epoch_stop_ends_the_epoch_at_its_boundary(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, AtStep(2, "should_epoch_stop"), recorder, num_train_epochs=2)
    assert recorder.steps[recorder.events.index("on_epoch_end")] == 3


def test_what_is_due_at_the_last_step_is_done_and_no_decision_goes_beyond_it(
    tmp_path: Path,
) -> None:
    class GoesOn(AtStep):
        @decides(lag=0)
        async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = False

    recorder = Recorder()
    settings: dict[str, Any] = {"max_steps": 3, "save_strategy": "no"}
    train(tmp_path, AtStep(2, "should_save", "should_evaluate"), GoesOn(0), recorder, **settings)
    assert recorder.steps[-1] == 3
    assert recorder.events.count("on_save") == recorder.events.count("on_evaluate") == 1
    assert (tmp_path / "checkpoint-3").is_dir()


def test_a_stop_decided_at_train_begin_runs_no_step(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        @decides(lag=0)
        async def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = True

    assert train(tmp_path, Stops()).state.global_step == 0


def test_a_checkpoint_holds_the_pending_decisions_and_the_trace(tmp_path: Path) -> None:
    train(tmp_path, AtStep(2, "should_save"), AtStep(3, "should_log"), save_strategy="no")
    folder = tmp_path / "checkpoint-3"
    state = json.loads((folder / "trainer_state.json").read_text())
    stored = state["stateful_callbacks"][DISPATCHER]
    assert stored["args"] == {}
    pending = [(each["callback"], each["flags"]) for each in stored["attributes"]["pending"]]
    assert pending == [("AtStep", {}), ("AtStep-2", {"should_log": True})]
    assert [line["boundary"] for line in lines_of(folder / "decisions.jsonl")] == [3]


def test_resuming_warns_neither_of_the_dispatcher_nor_of_deciders_that_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"save_strategy": "no", "max_steps": 6}
    train(tmp_path, AtStep(2, "should_save"), **settings)
    train(
        tmp_path,
        AtStep(2, "should_save"),
        resume=tmp_path / "checkpoint-3",
        restore_callback_states_from_checkpoint=True,
        **settings,
    )
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes of an uninterrupted run."""
    outcome = go_on(tmp_path_factory.mktemp("whole"))
    assert outcome["history"][-1]["step"] == STEPS
    return outcome


@pytest.mark.parametrize(
    "kill",
    [
        "anywhere",
        (7, "on_save"),  # none of those who decide on it has been asked
        (20, "on_pre_optimizer_step"),  # what was decided on the save of step 19 is not due yet
    ],
)
def test_a_run_that_is_killed_and_resumed_ends_as_an_uninterrupted_one(
    tmp_path: Path, whole: dict[str, Any], kill: tuple[int, str] | str
) -> None:
    step, event = draw_kill(random.Random()) if isinstance(kill, str) else kill
    assert kill_and_go_on(tmp_path, step, event) == whole, (step, event)


def test_a_trainer_replays_a_trace(tmp_path: Path) -> None:
    first = train(tmp_path / "a", AtStep(2, *FLAGS), logging_steps=1)
    trace = trace_of(first.dispatcher)

    class Unasked(AtStep):
        @decides()
        async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise AssertionError("a hook that decides is not asked when a trace is replayed")

    Unasked.__name__ = "AtStep"
    again = train(tmp_path / "b", Unasked(0), logging_steps=1, given={"replay": trace})
    assert again.state.global_step == 3
    assert history(again) == history(first)
    assert lines_of(trace_of(again.dispatcher)) == lines_of(trace)


class TestSigterm:
    def test_it_saves_and_stops_and_the_old_handler_is_put_back(self, tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGTERM)
        recorder = Recorder(
            on_substep_end=lambda state, control: None,
            on_optimizer_step=lambda state, control: (
                signal.raise_signal(signal.SIGTERM) if state.global_step == 1 else None
            ),
        )
        trainer = train(tmp_path, recorder, save_strategy="no", enable_jit_checkpoint=True)
        assert trainer.state.global_step == 2
        assert (tmp_path / "checkpoint-2").is_dir()
        assert recorder.events[-1] == "on_train_end"
        assert signal.getsignal(signal.SIGTERM) == before

    def test_the_handler_is_put_back_after_an_error_too(self, tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGTERM)

        def fail(state: Any, control: Any) -> None:
            raise OSError("no paper")

        with pytest.raises(OSError, match="no paper"):
            train(tmp_path, Recorder(on_step_end=fail), enable_jit_checkpoint=True)
        assert signal.getsignal(signal.SIGTERM) == before

    def test_off_the_main_thread_it_is_refused(self, tmp_path: Path) -> None:
        errors: list[BaseException] = []

        def work() -> None:
            try:
                train(tmp_path, enable_jit_checkpoint=True)
            except ConfigurationError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert "train() does not run on the main thread" in str(errors[0])


def test_early_stopping_agrees_among_the_ranks() -> None:
    assert EarlyStoppingCallback().agreed


def test_an_evaluation_at_the_start_is_not_repeated_by_a_resumed_run(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"eval_on_start": True, "max_steps": 4, "save_steps": 2}
    whole = train(tmp_path, **settings)
    resumed = train(tmp_path, resume=tmp_path / "checkpoint-2", **settings)
    assert history(resumed) == history(whole)
    assert weights(resumed) == weights(whole)
