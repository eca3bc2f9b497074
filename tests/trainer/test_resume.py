"""A resumed run goes on bit by bit as if it had never been interrupted."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynccb._ground.exceptions import ConfigurationError
from asynccb._state.trainer_state import ExportableState
from asynccb.callbacks import EarlyStoppingCallback
from asynccb.callbacks.base import TrainerCallback
from asynccb.checkpoint import last_checkpoint
from asynccb.checkpoint.weights import load_weights
from asynccb.trainer import Trainer
from tests.support.regression import (
    Line,
    Model,
    Recorder,
    Stream,
    arguments,
    history,
    train,
    weights,
)


class Noisy(Line):
    """Draw from every random generator of the process for each sample."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        import numpy as np

        noise = random.random() + np.random.random() + float(torch.rand(()))
        sample = super().__getitem__(index)
        return sample | {"x": sample["x"] + 0.1 * noise}


class NoisyStream(Stream):
    def __init__(self) -> None:
        self.line = Noisy(36)


RUN: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 9,
    "save_steps": 1,
}
"""Nine batches an epoch, so that each ends with a group of one; the steps end in the second."""

VARIANTS: dict[str, dict[str, Any]] = {
    "logging": {"logging_steps": 1},
    "windows": {"logging_steps": 4, "eval_strategy": "steps", "eval_steps": 3},
    "epochs": {
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
        "lr_scheduler_type": "cosine",
    },
    "stream": {"logging_steps": 2},
    "unlimited": {"logging_steps": 1, "max_steps": -1, "num_train_epochs": 2},
}


