"""Every field of the state, at every event, is what it is in `transformers.Trainer`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asynccb._ground.events import EVENTS
from tests.huggingface.their_trainer import VERSION, their_trainer, transformers
from tests.support.regression import Line, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.skipif(VERSION < (5, 23), reason="our Trainer follows transformers 5.23 and later"),
]

ELSEWHERE = {
    "log_history": "test_differential.py compares its entries",
    "total_flos": "models of transformers alone have a count, and this one is none",
    "stateful_callbacks": "test_resume.py and checkpoint/test_callback_states.py",
}
FIELDS = [
    field.name
    for field in dataclasses.fields(transformers.TrainerState)
    if field.name not in ELSEWHERE
]
BATCHES: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "num_train_epochs": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "steps": {"logging_steps": 3, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 3},
    "shares": {"logging_steps": 0.25, "eval_strategy": "steps", "eval_steps": 0.5},
    "groups": {"gradient_accumulation_steps": 3, "logging_steps": 1},
    "max-steps": {"max_steps": 6, "save_strategy": "epoch"},
    "part-of-an-epoch": {"num_train_epochs": 1.5},
    "best": {
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True,
        "learning_rate": 1.5,
    },
    "best-by-epoch": {
        "eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "loss",
    },
}  # fmt: skip


class Watch(transformers.TrainerCallback):
    """Write down the state's fields at each event, in either Trainer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def record(self, event: str, state: Any) -> None:
        values = {name: getattr(state, name) for name in FIELDS}
        if values["best_model_checkpoint"] is not None:
            values["best_model_checkpoint"] = Path(values["best_model_checkpoint"]).name
        if values["best_metric"] is not None:
            values["best_metric"] = pytest.approx(values["best_metric"], rel=1e-5)
        self.seen.append((event, values))


def _hook(event: str) -> Callable[..., None]:
    def hook(self: Watch, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.record(event, state)

    return hook


for _event in EVENTS:
    setattr(Watch, _event, _hook(_event))


@pytest.mark.parametrize("case", CASES)
def test_the_fields_are_those_of_transformers_at_every_event(case: str, tmp_path: Path) -> None:
    data = {"train_dataset": Line(8), "eval_dataset": Line(4, seed=1)}
    settings = {**BATCHES, **CASES[case]}
    theirs, ours = Watch(), Watch()
    trainer = their_trainer(tmp_path / "theirs", theirs, given=data, **settings)
    trainer.train()
    train(tmp_path / "ours", ours, given=data, **settings)
    assert [event for event, _ in ours.seen] == [event for event, _ in theirs.seen]
    for (event, mine), (_, expected) in zip(ours.seen, theirs.seen, strict=True):
        for name in FIELDS:
            assert mine[name] == expected[name], f"{name} at {event} of step {mine['global_step']}"


def test_the_fields_that_are_compared_elsewhere_are_fields() -> None:
    names = {field.name for field in dataclasses.fields(transformers.TrainerState)}
    assert set(ELSEWHERE) <= names
