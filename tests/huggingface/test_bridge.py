"""`AsyncCallbacks` in a `transformers.Trainer`: events, snapshots, decisions, runs and errors."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb import AsyncCallbacks
from asynccb._ground.events import EVENTS, Event
from asynccb._state.control import FLAGS
from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.callbacks_for_tests import FileTracker, LogWitness, StepsOnly, read_lines
from tests.support.regression import SPEED, Model, Recorder
from tests.support.running import Everything, Logs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

Bridging = Callable[..., AsyncCallbacks]


@pytest.fixture
def bridging() -> Iterator[Bridging]:
    """Make bridges that are closed in every case."""
    made: list[AsyncCallbacks] = []

    def make(*callbacks: Any, **options: Any) -> AsyncCallbacks:
        made.append(AsyncCallbacks(callbacks, **options))
        return made[-1]

    yield make
    for bridge in made:
        bridge.close(5.0)


class Inline(asynccb.TrainerCallback):
    """Keep what each `def` hook got."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, Any, Any, dict[str, Any]]] = []
        for event in EVENTS:
            setattr(self, event, self._hook(event))

    def _hook(self, event: Event) -> Any:
        def hook(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seen.append((event, args, state, control, kwargs))

        return hook


class DecidesOnLog(asynccb.TrainerCallback):
    """Want something two steps after the log of step 4."""

    def __init__(self, flag: str) -> None:
        self.flag = flag

    @asynccb.decides(lag=2)
    async def on_log(self, args, state, control, **kwargs):
        if state.global_step == 4:
            setattr(control, self.flag, True)


# Events


@pytest.mark.parametrize(
    "settings",
    [
        {"logging_steps": 3, "eval_strategy": "steps", "eval_steps": 5, "save_steps": 7},
        {"gradient_accumulation_steps": 3, "logging_strategy": "epoch", "save_strategy": "epoch"},
    ],
    ids=["steps", "accumulation"],
)
def test_every_event_comes_as_it_does_without_the_bridge(
    bridging: Bridging, tmp_path: Path, settings: dict[str, Any]
) -> None:
    direct, bridged = Recorder(), Recorder()
    their_trainer(tmp_path, direct, **settings).train()
    their_trainer(tmp_path, bridging(bridged), **settings).train()
    assert bridged.events == direct.events
    assert bridged.steps == direct.steps
    assert bridged.flags == direct.flags
    assert [list(logs) for logs in bridged.logs] == [list(logs) for logs in direct.logs]


def test_def_hooks_get_the_own_objects_of_transformers(bridging: Bridging, tmp_path: Path) -> None:
    direct, bridged = Inline(), Inline()
    trainer = their_trainer(tmp_path, direct, bridging(bridged), max_steps=2, logging_steps=1)
    trainer.train()
    trainer.evaluate()
    assert len(bridged.seen) == len(direct.seen) > 10
    for (event, *ours, kwargs), (same, *theirs, given) in zip(
        bridged.seen, direct.seen, strict=True
    ):
        assert event == same
        assert all(one is other for one, other in zip(ours, theirs, strict=True))
        assert list(kwargs) == list(given)
        assert all(kwargs[name] is given[name] for name in given)


def test_async_hooks_get_snapshots_and_the_live_objects(bridging: Bridging, tmp_path: Path) -> None:
    seen = Everything()
    bridge = bridging(seen)
    trainer = their_trainer(tmp_path, bridge, max_steps=4, logging_steps=1)
    seen.open.clear()
    trainer.train()
    seen.open.set()
    assert bridge.flush(10.0)
    logs = [(state, given) for event, _, state, _, given in seen.seen if event == Event.LOG]
    assert [state.global_step for state, _ in logs] == [1, 2, 3, 4, 4]
    assert [len(state.log_history) for state, _ in logs] == [1, 2, 3, 4, 5]
    for state, given in logs:
        assert isinstance(state, asynccb.TrainerState)
        assert given["model"] is trainer.model
        assert {**given["logs"], "step": state.global_step} == state.log_history[-1]
        with pytest.raises(asynccb.FrozenError):
            state.global_step = 0


def test_the_companion_knows_the_log_history_also_where_a_hook_adds_to_the_logs(
    bridging: Bridging, tmp_path: Path
) -> None:
    class Adds(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.global_step == 2:
                logs["added"] = 1.0

    steps, logs = StepsOnly(tmp_path / "steps"), LogWitness(tmp_path / "logs")
    bridge = bridging(steps, logs)
    trainer = their_trainer(tmp_path, Adds, bridge, max_steps=4, logging_steps=1)
    trainer.train()
    assert bridge.flush(20.0)
    expected = trainer.state.log_history
    assert [line["history"] for line in steps.lines()] == [expected[:n] for n in range(4)]
    assert [line["logs"].get("added") for line in logs.lines()] == [None, 1.0, None, None, None]


def test_flags_that_callbacks_before_the_bridge_set_are_kept(
    bridging: Bridging, tmp_path: Path
) -> None:
    class Before(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            control.should_log = True

        def on_log(self, args, state, control, **kwargs):
            control.should_log = True  # again, right after it was cleared

    recorder = Recorder()
    their_trainer(tmp_path, Before, bridging(recorder), max_steps=2).train()
    at = dict(zip(recorder.events, recorder.flags, strict=True))
    assert "should_log" in at[Event.STEP_BEGIN]
    assert "should_log" in at[Event.LOG]


def test_the_control_stays_that_of_transformers_where_a_hook_returns_one_of_ours(
    bridging: Bridging, tmp_path: Path
) -> None:
    class Returns(asynccb.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            return asynccb.TrainerControl(should_training_stop=state.global_step == 3)

    trainer = their_trainer(tmp_path, bridging(Returns))
    trainer.train()
    assert trainer.state.global_step == 3
    assert type(trainer.control) is transformers.TrainerControl


def test_an_evaluation_before_after_and_without_training_is_delivered(
    bridging: Bridging, tmp_path: Path
) -> None:
    logs = Logs()
    bridge = bridging(logs)
    trainer = their_trainer(tmp_path, bridge, max_steps=2, logging_strategy="no")
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    trainer.predict(trainer.eval_dataset)
    assert bridge.flush(10.0)
    losses = [(step, entry["eval_loss"]) for step, entry in logs.seen if "eval_loss" in entry]
    assert losses == [(0, before["eval_loss"]), (2, after["eval_loss"])]


def test_several_trainings_are_one_run_of_a_tracker(bridging: Bridging, tmp_path: Path) -> None:
    tracker = FileTracker(str(tmp_path / "file"))
    bridge = bridging(tracker)
    trainer = their_trainer(tmp_path, bridge, max_steps=2, logging_steps=1)
    trainer.train()
    trainer.train()
    bridge.close()
    lines = read_lines(tmp_path / "file")
    assert [line.get("step", line.get("status")) for line in lines] == [1, 2, 2] * 2 + ["finished"]


def test_another_progress_display_that_takes_metrics_away_hides_none_of_them(
    bridging: Bridging, tmp_path: Path
) -> None:
    class Pops(transformers.TrainerCallback):  # as the display of notebooks does
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            metrics.clear()

    seen = Everything()
    bridge = bridging(seen)
    trainer = their_trainer(tmp_path, bridge, Pops)
    seen.open.clear()
    trainer.evaluate()
    seen.open.set()
    assert bridge.flush(10.0)
    (metrics,) = [given["metrics"] for event, *_, given in seen.seen if event == Event.EVALUATE]
    assert "eval_loss" in metrics


def test_the_progress_bar_of_notebooks_goes_on_beside_it(
    bridging: Bridging, tmp_path: Path
) -> None:
    pytest.importorskip("IPython")
    from transformers.utils.notebook import NotebookProgressCallback

    logs = Logs()
    bridge = bridging(logs)
    trainer = their_trainer(
        tmp_path, bridge, NotebookProgressCallback, max_steps=4, logging_steps=2,
        eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert bridge.flush(10.0)
    assert [step for step, entry in logs.seen if "eval_loss" in entry] == [0, 2, 4, 4]


# Decisions


def test_a_decision_is_applied_at_its_step(bridging: Bridging, tmp_path: Path) -> None:
    trainer = their_trainer(
        tmp_path, bridging(DecidesOnLog("should_training_stop")), logging_steps=1
    )
    trainer.train()
    assert trainer.state.global_step == 6


@pytest.mark.parametrize("flag", FLAGS)
def test_any_flag_may_be_decided(bridging: Bridging, tmp_path: Path, flag: str) -> None:
    recorder = Recorder()
    settings = {"max_steps": 16, "logging_steps": 2, "save_strategy": "no"}
    bridge = bridging(DecidesOnLog(flag), recorder)
    trainer = their_trainer(tmp_path, bridge, **settings)
    trainer.train()
    done = {
        "should_training_stop": trainer.state.global_step == 6,
        "should_epoch_stop": recorder.steps[recorder.events.index(Event.EPOCH_END)] == 6,
        "should_save": (tmp_path / "checkpoint-6").is_dir(),
        "should_evaluate": (Event.EVALUATE, 6)
        in list(zip(recorder.events, recorder.steps, strict=True)),
        "should_log": any(entry["step"] == 6 for entry in trainer.state.log_history),
    }
    assert done[flag]


def test_a_request_from_outside_is_honoured(bridging: Bridging, tmp_path: Path) -> None:
    class Asks(asynccb.TrainerCallback):
        async def on_train_begin(self, args, state, control, **kwargs):
            self.request(should_training_stop=True)

        @asynccb.decides(lag=1)
        async def on_step_end(self, args, state, control, **kwargs):
            """Make the training wait, so that the request is in."""

    trainer = their_trainer(tmp_path, bridging(Asks), num_train_epochs=100)
    trainer.train()
    assert trainer.state.global_step < 800


def test_an_error_that_is_to_be_raised_ends_the_training(
    bridging: Bridging, tmp_path: Path
) -> None:
    class Fails(asynccb.TrainerCallback):
        on_error = "raise"

        @asynccb.decides(lag=1)
        async def on_step_end(self, args, state, control, **kwargs):
            raise ValueError("as asked")

    with pytest.raises(asynccb.CallbackError, match="Fails"):
        their_trainer(tmp_path, bridging(Fails)).train()


# Ranks and runs


def test_a_callback_for_the_first_rank_is_not_served_on_another(
    bridging: Bridging, tmp_path: Path
) -> None:
    class SecondRank(transformers.Trainer):
        def is_world_process_zero(self) -> bool:
            return False

    class First(Logs):
        ranks = "world_zero"

    first, every = First(), Logs()
    bridge = bridging(first, every)
    their_trainer(tmp_path, bridge, kind=SecondRank, max_steps=2, logging_steps=1).train()
    assert bridge.flush(10.0)
    assert first.seen == []
    assert every.steps == [1, 2, 2]


class FailsAtStep(transformers.TrainerCallback):
    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error, self.failed = step, error, 0

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step and not self.failed:
            self.failed += 1
            raise self.error


def status_in(path: Path) -> str:
    (status,) = [line["status"] for line in read_lines(path) if "status" in line]
    return status


def test_a_training_that_raises_marks_its_runs_as_failed(
    bridging: Bridging, tmp_path: Path
) -> None:
    bridge = bridging(FileTracker(str(tmp_path / "file")))
    trainer = their_trainer(tmp_path, bridge, FailsAtStep(2, ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        trainer.train()
    bridge.close()
    assert status_in(tmp_path / "file") == "failed"


def test_as_a_context_manager_it_notices_how_a_run_ends(bridging: Bridging, tmp_path: Path) -> None:
    bridge = bridging(FileTracker(str(tmp_path / "file")))
    interrupt = FailsAtStep(0, KeyboardInterrupt())
    trainer = their_trainer(tmp_path, bridge, interrupt)
    with pytest.raises(KeyboardInterrupt), bridge:
        trainer.train()
    assert status_in(tmp_path / "file") == "killed"
    with bridging(FileTracker(str(tmp_path / "fine"))) as bridge:
        trainer = their_trainer(tmp_path, bridge, max_steps=1)
        trainer.train()
    assert status_in(tmp_path / "fine") == "finished"
    with pytest.raises(asynccb.ClosedError):
        trainer.evaluate()


def test_a_training_that_is_begun_again_after_running_out_of_memory_decides_anew(
    bridging: Bridging, tmp_path: Path
) -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate")
    tracker = FileTracker(str(tmp_path / "file"))
    seen: list[tuple[int, int]] = []

    class Decides(asynccb.TrainerCallback):
        @asynccb.decides(lag=3)
        async def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2

    class Notes(asynccb.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append((args.per_device_train_batch_size, state.global_step))

    bridge = bridging(Decides, Notes, tracker)
    trainer = their_trainer(
        tmp_path, bridge, FailsAtStep(2, error), auto_find_batch_size=True, logging_steps=1
    )
    trainer.train()
    bridge.close()
    assert [step for _, step in seen] == [1, 2, *range(1, 6)]
    lines = read_lines(tmp_path / "file")
    assert [line["step"] for line in lines[:-1]] == [1, 2, 1, 2, 3, 4, 5, 5]
    assert status_in(tmp_path / "file") == "finished"


def test_a_training_of_one_step_leaves_nothing_for_the_next(
    bridging: Bridging, tmp_path: Path
) -> None:
    class StopsShortOnes(asynccb.TrainerCallback):
        @asynccb.decides(lag=1)
        async def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.max_steps == 1

    bridge = bridging(StopsShortOnes)
    trainer = their_trainer(tmp_path, bridge, max_steps=1)
    trainer.train()
    trainer.args.max_steps = 5
    trainer.train()
    assert trainer.state.global_step == 5


def test_a_copy_is_the_bridge_itself_and_a_pickle_is_refused(bridging: Bridging) -> None:
    bridge = bridging(Everything())
    assert copy.deepcopy(bridge) is copy.copy(bridge) is bridge
    with pytest.raises(TypeError, match="AsyncCallbacks belongs to this process"):
        pickle.dumps(bridge)


def test_each_trial_of_a_search_has_its_own_run(bridging: Bridging, tmp_path: Path) -> None:
    bridge = bridging(FileTracker(str(tmp_path / "file")))
    trainer = their_trainer(tmp_path, bridge, max_steps=1, logging_steps=1)
    for rate in (0.1, 0.2):
        trainer.train(trial={"learning_rate": rate})
    bridge.close()
    ends = [line for line in read_lines(tmp_path / "file") if "status" in line]
    assert [line["status"] for line in ends] == ["finished", "finished"]
    assert len({line["key"] for line in ends}) == 2


def test_it_ends_well_with_a_trainer_that_is_dropped_and_keeps_no_model(tmp_path: Path) -> None:
    bridge = AsyncCallbacks([FileTracker(str(tmp_path / "file"))])
    trainer = their_trainer(tmp_path, bridge, max_steps=1)
    trainer.train()
    model, run = weakref.ref(trainer.model), weakref.ref(bridge._run)
    del trainer, bridge
    gc.collect()
    assert model() is None
    assert run() is None
    assert status_in(tmp_path / "file") == "finished"


# Bad input


def test_what_cannot_work_is_refused_at_once() -> None:
    for wrong, kind in [
        ([], asynccb.DefinitionError),
        (None, asynccb.DefinitionError),
        ("Logs", asynccb.DefinitionError),
        ([object()], asynccb.DefinitionError),
        ([AsyncCallbacks([Logs])], asynccb.DefinitionError),
    ]:
        with pytest.raises(kind):
            AsyncCallbacks(wrong)
    with pytest.raises(asynccb.ConfigurationError, match="overflow"):
        AsyncCallbacks([Logs], overflow="sometimes")
    with pytest.raises(asynccb.ConfigurationError, match="no event has arrived yet"):
        AsyncCallbacks([Logs]).statistics()


def test_a_second_bridge_in_a_trainer_is_refused(bridging: Bridging, tmp_path: Path) -> None:
    with pytest.raises(asynccb.ConfigurationError, match="one list"):
        their_trainer(tmp_path, bridging(Logs), bridging(Logs))


def test_without_transformers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.trainer_callback", None)
    with pytest.raises(asynccb.ConfigurationError, match="transformers cannot be imported"):
        AsyncCallbacks([Logs])


@pytest.mark.parametrize("late", [False, True], ids=["given", "added later"])
def test_async_hooks_without_the_bridge_are_refused_by_name(tmp_path: Path, late: bool) -> None:
    trainer = their_trainer(tmp_path)
    trainer.add_callback(Logs)
    start = trainer.train if late else lambda: their_trainer(tmp_path, Logs)
    with pytest.raises(asynccb.DefinitionError, match=r"on_log.*AsyncCallbacks"):
        start()


def test_callbacks_come_and_go_as_in_any_trainer(bridging: Bridging, tmp_path: Path) -> None:
    early, late = Logs(), Logs()
    bridge = bridging(early)
    trainer = their_trainer(tmp_path, bridge, max_steps=2, logging_strategy="no")
    bridge.add_callback(late)
    assert bridge.callbacks == [early, late]
    trainer.train()
    assert bridge.flush(10.0)
    assert late.seen == early.seen
    assert trainer.pop_callback(AsyncCallbacks) is bridge
    trainer.evaluate()
    assert bridge.flush(10.0)
    assert late.steps == [2]


def test_values_of_an_evaluation_are_those_that_transformers_returns(
    bridging: Bridging, tmp_path: Path
) -> None:
    seen = Everything()
    bridge = bridging(seen)
    metrics = their_trainer(tmp_path, bridge, model=Model()).evaluate()
    assert bridge.flush(10.0)
    (got,) = [given["metrics"] for event, *_, given in seen.seen if event == Event.EVALUATE]
    ours = {name: value for name, value in got.items() if not name.endswith(SPEED)}
    assert ours.items() <= metrics.items()


def test_another_trainer_with_the_same_bridge_begins_a_run_of_its_own(tmp_path: Path) -> None:
    bridge = AsyncCallbacks([FileTracker(str(tmp_path / "file"))])
    for _ in range(3):
        their_trainer(tmp_path, bridge, max_steps=2, logging_steps=1).train()
    bridge.close()
    lines = read_lines(tmp_path / "file")
    ends = [line for line in lines if "status" in line]
    assert [line["status"] for line in ends] == ["finished"] * 3
    assert len({line["key"] for line in ends}) == 3
    assert [line["step"] for line in lines if "step" in line] == [1, 2, 2] * 3


def test_trainers_that_take_turns_with_one_bridge_have_a_run_a_turn(tmp_path: Path) -> None:
    bridge = AsyncCallbacks([FileTracker(str(tmp_path / "file"))])
    first = their_trainer(tmp_path / "first", bridge, max_steps=1)
    second = their_trainer(tmp_path / "second", bridge, max_steps=1)
    for trainer in (first, first, second, first):
        trainer.train()
    bridge.close()
    ends = [line for line in read_lines(tmp_path / "file") if "status" in line]
    assert [line["status"] for line in ends] == ["finished"] * 3
