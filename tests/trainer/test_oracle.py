"""
How callbacks of transformers behave, by section and item of our notes (`callback_semantics.md`).

Sections 4 (flow, display, early stopping), 5 (report_to), 9 (what the tests of transformers assert)
and 10 (a run written out).

Those of whole runs hold in both homes of our callbacks: in our Trainer, and in that of transformers
by way of the bridge. Other files of `tests/` test by unit, which is not repeated here: sections 4.1
to 4.4 in `callbacks/`, 5 in `trackers/test_report_to.py`, and of section 9 the items 16 and 17 in
`state/test_state.py` and `state/test_control.py`, 19 in `callbacks/test_early_stopping.py`, 20 in
`state/test_state.py`, 34 in `trainer/test_resume.py`, 35 in `checkpoint/test_folders.py`, 43 to 50
in `arguments/test_arguments.py` and `arguments/test_argument_checks.py`. Items 21 and 22 belong to
trackers; 24 to 30, 32, 33, 38 and 40 to the numbers of a Trainer (`trainer/test_learning.py`,
`trainer/test_resume.py`, `huggingface/test_differential.py`); 41 to `companion/test_supervision.py`
and `trainer/test_decisions.py`; 42 and the Hub to nothing here.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb._ground.events import Event
from tests.huggingface.their_trainer import VERSION, their_trainer
from tests.support.regression import Line, Recorder, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

Home = Callable[..., Any]
EVALUATION = ["on_prediction_step"] * 2 + ["on_log", "on_evaluate"]


def in_ours(
    directory: Path, *callbacks: Any, resume: Path | None = None, given: Any = None, **settings: Any
) -> Any:
    return train(directory, *callbacks, resume=resume, given=given, **settings)


def in_theirs(
    directory: Path, *callbacks: Any, resume: Path | None = None, given: Any = None, **settings: Any
) -> Any:
    with asynccb.AsyncCallbacks(callbacks) as bridge:
        trainer = their_trainer(directory, bridge, given=given, **settings)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


@pytest.fixture(params=[in_ours, in_theirs], ids=["ours", "bridge"])
def home(request: pytest.FixtureRequest) -> Home:
    return request.param


def skip_before_the_last_evaluation(home: Home) -> None:
    """Skip where transformers does not evaluate a last step that is no multiple of `eval_steps`."""
    if home is in_theirs and VERSION < (5, 23):
        pytest.skip("its default flow does not evaluate the last step yet")


class Evaluations(asynccb.TrainerCallback):
    """Put given values in the place of an evaluation's loss, before others see them."""

    def __init__(self, *losses: float) -> None:
        self.losses = iter(losses)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        metrics["eval_loss"] = next(self.losses)


STEPWISE: dict[str, Any] = {
    "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no", "logging_strategy": "no",
    "metric_for_best_model": "loss", "greater_is_better": False,
}  # fmt: skip


def steps_where(recorder: Recorder, event: str, flag: str) -> list[int]:
    seen = zip(recorder.events, recorder.steps, recorder.flags, strict=True)
    return [step for name, step, flags in seen if name == event and flag in flags]


def steps_of(recorder: Recorder, event: str) -> list[int]:
    return [s for name, s in zip(recorder.events, recorder.steps, strict=True) if name == event]


# 4.1, the default flow


@pytest.mark.parametrize("strategy", ["no", "epoch", "steps"])
def test_4_1_the_first_step_is_logged_under_any_strategy(
    home: Home, tmp_path: Path, strategy: str
) -> None:
    recorder = Recorder()
    home(tmp_path, recorder, logging_first_step=True, logging_strategy=strategy, max_steps=3)
    assert steps_where(recorder, Event.STEP_END, "should_log") == [1]


def test_4_1_the_last_step_is_evaluated_and_saved_where_those_go_by_steps(
    home: Home, tmp_path: Path
) -> None:
    skip_before_the_last_evaluation(home)
    recorder = Recorder()
    home(tmp_path, recorder, max_steps=5, eval_strategy="steps", eval_steps=2, save_steps=3)
    assert steps_of(recorder, Event.EVALUATE) == [2, 4, 5]
    assert steps_of(recorder, Event.SAVE) == [3, 5]
    assert steps_where(recorder, Event.STEP_END, "should_training_stop") == [5]


