"""What the control's flags do, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asynccb.callbacks import EarlyStoppingCallback
from asynccb.callbacks.base import TrainerCallback
from tests.support.regression import Line, Recorder, train

EVALUATION = ["on_prediction_step"] * 2 + ["on_log", "on_evaluate"]


def setting(*flags: str) -> Any:
    """A hook that sets the flags."""
    return lambda state, control: [setattr(control, flag, True) for flag in flags]


def test_a_stop_at_train_begin_runs_no_step(tmp_path: Path) -> None:
    recorder = Recorder(on_train_begin=setting("should_training_stop"))
    train(tmp_path, recorder)
    assert recorder.events == ["on_init_end", "on_train_begin", "on_log", "on_train_end"]


def test_max_steps_of_zero_runs_no_step(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, recorder, max_steps=0)
    assert recorder.events == ["on_init_end", "on_train_begin", "on_log", "on_train_end"]


def test_an_epoch_stop_at_epoch_begin_runs_no_step_of_that_epoch(tmp_path: Path) -> None:
    stops = iter([True, False])
    recorder = Recorder(
        on_epoch_begin=lambda state, control: setattr(control, "should_epoch_stop", next(stops))
    )
    train(tmp_path, recorder, num_train_epochs=2)
    assert recorder.events[2:5] == ["on_epoch_begin", "on_epoch_end", "on_epoch_begin"]
    assert recorder.steps[-1] == 8


@pytest.mark.parametrize("event", ["on_step_begin", "on_optimizer_step", "on_step_end", "on_log"])
def test_a_training_stop_within_a_step_ends_after_that_step(tmp_path: Path, event: str) -> None:
    recorder = Recorder(**{event: setting("should_training_stop")})
    train(tmp_path, recorder, logging_steps=1)
    assert recorder.steps[-1] == 1
    assert recorder.events[-3:] == ["on_epoch_end", "on_log", "on_train_end"]


@pytest.mark.parametrize("flag", ["should_epoch_stop", "should_training_stop"])
def test_a_stop_within_a_group_makes_no_step_of_it(tmp_path: Path, flag: str) -> None:
    recorder = Recorder(on_substep_end=setting(flag))
    trainer = train(tmp_path, recorder, gradient_accumulation_steps=2, num_train_epochs=2)
    assert trainer.state.global_step == 0
    assert "on_optimizer_step" not in recorder.events
    assert recorder.events.count("on_epoch_end") == (2 if flag == "should_epoch_stop" else 1)


def test_the_gradient_of_a_group_cut_short_reaches_no_later_step(tmp_path: Path) -> None:
    gradients: list[Any] = []

    class Watch(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            gradients.extend(parameter.grad for parameter in kwargs["model"].parameters())

    cut = Recorder(on_substep_end=setting("should_epoch_stop"))
    train(tmp_path, cut, Watch, gradient_accumulation_steps=2, num_train_epochs=1)
    assert gradients == [None, None]


def test_the_loss_of_a_group_cut_short_is_in_no_log(tmp_path: Path) -> None:
    class Flat(Line):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": 0.0, "labels": 2.0}

    stops = iter([True])
    cut = Recorder(
        on_substep_end=lambda state, control: setattr(
            control, "should_epoch_stop", next(stops, False)
        )
    )
    train(
        tmp_path,
        cut,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        logging_steps=1,
        learning_rate=1e-12,
        given={"train_dataset": Flat()},
    )
    assert cut.steps[-1] == 4
    assert [float(logs["loss"]) for logs in cut.logs[:-1]] == [4.0] * 4


@pytest.mark.parametrize("event", ["on_step_begin", "on_step_end", "on_pre_optimizer_step"])
def test_what_a_step_asks_for_is_done_at_its_end(tmp_path: Path, event: str) -> None:
    flags = ("should_log", "should_evaluate", "should_save")
    recorder = Recorder(**{event: setting(*flags)})
    train(tmp_path, recorder, max_steps=1, save_strategy="no", logging_strategy="no")
    end = recorder.events.index("on_step_end")
    assert recorder.events[end + 1 : end + 7] == ["on_log", *EVALUATION, "on_save"]
    assert (tmp_path / "checkpoint-1").is_dir()


def test_a_log_at_the_end_of_an_epoch_is_not_repeated_for_a_step_already_logged(
    tmp_path: Path,
) -> None:
    recorder = Recorder(on_epoch_end=setting("should_log"))
    train(tmp_path, recorder, num_train_epochs=1, logging_steps=8)
    assert [set(logs) for logs in recorder.logs if "loss" in logs] == [
        {"loss", "grad_norm", "learning_rate", "epoch"}
    ]


def test_an_epoch_is_saved_once_even_where_it_ends_the_training(tmp_path: Path) -> None:
    recorder = Recorder()
    train(tmp_path, recorder, max_steps=2, save_strategy="epoch")
    assert recorder.events.count("on_save") == 1


def test_early_stopping_stops_at_the_evaluation_that_failed_to_improve(tmp_path: Path) -> None:
    trainer = train(
        tmp_path,
        EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=1e9),
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
    )
    assert trainer.state.global_step == 4