class SkipsRestOfEpoch(TrainerCallback):
    """End the first epoch after its third step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_epoch_stop = state.global_step == 3


def run(directory: Path, variant: str, resume: Path | None = None) -> Trainer:
    stream = variant == "stream"
    return train(
        directory,
        *([] if stream else [SkipsRestOfEpoch]),
        model=Model(dropout=0.3),
        resume=resume,
        given={"train_dataset": NoisyStream() if stream else Noisy(36)},
        **RUN | VARIANTS[variant],
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_resumed_from_any_step_ends_as_the_uninterrupted_one(
    tmp_path: Path, variant: str
) -> None:
    whole = run(tmp_path / "whole", variant)
    for step in range(1, whole.state.global_step + 1):
        resumed = run(tmp_path / str(step), variant, tmp_path / "whole" / f"checkpoint-{step}")
        assert weights(resumed) == weights(whole), step
        assert history(resumed) == history(whole), step


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_saved_at_epoch_ends_resumes_with_the_next_epoch(
    tmp_path: Path, workers: int
) -> None:
    options: dict[str, Any] = {
        "given": {"train_dataset": Noisy(64)},
        "dataloader_num_workers": workers,
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
    }

    def recording() -> Recorder:
        return Recorder(on_epoch_begin=lambda state, control: torch.rand(()))

    whole = train(tmp_path / "whole", recording(), model=Model(dropout=0.3), **options)
    recorder = recording()
    resumed = train(
        tmp_path / "resumed",
        recorder,
        model=Model(dropout=0.3),
        resume=tmp_path / "whole" / "checkpoint-8",
        **options,
    )
    assert recorder.events.count("on_epoch_begin") == 2
    assert weights(resumed) == weights(whole)
    assert history(resumed) == history(whole)


def test_a_finished_run_that_is_resumed_makes_no_step(tmp_path: Path) -> None:
    train(tmp_path, max_steps=4)
    recorder = Recorder()
    train(tmp_path, recorder, max_steps=4, resume=tmp_path / "checkpoint-4")
    assert "on_step_begin" not in recorder.events
    assert recorder.events[-1] == "on_train_end"


def test_a_finished_run_goes_on_where_it_is_given_more_steps(tmp_path: Path) -> None:
    options = {"lr_scheduler_type": "constant", "logging_steps": 1}
    whole = train(tmp_path / "whole", max_steps=6, **options)
    train(tmp_path / "part", max_steps=4, **options)
    more = train(
        tmp_path / "part", max_steps=6, resume=tmp_path / "part" / "checkpoint-4", **options
    )
    assert weights(more) == weights(whole)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, lambda model: torch.compile(model, backend="eager")],
    ids=["parallel", "compiled"],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_run_of_a_wrapped_model_is_resumed_with_a_bare_one_and_the_other_way_round(
    tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    whole = train(tmp_path, model=wrap(Model()), max_steps=4, save_steps=2)
    bare = train(tmp_path / "bare", max_steps=4, save_steps=2, resume=tmp_path / "checkpoint-2")
    again = train(
        tmp_path, model=wrap(Model()), max_steps=4, resume=tmp_path / "bare" / "checkpoint-4"
    )
    assert list(weights(bare).values()) == list(weights(whole).values())
    assert list(weights(again).values()) == list(weights(whole).values())


def test_the_data_of_the_interrupted_epoch_is_not_loaded_again(tmp_path: Path) -> None:
    loaded: list[int] = []

    class Watched(Line):
        def __getitem__(self, index: int) -> dict[str, Any]:
            loaded.append(index)
            return super().__getitem__(index)

    train(tmp_path, num_train_epochs=1, save_steps=6)
    train(
        tmp_path,
        num_train_epochs=1,
        save_steps=6,
        resume=tmp_path / "checkpoint-6",
        given={"train_dataset": Watched()},
    )
    assert len(loaded) == 16


def test_a_resume_with_smaller_batches_sees_only_the_samples_that_are_left(tmp_path: Path) -> None:
    train(tmp_path, num_train_epochs=1, save_steps=6)
    resumed = train(
        tmp_path,
        num_train_epochs=1,
        save_steps=6,
        per_device_train_batch_size=4,
        resume=tmp_path / "checkpoint-6",
    )
    assert resumed.state.global_step == 6 + 4
    assert resumed.state.epoch == 1


@pytest.mark.parametrize(
    ("batch_size", "samples", "last"),
    [(4, 64, 3 + 10 + 16), (16, 64, 3 + 3 + 4), (8, 128, 3 + 13 + 16), (8, 16, 3 + 2)],
    ids=["smaller batches", "larger batches", "more data", "less data"],
)
def test_a_resume_with_other_steps_ends_with_the_epochs_and_with_a_save(
    tmp_path: Path, batch_size: int, samples: int, last: int
) -> None:
    train(tmp_path, num_train_epochs=2, save_steps=3)
    resumed = train(
        tmp_path / "resumed",
        num_train_epochs=2,
        per_device_train_batch_size=batch_size,
        resume=tmp_path / "checkpoint-3",
        given={"train_dataset": Line(samples)},
    )
    assert (resumed.state.global_step, resumed.state.max_steps) == (last, last)
    assert resumed.state.epoch == 2
    assert resumed.dispatcher.lr_scheduler.get_last_lr() == [0.0, 0.0]
    assert (tmp_path / "resumed" / f"checkpoint-{last}").is_dir()


def test_a_resume_with_smaller_batches_makes_all_the_steps_that_were_asked_for(
    tmp_path: Path,
) -> None:
    train(tmp_path, max_steps=16)
    resumed = train(
        tmp_path,
        max_steps=20,
        per_device_train_batch_size=4,
        resume=tmp_path / "checkpoint-16",
    )
    assert resumed.state.global_step == 20


def test_a_finished_run_that_is_resumed_with_larger_batches_makes_no_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_train_epochs": 1, "given": {"train_dataset": Line(20)}}
    train(tmp_path, per_device_train_batch_size=4, **options)
    resumed = train(
        tmp_path, per_device_train_batch_size=8, resume=tmp_path / "checkpoint-5", **options
    )
    assert resumed.state.global_step == 5


def optimized(kind: type[torch.optim.Optimizer], schedule: Any, groups: int = 1) -> Any:
    """A model, and what is given to a Trainer to train it so."""
    model = Model()
    parts = [[*model.parameters()]] if groups == 1 else [[model.a], [model.b]]
    optimizer = kind([{"params": part, "lr": 0.1} for part in parts])  # type: ignore[call-arg]
    return {"model": model, "given": {"optimizers": (optimizer, schedule(optimizer))}}


def exponential(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)


def in_steps(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (
            (torch.optim.Adam, exponential),
            (torch.optim.SGD, exponential),
            r"checkpoint-2/optimizer\.pt is of Adam, not of SGD",
        ),
        (
            (torch.optim.SGD, in_steps),
            (torch.optim.SGD, exponential),
            r"checkpoint-2/scheduler\.pt is of StepLR, not of ExponentialLR",
        ),
        (
            (torch.optim.SGD, in_steps),
            (torch.optim.SGD, in_steps, 2),
            r"checkpoint-2/optimizer\.pt does not fit SGD",
        ),
    ],
    ids=["optimizer", "schedule", "groups"],
)
def test_a_resume_with_another_optimizer_or_schedule_is_refused_by_name(
    tmp_path: Path, then: Any, now: Any, message: str
) -> None:
    train(tmp_path, max_steps=2, **optimized(*then))
    with pytest.raises(ConfigurationError, match=message):
        train(tmp_path, max_steps=4, resume=tmp_path / "checkpoint-2", **optimized(*now))


def test_ignoring_the_skip_begins_the_epoch_anew(tmp_path: Path) -> None:
    train(tmp_path, max_steps=2)
    resumed = train(tmp_path, max_steps=4, ignore_data_skip=True, resume=tmp_path / "checkpoint-2")
    assert resumed.state.epoch == 2 / 8


def test_ignoring_the_skip_repeats_no_epoch_that_was_whole(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_train_epochs": 2, "save_steps": 8}
    train(tmp_path, **options)
    resumed = train(tmp_path, ignore_data_skip=True, resume=tmp_path / "checkpoint-8", **options)
    assert resumed.state.epoch == 2


def test_a_checkpoint_of_the_model_only_resumes_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, max_steps=2, save_only_model=True)
    assert not (tmp_path / "checkpoint-2" / "optimizer.pt").exists()
    resumed = train(tmp_path, max_steps=3, resume=tmp_path / "checkpoint-2")
    assert resumed.state.global_step == 3
    assert "lacks optimizer.pt, scheduler.pt, loop.pt, rng_state.pth" in caplog.text


KILLED = """
import sys
from collections.abc import Callable
from pathlib import Path
from tests.support.regression import Model, Recorder, train
def at_step_end(state, control):
    if state.global_step == 20:
        print("twenty", file=sys.stderr, flush=True)