def test_4_1_a_stop_for_another_reason_forces_neither(home: Home, tmp_path: Path) -> None:
    def stop(state: Any, control: Any) -> None:
        control.should_training_stop = state.global_step == 5

    recorder = Recorder(on_step_end=stop)
    home(tmp_path, recorder, max_steps=9, eval_strategy="steps", eval_steps=2, save_steps=3)
    assert steps_of(recorder, Event.EVALUATE) == [2, 4]
    assert steps_of(recorder, Event.SAVE) == [3]


def test_4_1_no_evaluation_comes_before_its_delay(home: Home, tmp_path: Path) -> None:
    skip_before_the_last_evaluation(home)
    recorder = Recorder()
    home(tmp_path, recorder, max_steps=5, eval_strategy="steps", eval_steps=2, eval_delay=4)
    assert steps_of(recorder, Event.EVALUATE) == [4, 5]
    recorder = Recorder()
    home(tmp_path, recorder, eval_strategy="epoch", eval_delay=2)
    assert steps_of(recorder, Event.EVALUATE) == [16, 24]


def test_4_1_strategy_no_does_nothing_by_itself(home: Home, tmp_path: Path) -> None:
    recorder = Recorder()
    no = dict.fromkeys(("logging_strategy", "eval_strategy", "save_strategy"), "no")
    home(tmp_path, recorder, num_train_epochs=1, **no)
    assert recorder.events.count(Event.LOG) == 1  # the run's own figures
    assert not {Event.EVALUATE, Event.SAVE} & set(recorder.events)


# 4.2 and 4.3, the displays


def test_4_2_the_printer_leaves_the_logs_as_they_are(home: Home, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = home(tmp_path, asynccb.PrinterCallback, recorder, max_steps=1)
    assert "total_flos" in recorder.logs[-1]
    assert "total_flos" in trainer.state.log_history[-1]


def test_4_3_the_progress_bar_reaches_the_end(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = home(tmp_path, asynccb.ProgressCallback, max_steps=3, disable_tqdm=False)
    assert "3/3" in capsys.readouterr().err
    assert trainer.state.global_step == 3


# 4.4, early stopping


@pytest.mark.parametrize(
    ("losses", "patience", "threshold", "stops"),
    [
        ([3.0, 2.0, 1.0, 1.0], 1, 0.0, 4),
        ([1.0, 2.0, 0.5, 0.6, 0.7], 2, 0.0, 5),
        ([1.0, math.nan], 1, 0.0, 2),
        ([1.0, 0.95, 0.9], 2, 0.1, 3),  # the threshold is counted from a best that moves
        ([1.0, 0.8, 0.7], 1, 0.15, 3),
    ],
    ids=["equal", "anew", "nan", "within threshold", "beyond threshold"],
)
def test_4_4_early_stopping_counts_evaluations_without_improvement(
    home: Home, tmp_path: Path, losses: list[float], patience: int, threshold: float, stops: int
) -> None:
    stopping = asynccb.EarlyStoppingCallback(patience, threshold)
    trainer = home(tmp_path, Evaluations(*losses), stopping, max_steps=9, **STEPWISE)
    assert trainer.state.global_step == stops


def test_4_4_the_save_of_the_epoch_that_stops_still_happens(home: Home, tmp_path: Path) -> None:
    settings = {**STEPWISE, "eval_strategy": "epoch", "save_strategy": "epoch"}
    recorder = Recorder()
    stopping = asynccb.EarlyStoppingCallback(1)
    home(tmp_path, Evaluations(1.0, 2.0), stopping, recorder, **settings)
    assert steps_of(recorder, Event.SAVE) == [8, 16]
    assert recorder.steps[-1] == 16


def test_4_4_it_stops_at_the_evaluation_and_not_at_the_next_save(
    home: Home, tmp_path: Path
) -> None:
    settings = {**STEPWISE, "save_strategy": "steps", "save_steps": 4}
    stopping = asynccb.EarlyStoppingCallback(1)
    trainer = home(tmp_path, Evaluations(1.0, 2.0), stopping, max_steps=9, **settings)
    assert trainer.state.global_step == 2
    assert trainer.state.best_model_checkpoint is None
    assert not list(tmp_path.glob("checkpoint-*"))


def test_4_4_a_missing_metric_is_a_warning_and_not_counted(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sets = {"a": Line(8, seed=1), "b": Line(8, seed=2)}
    settings = {**STEPWISE, "metric_for_best_model": "a_loss"}
    trainer = home(
        tmp_path,
        asynccb.EarlyStoppingCallback(1),
        given={"eval_dataset": sets},
        **{**settings, "max_steps": 2, "learning_rate": 0.01},
    )
    assert trainer.state.global_step == 2
    assert "eval_a_loss" in caplog.text


# 9, what the tests of transformers assert


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"logging_steps": 5},
        {"save_steps": 5},
        {"eval_steps": 5, "eval_strategy": "steps"},
        {"eval_strategy": "epoch"},
        {"logging_steps": 3, "save_steps": 10, "eval_steps": 5, "eval_strategy": "steps"},
    ],
    ids=["default", "logging", "saving", "evaluating", "epochs", "mixed"],
)
def test_9_07_the_events_of_a_run_come_in_this_sequence(
    home: Home, tmp_path: Path, settings: dict[str, Any]
) -> None:
    skip_before_the_last_evaluation(home)
    recorder = Recorder()
    home(tmp_path, recorder, **settings)
    assert recorder.events == list(sequence(24, **settings))


