"""The examples of the page on callbacks, in our Trainer and in that of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import asynccb
from tests.huggingface.their_trainer import VERSION, their_arguments, transformers
from tests.support.regression import Line, Model, arguments

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.skipif(VERSION < (5, 23), reason="our Trainer follows transformers 5.23 and later"),
]

HOMES: tuple[tuple[ModuleType, Callable[..., Any]], ...] = (
    (asynccb, arguments),
    (transformers, their_arguments),
)
"""The library whose names an example uses, and what makes its training arguments."""


class Example:
    """A training of one of the two libraries: its arguments, and the Trainers made with them."""

    def __init__(self, library: ModuleType, directory: Path, **settings: Any) -> None:
        made = dict(HOMES)[library]
        self.library = library
        self.args = made(directory / library.__name__, **{"max_steps": 3, **settings})

    def trainer(self, *callbacks: Any) -> Any:
        return self.library.Trainer(
            Model(),
            self.args,
            train_dataset=Line(),
            eval_dataset=Line(16, seed=1),
            callbacks=list(callbacks),
        )


@pytest.fixture(params=[library for library, _ in HOMES], ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def greeter(library: ModuleType) -> type:
    class Greets(library.TrainerCallback):
        """Print a message where training begins."""

        def on_train_begin(self, args, state, control, **kwargs):
            print("Starting training")

    return Greets


REGISTRATIONS: dict[str, Callable[[Any, type], Any]] = {
    "callbacks=[Class]": lambda example, kind: example.trainer(kind),
    "callbacks=[instance]": lambda example, kind: example.trainer(kind()),
    "add_callback(Class)": lambda example, kind: added(example.trainer(), kind),
    "add_callback(instance)": lambda example, kind: added(example.trainer(), kind()),
}


def added(trainer: Any, callback: Any) -> Any:
    trainer.add_callback(callback)
    return trainer


@pytest.mark.parametrize("way", REGISTRATIONS)
def test_a_callback_may_be_registered_as_a_class_or_an_instance_at_once_or_later(
    library: ModuleType, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = REGISTRATIONS[way](Example(library, tmp_path), greeter(library))
    trainer.train()
    assert capsys.readouterr().out.count("Starting training\n") == 1


@pytest.mark.parametrize("by", ["class", "instance"])
@pytest.mark.parametrize("method", ["pop_callback", "remove_callback"])
def test_a_callback_that_was_removed_or_popped_is_called_no_more(
    library: ModuleType,
    by: str,
    method: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = greeter(library)
    callback = kind()
    trainer = Example(library, tmp_path).trainer(callback)
    removed = getattr(trainer, method)(kind if by == "class" else callback)
    assert removed is (callback if method == "pop_callback" else None)
    trainer.train()
    assert "Starting training" not in capsys.readouterr().out


def test_popping_what_is_not_there_returns_none(library: ModuleType, tmp_path: Path) -> None:
    trainer = Example(library, tmp_path).trainer()
    assert trainer.pop_callback(greeter(library)) is None
    assert trainer.pop_callback(greeter(library)()) is None


def names(trainer: Any) -> list[str]:
    handler = getattr(trainer, "callback_handler", None) or trainer.dispatcher
    return [type(callback).__name__ for callback in handler.callbacks]


@pytest.mark.parametrize(
    ("disabled", "display"),
    [(True, "PrinterCallback"), (False, "ProgressCallback"), (None, "ProgressCallback")],
)
def test_the_display_is_the_progress_bar_unless_tqdm_is_disabled(
    library: ModuleType, disabled: bool | None, display: str, tmp_path: Path
) -> None:
    trainer = Example(library, tmp_path, disable_tqdm=disabled).trainer(greeter(library))
    assert names(trainer) == ["DefaultFlowCallback", "Greets", display]


def test_the_display_may_be_swapped_by_hand(
    library: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Example(library, tmp_path, disable_tqdm=False, logging_steps=1).trainer()
    trainer.remove_callback(library.ProgressCallback)
    trainer.add_callback(library.PrinterCallback)
    assert names(trainer) == ["DefaultFlowCallback", "PrinterCallback"]
    trainer.train()
    said = capsys.readouterr()
    assert said.out.count("{'loss'") == 3
    assert "%|" not in said.err


def test_the_printer_of_the_documentation_prints_each_log(
    library: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class PrintsLogs(library.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            _ = logs.pop("total_flos", None)
            if state.is_local_process_zero:
                print(f"logged at {state.global_step}: {sorted(logs)}")

    Example(library, tmp_path, logging_steps=1).trainer(PrintsLogs).train()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("logged")]
    each = "['epoch', 'grad_norm', 'learning_rate', 'loss']"
    assert said[:3] == [f"logged at {step}: {each}" for step in (1, 2, 3)]
    assert "'train_loss'" in said[3]
    assert "total_flos" not in said[3]


def test_a_callback_reads_the_live_schedule_and_asks_for_an_evaluation(
    library: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Epochs(library.TrainerCallback):
        def __init__(self, least: float) -> None:
            self.least = least

        def on_epoch_begin(self, args, state, control, **kwargs):
            epoch = int(state.epoch) + 1
            print(f"epoch {epoch}/{state.num_train_epochs} at {args.learning_rate}")

        def on_step_end(self, args, state, control, **kwargs):
            if kwargs["lr_scheduler"].get_last_lr()[0] < self.least:
                control.should_evaluate = True

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            print(f"evaluated at {state.global_step}: {'eval_loss' in metrics}")

        def on_train_end(self, args, state, control, **kwargs):
            print(f"best {state.best_metric} at {state.best_global_step}")

    example = Example(library, tmp_path, max_steps=-1, num_train_epochs=2)
    example.trainer(Epochs(0.0100)).train()  # 16 steps down from 0.1
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]
    assert said == [
        "epoch 1/2 at 0.1",
        "epoch 2/2 at 0.1",
        "evaluated at 15: True",
        "evaluated at 16: True",
        "best None at None",
    ]


STOPPING: dict[str, Any] = {
    "max_steps": 30,
    "learning_rate": 0.0,
    "metric_for_best_model": "loss",
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "no",
}


def test_early_stopping_ends_a_training_that_gets_no_better(
    library: ModuleType, tmp_path: Path
) -> None:
    stopping = library.EarlyStoppingCallback(
        early_stopping_patience=3, early_stopping_threshold=0.001
    )
    trainer = Example(library, tmp_path, **STOPPING).trainer(stopping)
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ({"metric_for_best_model": None}, "metric_for_best_model"),
        ({"eval_strategy": "no"}, "eval_strategy|IntervalStrategy"),
    ],
    ids=["no metric", "no evaluations"],
)
def test_early_stopping_requires_its_two_arguments(
    library: ModuleType, missing: dict[str, Any], named: str, tmp_path: Path
) -> None:
    stopping = library.EarlyStoppingCallback(early_stopping_patience=3)
    trainer = Example(library, tmp_path, **{**STOPPING, **missing}).trainer(stopping)
    refusals = (asynccb.ConfigurationError, AssertionError)
    with pytest.raises(refusals, match=named):
        trainer.train()
