"""Callbacks written for transformers in our Trainer and dispatcher, and ours in theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations import TensorBoardCallback

import asynccb
from asynccb._ring.slots import Kind, Part
from asynccb._staging.staged import Layout, Staged, StagedLog
from tests.huggingface.their_trainer import their_trainer, transformers
from tests.support.regression import Recorder, train
from tests.support.running import running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

EVERY = {"logging_steps": 2, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 8}


class Keeps(transformers.TrainerCallback):
    """Keep what its hooks got."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, Any, Any, dict[str, Any]]] = []

    def on_log(self, args, state, control, **kwargs):
        self.seen.append((args, state, control, kwargs))


@pytest.mark.parametrize("as_class", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        transformers.DefaultFlowCallback,
        transformers.PrinterCallback,
        transformers.ProgressCallback,
        TensorBoardCallback,
        Keeps,
    ],
    ids=lambda kind: kind.__name__,
)
def test_theirs_are_taken_by_our_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, as_class: bool
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    alone, beside = Recorder(), Recorder()
    train(tmp_path / "alone", alone, max_steps=8, **EVERY)
    trainer = train(tmp_path / "beside", kind if as_class else kind(), beside, max_steps=8, **EVERY)
    assert any(isinstance(each, kind) for each in trainer.dispatcher.callbacks)
    assert beside.events == alone.events
    assert beside.flags == alone.flags


def test_theirs_get_the_live_objects_of_our_trainer(tmp_path: Path) -> None:
    keeps = Keeps()
    trainer = train(tmp_path, keeps, max_steps=2, logging_steps=1)
    args, state, control, given = keeps.seen[0]
    assert args is trainer.args
    assert state is trainer.state
    assert isinstance(control, asynccb.TrainerControl)
    assert given["model"] is trainer.model
    assert type(given["logs"]["loss"]) is float


def test_their_default_flow_and_early_stopping_steer_our_trainer(tmp_path: Path) -> None:
    trainer = train(
        tmp_path, transformers.EarlyStoppingCallback(2), eval_strategy="steps", eval_steps=1,
        metric_for_best_model="loss", learning_rate=0.0, save_strategy="no",
    )  # fmt: skip
    assert trainer.state.global_step == 3


def test_their_tensorboard_callback_writes_what_our_trainer_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    train(tmp_path, TensorBoardCallback, max_steps=4, logging_steps=1)
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 2, 3, 4]


def test_theirs_get_numbers_for_values_on_their_way_and_ours_the_stand_ins(tmp_path: Path) -> None:
    def arrive(log: StagedLog) -> None:
        log.values = [0.25]

    log = StagedLog(0, Layout({"loss": Part(Kind.FLOAT, 0)}), arrive)
    logs = {"loss": Staged(log, 0), "epoch": 1.0}
    theirs, ours = Keeps(), []

    class Ours(asynccb.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            ours.append(logs)

    with running(Ours(), theirs, directory=tmp_path) as run:
        run.emit("on_log", logs=logs)
    assert ours == [logs]
    assert type(ours[0]["loss"]) is Staged
    (_, _, _, given) = theirs.seen[0]
    assert given["logs"] == {"loss": 0.25, "epoch": 1.0}
    assert type(given["logs"]["loss"]) is float


@pytest.mark.parametrize("as_class", [True, False])
@pytest.mark.parametrize(
    "kind",
    [asynccb.DefaultFlowCallback, asynccb.PrinterCallback, asynccb.ProgressCallback, Recorder],
    ids=lambda kind: kind.__name__,
)
def test_ours_with_def_hooks_are_taken_by_their_trainer(
    tmp_path: Path, kind: type, as_class: bool
) -> None:
    alone, beside = Recorder(), Recorder()
    their_trainer(tmp_path, alone, max_steps=8, **EVERY).train()
    their_trainer(tmp_path, kind if as_class else kind(), beside, max_steps=8, **EVERY).train()
    assert beside.events == alone.events
    assert beside.flags == alone.flags


def test_our_early_stopping_steers_their_trainer(tmp_path: Path) -> None:
    trainer = their_trainer(
        tmp_path, asynccb.EarlyStoppingCallback(2), eval_strategy="steps", eval_steps=1,
        metric_for_best_model="loss", learning_rate=0.0, save_strategy="no",
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 3