def sequence(last: int, **settings: Any) -> Any:
    """Section 9, item 7, as a programme."""
    log, save = settings.get("logging_steps", 500), settings.get("save_steps", 500)
    evaluate, strategy = settings.get("eval_steps", 0), settings.get("eval_strategy")
    yield from ("on_init_end", "on_train_begin")
    for step in range(1, last + 1):
        if step % 8 == 1:
            yield "on_epoch_begin"
        yield from ("on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end")
        if step % log == 0:
            yield "on_log"
        if strategy == "steps" and (step % evaluate == 0 or step == last):
            yield from EVALUATION
        if step % save == 0 or step == last:
            yield "on_save"
        if step % 8 == 0:
            yield "on_epoch_end"
            if strategy == "epoch":
                yield from EVALUATION
    yield from ("on_log", "on_train_end")


def test_9_08_on_push_begin_is_one_event_and_nothing_else(home: Home, tmp_path: Path) -> None:
    recorder = Recorder()
    if home is in_ours:
        trainer = asynccb.Trainer(
            train(tmp_path, max_steps=1).model,
            asynccb.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True),
            callbacks=[recorder],
        )
        with trainer:
            before = len(recorder.events)
            trainer.dispatcher.emit(Event.PUSH_BEGIN)
    else:
        with asynccb.AsyncCallbacks([recorder]) as bridge:
            theirs = their_trainer(tmp_path, bridge)
            before = len(recorder.events)
            theirs.callback_handler.on_push_begin(theirs.args, theirs.state, theirs.control)
    assert recorder.events[before:] == ["on_push_begin"]


def test_9_09_should_save_is_seen_once_where_epochs_are_saved(home: Home, tmp_path: Path) -> None:
    recorder = Recorder()
    home(tmp_path, recorder, save_strategy="epoch", max_steps=2)
    ends = (Event.STEP_END, Event.EPOCH_END)
    assert sum(len(steps_where(recorder, event, "should_save")) for event in ends) == 1


def test_9_10_a_stop_at_step_1_of_10_ends_there(home: Home, tmp_path: Path) -> None:
    recorder = Recorder(on_step_end=lambda s, c: setattr(c, "should_training_stop", True))
    assert home(tmp_path, recorder, max_steps=10).state.global_step == 1


