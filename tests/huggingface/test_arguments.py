"""Arguments in our Trainer and in that of transformers: the same names, the same figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import asynccb
from asynccb.arguments.names import ABSENT, RENAMED
from tests.huggingface.test_values import figures, nearly
from tests.huggingface.their_trainer import VERSION, their_trainer, transformers
from tests.support.regression import train, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.skipif(VERSION < (5, 24), reason="our Trainer follows transformers 5.24"),
]

OURS = {f.name: f for f in dataclasses.fields(asynccb.TrainingArguments)}
THEIRS = {f.name: f for f in dataclasses.fields(transformers.TrainingArguments)}


def test_every_argument_of_transformers_is_ours_or_refused_by_name() -> None:
    assert set(THEIRS) <= {*OURS, *ABSENT, *RENAMED}
    assert not set(THEIRS) & set(RENAMED)


def test_the_defaults_are_those_of_transformers() -> None:
    ours, theirs = asynccb.TrainingArguments(), transformers.TrainingArguments(use_cpu=False)
    different = {
        name for name in OURS.keys() & THEIRS.keys() if getattr(ours, name) != getattr(theirs, name)
    }
    assert different == {"report_to"}


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.5}},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}},
        {"lr_scheduler_type": "cosine_with_restarts"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0.02}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.3}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": '{"power": 2, "lr_end": 0.01}'},
        {"lr_scheduler_type": "inverse_sqrt"},
        {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 3}},
        {
            "lr_scheduler_type": "reduce_lr_on_plateau",
            "lr_scheduler_kwargs": {"factor": 0.5, "patience": 0, "threshold": 0.5},
            "eval_strategy": "steps",
            "eval_steps": 1,
        },
        {"optim": "adamw_torch", "weight_decay": 0.1},
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=true", "weight_decay": 0.1},
        {"optim": "adagrad", "optim_args": "lr_decay=0.1,eps=1e-3"},
        {"optim": "rmsprop", "optim_args": "alpha=0.9,centered=true,momentum=0.5"},
    ],
    ids=str,
)
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_optimizer_and_its_schedule_are_those_of_transformers(
    tmp_path: Path, settings: dict[str, Any], warmup: int
) -> None:
    given = {"max_steps": 10, "logging_steps": 1, "warmup_steps": warmup, **settings}
    theirs = their_trainer(tmp_path / "theirs", **given)
    theirs.train()
    ours = train(tmp_path / "ours", **given)
    assert figures(ours) == nearly(figures(theirs))
    for name, value in weights(ours).items():
        assert float(value) == pytest.approx(float(theirs.model.state_dict()[name]), rel=1e-4)
