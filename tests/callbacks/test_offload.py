"""Synchronous callbacks on threads of their own, in our runs and in those of transformers."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import asynccb
from asynccb import AsyncCallbacks, offload
from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.regression import train
from tests.support.running import Logs, running
from tests.support.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Notes(transformers.TrainerCallback):
    """Note each event with its thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, Any]] = []
        self.threads: set[threading.Thread] = set()

    def note(self, event: str, state: Any, values: Any = None) -> None:
        self.seen.append((event, state.global_step, values))
        self.threads.add(threading.current_thread())

    def on_step_begin(self, args, state, control, **kwargs):
        self.note("begin", state)

    def on_step_end(self, args, state, control, **kwargs):
        self.note("end", state)
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.note("log", state, logs)


def stepped(run: asynccb.CallbackDispatcher, steps: int) -> None:
    for _ in range(steps):
        run.emit("on_step_begin")
        run.step(logs={"loss": 0.5})


def test_its_hooks_run_in_order_on_one_thread_that_is_not_the_trainings(tmp_path: Path) -> None:
    notes = Notes()
    with running(offload(notes), directory=tmp_path) as run:
        stepped(run, 50)
        assert run.flush(10.0)
    expected = [
        each
        for step in range(1, 51)
        for each in [("begin", step - 1, None), ("end", step, None), ("log", step, {"loss": 0.5})]
    ]
    assert notes.seen == expected
    (thread,) = notes.threads
    assert thread is not threading.current_thread()
    assert thread.name == "asynccb-Notes"
    assert thread.daemon


def test_each_callback_has_a_thread_of_its_own_and_its_name_in_the_statistics(
    tmp_path: Path,
) -> None:
    first, second = Notes(), Notes()
    with running(offload(first), offload(second), directory=tmp_path) as run:
        stepped(run, 2)
        assert run.flush(10.0)
        assert list(run.statistics().callbacks) == ["Notes", "Notes-2"]
    assert not first.threads & second.threads