def test_9_11_the_end_of_a_step_comes_once_for_each(home: Home, tmp_path: Path) -> None:
    recorder = Recorder()
    home(tmp_path, recorder, max_steps=2)
    assert steps_of(recorder, Event.STEP_END) == [1, 2]


class Counter(asynccb.TrainerCallback, asynccb.ExportableState):
    """Hold a name, which is its state."""

    def __init__(self, name: str = "default") -> None:
        self.name = name

    def on_step_end(self, args, state, control, **kwargs):
        """Be a callback with a hook."""

    def state(self) -> dict[str, Any]:
        return {"args": {"name": self.name}, "attributes": {}}


RESTORING = {"restore_callback_states_from_checkpoint": True, "max_steps": 2, "save_steps": 2}


def test_9_12_early_stopping_gets_its_settings_back_also_among_others(
    home: Home, tmp_path: Path
) -> None:
    settings = {**STEPWISE, "save_strategy": "steps", "eval_steps": 2, **RESTORING}
    stopping = asynccb.EarlyStoppingCallback(5, 0.2)
    home(tmp_path, stopping, Recorder(), **settings)
    fresh = asynccb.EarlyStoppingCallback()
    home(tmp_path, Recorder(), fresh, resume=tmp_path / "checkpoint-2", **settings)
    assert (fresh.early_stopping_patience, fresh.early_stopping_threshold) == (5, 0.2)


@pytest.mark.filterwarnings("ignore")
def test_9_13_two_of_one_class_get_their_states_back_in_order(home: Home, tmp_path: Path) -> None:
    home(tmp_path, Counter("first"), Counter("second"), **RESTORING)
    again = Counter(), Counter()
    home(tmp_path, *again, resume=tmp_path / "checkpoint-2", **RESTORING)
    assert [each.name for each in again] == ["first", "second"]