train(Path(sys.argv[1]), Recorder(on_step_end=at_step_end), model=Model(0.3), max_steps=100_000,
      save_steps=1, save_total_limit=5, logging_steps=3, lr_scheduler_type="constant")
"""


def test_a_run_killed_at_any_moment_resumes_as_if_it_had_not_been(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "twenty" in process.stderr.readline()
        process.kill()
    last = last_checkpoint(tmp_path)
    assert last is not None
    steps = int(last.name.partition("-")[2]) + 10
    options = {"max_steps": steps, "logging_steps": 3, "lr_scheduler_type": "constant"}
    resumed = train(tmp_path, model=Model(0.3), resume=last, **options)
    whole = train(tmp_path / "whole", model=Model(0.3), **options)
    assert weights(resumed) == weights(whole)
    assert history(resumed) == history(whole)
    assert not list(tmp_path.glob("*.incomplete"))


def test_a_callback_gets_its_state_back_in_place(tmp_path: Path) -> None:
    train(
        tmp_path,
        EarlyStoppingCallback(early_stopping_patience=5, early_stopping_threshold=0.2),
        max_steps=2,
        eval_strategy="epoch",
        metric_for_best_model="loss",
    )
    mine = EarlyStoppingCallback()
    resumed = train(
        tmp_path,
        mine,
        max_steps=2,
        eval_strategy="epoch",
        metric_for_best_model="loss",
        restore_callback_states_from_checkpoint=True,
        resume=tmp_path / "checkpoint-2",
    )
    assert mine in resumed.dispatcher.callbacks
    assert resumed.dispatcher.callbacks.index(mine) == 1
    assert mine.early_stopping_patience == 5
    assert mine.early_stopping_threshold == 0.2


def test_callbacks_that_are_not_to_get_their_states_back_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, Counter(), max_steps=1)
    train(tmp_path, Counter(), max_steps=2, resume=tmp_path / "checkpoint-1")
    assert caplog.text.count("the checkpoint's states of Counter are not restored") == 1


class Counter(TrainerCallback, ExportableState):
    def __init__(self, name: str = "unnamed") -> None:
        self.name = name
        self.count = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.count += 1

    def state(self) -> dict[str, Any]:
        return {"args": {"name": self.name}, "attributes": {"count": self.count}}


def test_two_callbacks_of_one_class_get_their_states_back_in_order(tmp_path: Path) -> None:
    train(tmp_path, Counter("first"), Counter("second"), max_steps=4, save_steps=1)
    one, two = Counter(), Counter()
    options = {"max_steps": 6, "restore_callback_states_from_checkpoint": True}
    train(tmp_path, one, two, resume=tmp_path / "checkpoint-4", **options)
    assert (one.name, two.name) == ("first", "second")
    assert (one.count, two.count) == (6, 6)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([Counter], [], "1 Counter, but the run has 0; the others are left out"),
        ([], [Counter], "no state of Counter; they start anew"),
        ([Counter], [Counter, Counter], "1 Counter, but the run has 2; the others start anew"),
    ],
)
def test_callbacks_that_came_or_went_are_a_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    before: list[Any],
    after: list[Any],
    message: str,
) -> None:
    train(tmp_path, *before, max_steps=1)
    options = {"max_steps": 2, "restore_callback_states_from_checkpoint": True}
    train(tmp_path, *after, resume=tmp_path / "checkpoint-1", **options)
    assert message in caplog.text


def test_new_intervals_win_over_those_of_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, max_steps=2, save_steps=2)
    resumed = train(tmp_path, max_steps=4, save_steps=3, resume=tmp_path / "checkpoint-2")
    assert resumed.state.save_steps == 3
    assert "save_steps: 3 (from args) != 2 (from trainer_state.json)" in caplog.text
    assert (tmp_path / "checkpoint-3").is_dir()


def test_true_resumes_from_the_last_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, max_steps=3, save_steps=1)
    recorder = Recorder()
    trainer = Trainer(
        Model(), arguments(tmp_path, max_steps=4), train_dataset=Line(), callbacks=[recorder]
    )
    with trainer:
        trainer.train(resume_from_checkpoint=True)
    assert recorder.events.count("on_step_begin") == 1


@pytest.mark.parametrize("resume", [True, "nowhere"])
def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path, resume: str | bool) -> None:
    with (
        Trainer(Model(), arguments(tmp_path), train_dataset=Line()) as trainer,
        pytest.raises(ConfigurationError, match="resume_from_checkpoint"),
    ):
        trainer.train(resume_from_checkpoint=resume)


def test_a_checkpoint_without_a_state_starts_at_step_zero_with_its_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(tmp_path, max_steps=2)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(tmp_path / "checkpoint-2" / "model.safetensors", bare)
    second = train(tmp_path, max_steps=0, resume=bare)
    assert weights(second) == weights(first)
    assert "starts at step 0" in caplog.text


def test_a_checkpoint_without_a_state_gives_its_weights_and_nothing_else(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 8, "save_steps": 6, "logging_steps": 4}
    train(tmp_path, **options)
    folder = tmp_path / "checkpoint-6"
    (folder / "trainer_state.json").unlink()
    begun = Model()
    load_weights(begun, folder)
    anew = train(tmp_path / "anew", model=begun, **options)
    resumed = train(tmp_path / "resumed", resume=folder, **options)
    assert history(resumed) == history(anew)
    assert weights(resumed) == weights(anew)