def test_a_callback_that_hangs_delays_neither_the_training_nor_the_others(tmp_path: Path) -> None:
    done = threading.Event()

    class Hangs(transformers.TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            done.wait(30.0)

    logs = Logs()
    with running(offload(Hangs), logs, directory=tmp_path) as run:
        stepped(run, 20)
        eventually(lambda: len(logs.seen) == 20)
        assert run.statistics().callbacks["Hangs"].delivered == 0
        done.set()
        assert run.flush(10.0)
        assert run.statistics().callbacks["Hangs"].delivered == 20


def test_the_state_is_frozen_and_its_history_is_a_list(tmp_path: Path) -> None:
    histories: list[Any] = []

    class Reads(transformers.TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            histories.append(state.log_history)
            state.best_metric = 1.0

    with running(offload(Reads), directory=tmp_path) as run:
        stepped(run, 3)
        assert run.flush(10.0)
        assert run.statistics().callbacks["Reads"].failed == 3
    assert [type(history) for history in histories] == [list] * 3
    assert [len(history) for history in histories] == [1, 2, 3]


def test_logs_are_its_own(tmp_path: Path) -> None:
    class Pops(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            logs.clear()

    logs = Logs()
    with running(offload(Pops), logs, directory=tmp_path) as run:
        stepped(run, 3)
        assert run.flush(10.0)
    assert [entry for _, entry in logs.seen] == [{"loss": 0.5}] * 3


@pytest.mark.parametrize("returns", [False, True], ids=["written", "returned"])
def test_what_it_wants_without_leave_is_an_error_that_says_how(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, returns: bool
) -> None:
    class Stops(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if returns:
                return transformers.TrainerControl(should_training_stop=True)
            control.should_training_stop = True
            return control

    with running(offload(Stops), directory=tmp_path) as run:
        stepped(run, 1)
        assert run.flush(10.0)
        assert not run.control.should_training_stop
    assert "offload(callback, decides=True, lag=1)" in caplog.text


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_with_leave_what_it_wants_is_applied_at_its_step(tmp_path: Path, lag: int) -> None:
    class Stops(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                control.should_training_stop = True
            return control

    with AsyncCallbacks([offload(Stops, decides=True, lag=lag)]) as bridge:
        theirs = their_trainer(tmp_path / "theirs", bridge)
        theirs.train()
    ours = train(tmp_path / "ours", offload(Stops, decides=True, lag=lag))
    assert theirs.state.global_step == ours.state.global_step == 4 + lag


def test_an_error_stays_in_it(tmp_path: Path) -> None:
    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise SystemExit(3)

    with running(offload(Fails), directory=tmp_path) as run:
        stepped(run, 2)
        assert run.flush(10.0)
        assert run.statistics().callbacks["Fails"].failed == 2


def test_the_end_of_an_iterator_is_an_error_like_any_other(tmp_path: Path) -> None:
    class RunsOut(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            next(iter(()))

    with running(offload(RunsOut, decides=True), directory=tmp_path) as run:
        stepped(run, 2)
        assert run.flush(10.0)
        assert run.statistics().callbacks["RunsOut"].failed == 2


def test_after_a_timeout_another_thread_goes_on(tmp_path: Path) -> None:
    done = threading.Event()
    steps: list[int] = []

    class Sticks(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(state.global_step)
            if state.global_step == 1:
                done.wait(30.0)

    sticks = offload(Sticks)
    sticks.timeout = 0.05
    with running(sticks, directory=tmp_path) as run:
        stepped(run, 3)
        assert run.flush(10.0)
        assert run.statistics().callbacks["Sticks"].timed_out == 1
    done.set()
    assert steps == [1, 2, 3]
    eventually(lambda: not threads_of("Sticks")[1:])


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"asynccb-{name}"]


def test_its_thread_ends_when_nobody_has_it_any_more(tmp_path: Path) -> None:
    class Drops(Notes):
        pass

    drops = Drops()
    known = weakref.ref(drops)
    with running(offload(drops), directory=tmp_path) as run:
        stepped(run, 2)
        assert run.flush(10.0)
        assert len(threads_of("Drops")) == 1
    del run, drops

    def gone() -> bool:
        gc.collect()
        return known() is None and not threads_of("Drops")

    eventually(gone)


@pytest.mark.parametrize(
    "kind", [transformers.EarlyStoppingCallback, asynccb.EarlyStoppingCallback]
)
def test_its_state_is_in_checkpoints_and_comes_back(tmp_path: Path, kind: type) -> None:
    settings = {
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 2, "learning_rate": 0.0,
        "metric_for_best_model": "loss",
    }  # fmt: skip
    train(tmp_path, offload(kind(3), decides=True), max_steps=2, **settings)
    stopping = offload(kind, decides=True)
    again = train(
        tmp_path,
        stopping,
        resume=tmp_path / "checkpoint-2",
        restore_callback_states_from_checkpoint=True,
        **settings,
    )
    assert stopping.callback.early_stopping_patience == 3
    assert again.state.global_step == 5  # the third in a row without improvement is that of step 4


def test_the_tensorboard_callback_of_transformers_writes_every_step_from_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations import TensorBoardCallback

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    with AsyncCallbacks([offload(TensorBoardCallback)]) as bridge:
        their_trainer(tmp_path, bridge, logging_steps=1, max_steps=6).train()
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_what_makes_no_sense_is_refused() -> None:
    class Empty(transformers.TrainerCallback):
        pass

    for wrong, message in [
        (Logs, "already"),
        (Empty, "nothing to offload"),
        (object(), "is not a callback"),
        (asynccb.TensorBoardCallback, "already"),
    ]:
        with pytest.raises(asynccb.DefinitionError, match=message):
            offload(wrong)
    with pytest.raises(asynccb.ConfigurationError, match="lag is -1"):
        offload(Notes, decides=True, lag=-1)
    with pytest.raises(asynccb.ConfigurationError, match="decides is 2"):
        offload(Notes, decides=2)  # type: ignore[arg-type]


def test_without_the_bridge_transformers_does_not_take_it(tmp_path: Path) -> None:
    with pytest.raises(asynccb.DefinitionError, match="AsyncCallbacks"):
        their_trainer(tmp_path, offload(Notes))