def test_9_14_a_callback_that_is_missing_on_resume_is_a_warning_with_its_name(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home(tmp_path, Counter("first"), **RESTORING)
    home(tmp_path, Recorder(), resume=tmp_path / "checkpoint-2", **RESTORING)
    assert "Counter" in caplog.text


def test_9_15_the_control_of_a_finished_run_is_in_its_checkpoint(tmp_path: Path) -> None:
    in_theirs(tmp_path, Recorder(), **RESTORING)
    stored = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert stored["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]


def test_9_18_hooks_get_the_objects_of_the_run_by_keyword(home: Home, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Keeps(asynccb.TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            seen.append(kwargs)

    tokenizer = object()
    if home is in_ours:
        trainer = home(tmp_path, Keeps, max_steps=1, given={"processing_class": tokenizer})
        assert seen[0]["processing_class"] is tokenizer
    else:
        trainer = home(tmp_path, Keeps, max_steps=1)
    assert seen[0]["model"] is trainer.model
    assert {"optimizer", "lr_scheduler", "train_dataloader", "logs"} <= set(seen[0])


def test_9_23_evaluations_before_after_and_around_a_training_work(tmp_path: Path) -> None:
    recorder = Recorder()
    with asynccb.AsyncCallbacks([recorder]) as bridge:
        theirs = their_trainer(tmp_path, bridge, max_steps=1)
        losses = [theirs.evaluate()["eval_loss"], theirs.evaluate()["eval_loss"]]
        theirs.train()
        losses.append(theirs.evaluate()["eval_loss"])
    assert losses[0] == losses[1] != losses[2]
    assert steps_of(recorder, Event.EVALUATE) == [0, 0, 1]


def test_9_31_checkpoints_lie_at_each_multiple(home: Home, tmp_path: Path) -> None:
    home(tmp_path, Recorder(), save_steps=10)
    found = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert found == {"checkpoint-10", "checkpoint-20", "checkpoint-24"}


def test_9_36_saving_the_best_saves_epochs_that_improve(home: Home, tmp_path: Path) -> None:
    settings = {**STEPWISE, "eval_strategy": "epoch", "save_strategy": "best"}
    home(tmp_path, Evaluations(1.0, 2.0, 0.5), **settings)
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {
        "checkpoint-8",
        "checkpoint-24",
    }


@pytest.mark.parametrize(
    ("losses", "settings", "best"),
    [
        ([], {"eval_strategy": "no", "save_steps": 1}, None),
        ([1.0, 2.0, 3.0], {"save_steps": 1}, "checkpoint-1"),
        ([1.0, 2.0, 3.0], {"save_steps": 2}, None),
        ([3.0, 1.0, 2.0], {"save_steps": 2}, "checkpoint-2"),
        ([1.0, 2.0, 3.0], {"save_steps": 1, "save_total_limit": 1}, "checkpoint-1"),
    ],
    ids=["no evaluation", "each step", "not saved", "saved", "limit"],
)
def test_9_37_the_best_checkpoint_is_the_one_of_the_best_evaluation_if_it_was_saved(
    home: Home, tmp_path: Path, losses: list[float], settings: dict[str, Any], best: str | None
) -> None:
    given = {**STEPWISE, "save_strategy": "steps", "max_steps": 3, **settings}
    trainer = home(tmp_path, Evaluations(*losses), **given)
    found = trainer.state.best_model_checkpoint
    assert (None if found is None else Path(found).name) == best


def test_9_39_a_last_step_is_saved_and_a_limit_keeps_the_newest(home: Home, tmp_path: Path) -> None:
    home(tmp_path / "nine", Recorder(), max_steps=9, save_steps=5)
    assert (tmp_path / "nine" / "checkpoint-9").is_dir()
    home(tmp_path / "limit", Recorder(), max_steps=11, save_steps=5, save_total_limit=2)
    found = {path.name for path in (tmp_path / "limit").glob("checkpoint-*")}
    assert found == {"checkpoint-10", "checkpoint-11"}


# 10, the vector that is small enough to be written out


def test_10_the_events_and_flags_of_four_steps(home: Home, tmp_path: Path) -> None:
    skip_before_the_last_evaluation(home)
    recorder = Recorder()
    home(
        tmp_path, recorder, given={"train_dataset": Line(8), "eval_dataset": Line(4, seed=1)},
        per_device_train_batch_size=2, per_device_eval_batch_size=2, num_train_epochs=2,
        gradient_accumulation_steps=2, logging_steps=1, eval_strategy="steps", eval_steps=3,
        save_steps=2,
    )  # fmt: skip
    step = ["step_begin", "substep_end", "pre_optimizer_step", "optimizer_step", "step_end"]
    evaluation = ["prediction_step", "prediction_step", "log", "evaluate"]
    expected = [
        "init_end", "train_begin",
        "epoch_begin", *step, "log", *step, "log", "save", "epoch_end",
        "epoch_begin", *step, "log", *evaluation, *step, "log", *evaluation, "save", "epoch_end",
        "log", "train_end",
    ]  # fmt: skip
    assert [event.removeprefix("on_") for event in recorder.events] == expected
    letters = {"training_stop": "T", "epoch_stop": "E", "save": "S", "evaluate": "V", "log": "L"}
    seen = [
        (event.removeprefix("on_"), "".join(letters[f.removeprefix("should_")] for f in sorted(fs)))
        for event, fs in zip(recorder.events, recorder.flags, strict=True)
        if fs
    ]
    assert [pair for pair in seen if pair[0] in ("step_end", "save", "train_end", "log")] == [
        ("step_end", "L"),
        ("step_end", "LS"), ("log", "S"),
        ("step_end", "VL"), ("log", "V"), ("log", "V"),
        ("step_end", "VLST"), ("log", "VST"), ("log", "VST"), ("save", "T"),
        ("log", "T"), ("train_end", "T"),
    ]  # fmt: skip


def test_9_06_a_class_that_is_given_twice_is_a_warning(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="asynccb"):
        home(tmp_path, Recorder(), Recorder(), max_steps=1)
    assert "a second Recorder is added" in caplog.text
