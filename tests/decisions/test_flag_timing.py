"""
When a flag that a `def` hook sets takes effect: as in transformers, or saner, fact by fact.

Each fact is one run of both trainers with the same hook. Where ours differs on purpose,
`Trainer.train` says so, and a test here or in `tests/trainer/test_flags.py` pins it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.regression import Line, Model, Recorder, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what transformers imports
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

OF_A_STEP = ("should_log", "should_evaluate", "should_save")
QUIET: dict[str, Any] = {
    "num_train_epochs": 2,
    "logging_strategy": "no",
    "eval_strategy": "no",
    "save_strategy": "no",
}
"""Two epochs of eight steps, in which nothing happens that no hook asks for."""
MIDDLE, LAST = 3, 8
"""A step within an epoch, and the last one of an epoch."""


def sets(event: str, step: int, *flags: str) -> Callable[[], Recorder]:
    """Return what makes a recorder that sets flags the first time that an event has a step."""

    def make() -> Recorder:
        left = [*flags]

        def hook(state: Any, control: Any) -> None:
            while left and state.global_step == step:
                setattr(control, left.pop(), True)

        return Recorder(**{event: hook})

    return make


def theirs(directory: Path, recorder: Recorder, settings: dict[str, Any]) -> Recorder:
    class Same(transformers.TrainerCallback):
        pass

    for event in dir(Recorder):
        if event.startswith("on_"):
            setattr(Same, event, staticmethod(getattr(recorder, event)))
    transformers.Trainer(
        Model(),
        transformers.TrainingArguments(
            str(directory),
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            label_names=["labels"],
            dataloader_pin_memory=False,
            **settings,
        ),
        train_dataset=Line(),
        eval_dataset=Line(16, seed=1),
        callbacks=[Same()],
    ).train()
    return recorder


def both(
    directory: Path, make: Callable[[], Recorder], settings: dict[str, Any]
) -> tuple[list[Any], list[Any]]:
    """Return what our trainer and theirs did: each event with its step and flags."""
    ours = make()
    train(directory / "ours", ours, **settings)
    reference = theirs(directory / "theirs", make(), settings)
    return seen(ours), seen(reference)


def seen(recorder: Recorder) -> list[Any]:
    return list(zip(recorder.events, recorder.steps, recorder.flags, strict=True))


def events_at(run: list[Any], step: int) -> list[str]:
    return [event for event, at, _ in run if at == step]


@pytest.mark.parametrize(
    ("event", "step"),
    [
        ("on_step_begin", MIDDLE - 1),
        ("on_substep_end", MIDDLE - 1),
        ("on_pre_optimizer_step", MIDDLE - 1),
        ("on_optimizer_step", MIDDLE - 1),
        ("on_step_end", MIDDLE),
    ],
)
def test_what_is_asked_for_within_a_step_is_done_at_its_end(
    tmp_path: Path, event: str, step: int
) -> None:
    settings = QUIET | {"gradient_accumulation_steps": 2, "num_train_epochs": 1}
    ours, reference = both(tmp_path, sets(event, step, *OF_A_STEP), settings)
    assert ours == reference
    assert {"on_log", "on_evaluate", "on_save"} <= set(events_at(ours, MIDDLE))


@pytest.mark.parametrize(("event", "step"), [("on_train_begin", 0), ("on_epoch_begin", LAST)])
def test_what_is_asked_for_before_a_step_is_lost_but_not_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, event: str, step: int
) -> None:
    ours, reference = both(tmp_path, sets(event, step, *OF_A_STEP), QUIET)
    assert ours == reference
    assert not {"on_evaluate", "on_save"} & {event for event, _, _ in ours}
    for flag in OF_A_STEP:
        assert f"control.{flag} was set after step {step}" in caplog.text


def test_what_is_asked_for_at_a_log_is_done_at_once(tmp_path: Path) -> None:
    settings = QUIET | {"logging_strategy": "steps", "logging_steps": MIDDLE}
    flags = ("should_evaluate", "should_save")
    ours, reference = both(tmp_path, sets("on_log", MIDDLE, *flags), settings)
    assert ours == reference
    assert {"on_evaluate", "on_save"} <= set(events_at(ours, MIDDLE))


def test_an_evaluation_that_is_asked_for_at_an_evaluation_s_log_is_that_one(tmp_path: Path) -> None:
    settings = QUIET | {"eval_strategy": "steps", "eval_steps": MIDDLE}
    ours, reference = both(tmp_path, sets("on_log", MIDDLE, "should_evaluate"), settings)
    assert ours == reference
    assert events_at(ours, MIDDLE).count("on_evaluate") == 1


def test_a_save_that_is_asked_for_at_an_evaluation_is_done_at_once(tmp_path: Path) -> None:
    settings = QUIET | {"eval_strategy": "steps", "eval_steps": MIDDLE}
    ours, reference = both(tmp_path, sets("on_evaluate", MIDDLE, "should_save"), settings)
    assert ours == reference
    assert "on_save" in events_at(ours, MIDDLE)


@pytest.mark.parametrize(
    ("event", "flags"),
    [("on_evaluate", ["should_log"]), ("on_save", ["should_log", "should_evaluate"])],
)
@pytest.mark.parametrize("step", [MIDDLE, LAST])
def test_what_is_asked_for_after_its_turn_is_done_at_the_end_of_an_epoch_and_else_said_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, event: str, flags: list[str], step: int
) -> None:
    every = {"on_evaluate": "eval", "on_save": "save"}[event]
    settings = QUIET | {f"{every}_strategy": "steps", f"{every}_steps": step}
    ours, reference = both(tmp_path, sets(event, step, *flags), settings)
    assert ours == reference
    said = [r.message for r in caplog.records if "was set after step" in r.message]
    done = events_at(ours, step)
    after = done[done.index("on_epoch_end") :] if step == LAST else []
    assert ("on_log" in after) is (step == LAST)
    assert len(said) == len(flags) * (step == MIDDLE)


@pytest.mark.parametrize(
    ("event", "step"),
    [
        ("on_step_begin", MIDDLE - 1),
        ("on_optimizer_step", MIDDLE - 1),
        ("on_step_end", MIDDLE),
        ("on_log", MIDDLE),
        ("on_evaluate", MIDDLE),
        ("on_save", MIDDLE),
    ],
)
@pytest.mark.parametrize("flag", ["should_training_stop", "should_epoch_stop"])
def test_a_stop_within_a_step_comes_after_its_block_and_saves_and_evaluates_nothing(
    tmp_path: Path, event: str, step: int, flag: str
) -> None:
    settings = QUIET
    if step == MIDDLE and event != "on_step_end":
        every = {"logging_steps": MIDDLE, "eval_steps": MIDDLE, "save_steps": MIDDLE}
        steps = ("logging_strategy", "eval_strategy", "save_strategy")
        settings = QUIET | every | dict.fromkeys(steps, "steps")
    ours, reference = both(tmp_path, sets(event, step, flag), settings)
    assert ours == reference
    ends = [at for event, at, _ in ours if event == "on_epoch_end"]
    assert ends[0] == MIDDLE
    assert len(ends) == (1 if flag == "should_training_stop" else 2)
    if settings is QUIET:
        assert not {"on_evaluate", "on_save"} & {event for event, _, _ in ours}


@pytest.mark.parametrize("flag", ["should_training_stop", "should_epoch_stop"])
def test_a_stop_within_a_group_breaks_it_off(tmp_path: Path, flag: str) -> None:
    settings = QUIET | {"gradient_accumulation_steps": 2, "num_train_epochs": 1}
    ours, reference = both(tmp_path, sets("on_substep_end", 2, flag), settings)
    assert ours == reference
    assert ours[-1][1] == 2


def test_the_epoch_stop_of_the_last_epoch_stays_up(tmp_path: Path) -> None:
    settings = QUIET | {"num_train_epochs": 1}
    ours, reference = both(tmp_path, sets("on_step_end", MIDDLE, "should_epoch_stop"), settings)
    assert ours == reference
    assert ours[-1] == ("on_train_end", MIDDLE, {"should_epoch_stop"})


def test_an_epoch_stop_at_train_begin_is_lost_but_not_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, reference = both(tmp_path, sets("on_train_begin", 0, "should_epoch_stop"), QUIET)
    assert ours == reference
    assert "control.should_epoch_stop was set after step 0" in caplog.text


def test_a_lost_flag_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def ask(state: Any, control: Any) -> None:
        control.should_save = True

    train(tmp_path, Recorder(on_epoch_begin=ask), **QUIET)
    assert [r.levelno for r in caplog.records if "was set after step" in r.message] == [
        logging.WARNING
    ]


def test_a_log_that_is_written_already_is_not_said_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = QUIET | {"logging_strategy": "steps", "logging_steps": LAST}
    train(tmp_path, sets("on_epoch_end", LAST, "should_log")(), **settings)
    assert "was set after step" not in caplog.text


@pytest.mark.parametrize("event", ["on_step_end", "on_evaluate"])
def test_a_save_that_a_hook_asks_for_is_made_though_the_evaluation_is_no_improvement(
    tmp_path: Path, event: str
) -> None:
    settings = QUIET | {
        "save_strategy": "best",
        "eval_strategy": "steps",
        "eval_steps": MIDDLE,
        "metric_for_best_model": "loss",
        "learning_rate": 1e-12,
    }
    recorder = sets(event, 2 * MIDDLE, "should_save")()
    train(tmp_path, recorder, **settings)
    assert "on_save" in events_at(seen(recorder), 2 * MIDDLE)
