"""The order of events, the callbacks, and what a Trainer refuses."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from asynccb._ground.events import Event
from asynccb._ground.exceptions import CallbackError, ClosedError, ConfigurationError
from asynccb.callbacks.base import TrainerCallback
from asynccb.trainer import Trainer
from tests.support.regression import Line, Model, Recorder, arguments, history, train, weights
from tests.support.waiting import eventually

STEP = ["on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end"]
EVALUATION = ["on_prediction_step"] * 2 + ["on_log", "on_evaluate"]


def expected_events(
    *, logging: int = 500, saving: int = 500, evaluating: int = 0, each_epoch: bool = False
) -> list[str]:
    """The events of three epochs of eight steps, by the rule of the reference."""
    events = ["on_init_end", "on_train_begin"]
    for epoch in range(3):
        events.append("on_epoch_begin")
        for step in range(epoch * 8 + 1, epoch * 8 + 9):
            events += STEP
            events += ["on_log"] * (step % logging == 0)
            if evaluating and (step % evaluating == 0 or step == 24):
                events += EVALUATION
            events += ["on_save"] * (step % saving == 0 or step == 24)
        events.append("on_epoch_end")
        events += EVALUATION * each_epoch
    return [*events, "on_log", "on_train_end"]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, {}),
        ({"logging_steps": 5}, {"logging": 5}),
        ({"save_steps": 5}, {"saving": 5}),
        ({"eval_strategy": "steps", "eval_steps": 5}, {"evaluating": 5}),
        ({"eval_strategy": "epoch"}, {"each_epoch": True}),
        (
            {"logging_steps": 3, "save_steps": 10, "eval_strategy": "steps", "eval_steps": 5},
            {"logging": 3, "saving": 10, "evaluating": 5},
        ),
    ],
    ids=["default", "logging", "saving", "evaluating", "evaluating-epochs", "mixed"],
)
def test_the_events_come_in_the_documented_order(
    tmp_path: Path, settings: dict[str, Any], rule: dict[str, Any]
) -> None:
    recorder = Recorder()
    train(tmp_path, recorder, **settings)
    assert recorder.events == expected_events(**rule)


def test_one_step_with_everything_at_it_shows_each_event_the_flags_that_are_left(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    train(
        tmp_path,
        recorder,
        max_steps=1,
        gradient_accumulation_steps=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
    )
    begin = recorder.events.index("on_step_begin")
    stop, log, evaluate, save = (
        "should_training_stop",
        "should_log",
        "should_evaluate",
        "should_save",
    )
    seen = list(zip(recorder.events[begin:], recorder.flags[begin:], strict=True))
    assert seen == [
        ("on_step_begin", set()),
        ("on_substep_end", set()),
        ("on_pre_optimizer_step", set()),
        ("on_optimizer_step", set()),
        ("on_step_end", {stop, log, evaluate, save}),
        ("on_log", {stop, evaluate, save}),
        ("on_prediction_step", {stop, evaluate, save}),
        ("on_prediction_step", {stop, evaluate, save}),
        ("on_log", {stop, evaluate, save}),
        ("on_evaluate", {stop, save}),
        ("on_save", {stop}),
        ("on_epoch_end", {stop}),
        ("on_log", {stop}),
        ("on_train_end", {stop}),
    ]


def test_the_global_step_grows_between_the_optimizer_and_the_end_of_the_step(
    tmp_path: Path,
) -> None:
    recorder = Recorder()
    train(tmp_path, recorder, max_steps=1, gradient_accumulation_steps=2)
    steps = dict(zip(recorder.events, recorder.steps, strict=True))
    assert (steps["on_substep_end"], steps["on_optimizer_step"], steps["on_step_end"]) == (0, 0, 1)


def test_eval_on_start_evaluates_before_the_first_epoch(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, recorder, max_steps=1, eval_strategy="steps", eval_steps=1, eval_on_start=True)
    begin = recorder.events.index("on_train_begin")
    assert recorder.events[begin + 1 : begin + 6] == [*EVALUATION, "on_epoch_begin"]


def test_several_evaluation_datasets_are_logged_one_by_one(tmp_path: Path) -> None:
    recorder = Recorder()
    datasets = {"near": Line(8), "far": Line(8, seed=3)}
    trainer = train(
        tmp_path, recorder, max_steps=1, eval_strategy="epoch", given={"eval_dataset": datasets}
    )
    assert recorder.events.count("on_evaluate") == 2
    names = [name for entry in trainer.state.log_history for name in entry if "_loss" in name]
    assert names == ["eval_near_loss", "eval_far_loss", "train_loss"]


def test_the_callbacks_stand_between_the_flow_and_the_display(tmp_path: Path) -> None:
    with Trainer(Model(), arguments(tmp_path), callbacks=[Recorder]) as trainer:
        names = [type(callback).__name__ for callback in trainer.dispatcher.callbacks]
    assert names == ["DefaultFlowCallback", "Recorder", "PrinterCallback"]


def test_a_popped_callback_hears_nothing_more(tmp_path: Path) -> None:
    recorder = Recorder()
    with Trainer(
        Model(), arguments(tmp_path, max_steps=1), train_dataset=Line(), callbacks=[recorder]
    ) as trainer:
        assert trainer.pop_callback(Recorder) is recorder
        trainer.train()
    assert recorder.events == ["on_init_end"]


def test_a_second_training_starts_from_a_new_state(tmp_path: Path) -> None:
    with Trainer(
        Model(), arguments(tmp_path, max_steps=2, logging_steps=1), train_dataset=Line()
    ) as trainer:
        trainer.train()
        first = trainer.state
        trainer.train()
        assert trainer.state is not first
        assert [entry["step"] for entry in trainer.state.log_history] == [1, 2, 2]


def test_training_twice_from_one_start_gives_the_same_weights(tmp_path: Path) -> None:
    runs = [train(tmp_path / str(n), model=Model(dropout=0.5), logging_steps=1) for n in range(2)]
    assert weights(runs[0]) == weights(runs[1])
    assert history(runs[0]) == history(runs[1])


def test_an_exception_in_a_hook_ends_training_and_closes_the_dispatcher(tmp_path: Path) -> None:
    def fail(state: Any, control: Any) -> None:
        raise OSError("no more paper")

    trainer = Trainer(
        Model(),
        arguments(tmp_path),
        train_dataset=Line(),
        callbacks=[Recorder(on_step_end=fail)],
    )
    with pytest.raises(OSError, match="no more paper"):
        trainer.train()
    with pytest.raises(ClosedError):
        trainer.evaluate(Line(8))


def test_a_failing_async_hook_with_on_error_raise_ends_training(tmp_path: Path) -> None:
    class Fails(TrainerCallback):
        on_error = "raise"

        async def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise OSError("no more paper")

    with pytest.raises(CallbackError, match="no more paper"):
        train(tmp_path, Fails, num_train_epochs=100_000, save_strategy="no")


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ({"eval_dataset": None}, {"eval_strategy": "epoch"}, "no eval_dataset"),
        ({"eval_dataset": {}}, {}, "empty mapping"),
        ({"train_dataset": iter("abc")}, {}, "is not a dataset"),
        ({"eval_dataset": {"a": 3}}, {}, "3 is not a dataset"),
        ({"compute_metrics": print}, {"eval_strategy": "epoch"}, "compute_metrics returned None"),
        (
            {"compute_metrics": lambda prediction: {1: 0.5}},
            {"eval_strategy": "epoch"},
            "a metric named 1",
        ),
        ({"optimizers": 3}, {}, "optimizers is 3"),
        ({"optimizers": (None, object())}, {}, "without the optimizer"),
        ({"train_dataset": None}, {}, "nothing to train on"),
        ({}, {"fp16": True}, "fp16=True needs a GPU"),
        ({}, {"push_to_hub": True}, "push_to_hub=True"),
        ({}, {"report_to": "tensorbord"}, "tensorbord"),
        (
            {},
            {"eval_strategy": "epoch", "metric_for_best_model": "accuracy"},
            "returned no 'eval_accuracy'; it returned epoch, eval_loss",
        ),
        (
            {"compute_metrics": lambda prediction: {"accuracy": torch.ones(2)}},
            {"eval_strategy": "epoch", "metric_for_best_model": "accuracy"},
            r"returned tensor\(\[1., 1.\]\) for 'eval_accuracy'; return a number",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    tmp_path: Path, given: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(tmp_path, given=given, **settings)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_to_is_refused_before_the_first_step(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    recorder = Recorder()
    with pytest.raises(ConfigurationError, match=r"output_dir is '.*/file is not a writable"):
        train(tmp_path / place, recorder)
    assert recorder.events == ["on_init_end"]


def test_a_callback_without_its_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it takes a list of callbacks"):
        Trainer(Model(), arguments(tmp_path), callbacks=Recorder())  # type: ignore[arg-type]


def test_a_constructor_that_fails_in_a_hook_leaves_no_lane_running(tmp_path: Path) -> None:
    closed: list[str] = []

    class Closes(TrainerCallback):
        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise OSError("no more paper")

        async def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            closed.append("never")

    before = threading.active_count()
    with pytest.raises(OSError, match="no more paper"):
        Trainer(Model(), arguments(tmp_path), callbacks=[Closes])
    eventually(lambda: threading.active_count() == before)


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"it takes a torch\.nn\.Module"):
        Trainer("gpt2", arguments(tmp_path))  # type: ignore[arg-type]


def test_all_events_have_a_place_in_a_run_or_are_listed_here(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = Trainer(
        Model(),
        arguments(tmp_path, max_steps=2, gradient_accumulation_steps=2, eval_strategy="epoch"),
        train_dataset=Line(),
        eval_dataset=Line(8),
        callbacks=[recorder],
    )
    with trainer:
        trainer.train()
        trainer.predict(Line(8))
    assert set(Event) - set(recorder.events) == {Event.PUSH_BEGIN}
