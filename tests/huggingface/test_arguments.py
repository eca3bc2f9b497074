"""Arguments in our Trainer and in that of transformers: the same names, the same figures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import asynccb
from asynccb.arguments.names import ABSENT, RENAMED
from tests.huggingface.test_values import TEXTS, both, figures, llama, nearly
from tests.huggingface.their_trainer import VERSION, their_trainer, transformers
from tests.support.regression import Model, train, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of what transformers deprecates
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


def classification(**settings: Any) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """Texts of two classes, 5 for evaluation; also return a list of what metrics receive."""
    seen: list[Any] = []

    def compute_metrics(prediction: Any, compute_result: Any = None) -> dict[str, float]:
        parts = [part["input_ids"] if isinstance(part, dict) else part for part in prediction]
        seen.append(([np.asarray(part).tolist() for part in parts], compute_result))
        return {"rows": len(prediction.predictions)}

    texts = [{"input_ids": torch.arange(4) + i, "labels": i % 2} for i in range(8)]
    given = {
        "train_dataset": texts,
        "eval_dataset": texts[:5],
        "compute_metrics": compute_metrics,
    }
    settings = {
        "max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 2, "eval_strategy": "steps", "eval_steps": 2, **settings,
    }  # fmt: skip
    return given, settings, seen


def classifier() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=2, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_names": ["labels"]},
        {"label_smoothing_factor": 0.2},
        {"include_for_metrics": ["inputs", "loss"]},
        {"include_for_metrics": ["loss"], "eval_accumulation_steps": 1},
        {"prediction_loss_only": True},
        {"batch_eval_metrics": True},
        {"batch_eval_metrics": True, "include_for_metrics": ["inputs"]},
        {"activation_checkpointing": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    ],
    ids=str,
)
def test_losses_and_metrics_are_those_of_transformers(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    runs = []
    for make in (train, their_trainer):
        given, arguments, seen = classification(**settings)
        trainer = make(tmp_path / make.__name__, model=classifier(), given=given, **arguments)
        if make is their_trainer:
            trainer.train()
        runs.append((figures(trainer), seen))
    (ours, received), (theirs, expected) = runs
    assert ours == nearly(theirs)
    assert len(received) == len(expected)
    for (parts, result), (wanted, as_wanted) in zip(received, expected, strict=True):
        assert result == as_wanted
        for part, other in zip(parts, wanted, strict=True):
            np.testing.assert_allclose(part, other, rtol=1e-4)


def test_a_causal_model_with_smoothed_labels_has_the_losses_of_transformers(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, llama, label_smoothing_factor=0.1)
    assert figures(ours) == nearly(figures(theirs))


@pytest.mark.parametrize("kept", [True, False])
def test_keys_that_the_model_does_not_take_are_left_out_as_in_transformers(
    tmp_path: Path, kept: bool
) -> None:
    rows = [{"idx": i, **text} for i, text in enumerate(TEXTS)]
    seen: list[set[str]] = []

    def collate(samples: list[dict[str, Any]]) -> Any:
        seen.append(set(samples[0]))
        return transformers.default_data_collator(
            [{key: sample[key] for key in TEXTS[0]} for sample in samples]
        )

    given = {"train_dataset": rows, "data_collator": collate}
    settings = {"remove_unused_columns": not kept, "max_steps": 1}
    ours, theirs = both(tmp_path, llama, given=given, **settings)
    assert ({"idx"} <= seen[0]) is kept
    assert seen[0] == seen[-1]
    assert figures(ours) == nearly(figures(theirs))


def test_a_batch_whose_loss_is_nan_is_left_out_of_the_mean_as_in_transformers(
    tmp_path: Path,
) -> None:
    class Blinks(Model):
        def forward(self, x: Any, labels: Any = None) -> Any:
            loss, y = super().forward(x, labels)
            return loss if self.training or not bool((x > 1).any()) else loss * math.nan, y

    for filters in (True, False):
        settings = {"max_steps": 1, "logging_nan_inf_filter": filters}
        settings |= {"per_device_eval_batch_size": 2, "eval_strategy": "epoch"}
        theirs = their_trainer(tmp_path / "theirs", model=Blinks(), **settings)
        ours = train(tmp_path / "ours", model=Blinks(), **settings)
        theirs.train()
        losses = [
            next(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
            for trainer in (ours, theirs)
        ]
        assert losses[0] == pytest.approx(losses[1], nan_ok=True)
        assert math.isnan(losses[0]) is not filters
