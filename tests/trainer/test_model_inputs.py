"""Which keys of a sample a model receives, and which of them are labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trainer import Trainer
from tests.support.regression import Line, Model, arguments, train


class Rows(Line):
    """Points with a key that the model does not need."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "idx": index}


def test_a_key_that_the_forward_does_not_name_is_left_out(tmp_path: Path) -> None:
    given = {"train_dataset": Rows(), "eval_dataset": Rows(8)}
    trainer = train(tmp_path, max_steps=1, eval_strategy="epoch", given=given)
    assert trainer.state.global_step == 1


def test_a_key_is_left_in_if_the_argument_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="idx"):
        train(tmp_path, max_steps=1, remove_unused_columns=False, given={"train_dataset": Rows()})


def test_a_forward_with_any_keywords_receives_every_key(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    class Takes(Model):
        def forward(self, x: Any, labels: Any = None, **more: Any) -> Any:
            seen.append(set(more))
            return super().forward(x, labels)

    train(tmp_path, model=Takes(), max_steps=1, given={"train_dataset": Rows()})
    assert seen == [{"idx"}]


def test_samples_without_any_key_of_the_model_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"forward of Model takes no key .*\(X, Y\)"):
        train(tmp_path, max_steps=1, given={"train_dataset": [{"X": 1.0, "Y": 2.0}] * 8})


def test_the_keys_that_are_left_out_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="asynccb"):
        train(tmp_path, max_steps=3, given={"train_dataset": Rows()})
    assert [r.getMessage() for r in caplog.records if "idx" in r.getMessage()] == [
        "left out of the samples, because the forward of Model does not name them: idx"
    ]


class Spans(nn.Module):
    """A model with two labels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Any, first_label: Any = None, second_label: Any = None) -> Any:
        y = self.a * x
        return (y,) if first_label is None else ((y - first_label - second_label).pow(2).mean(), y)


SPANS = [{"x": float(i), "first_label": i, "second_label": 2 * i} for i in range(8)]


def test_all_parameters_that_are_called_labels_are_labels(tmp_path: Path) -> None:
    with Trainer(Spans(), arguments(tmp_path)) as trainer:
        found = trainer.predict(SPANS)  # type: ignore[arg-type]
    assert [part.tolist() for part in found.label_ids] == [
        list(range(8)),
        list(range(0, 16, 2)),
    ]


def test_the_names_of_labels_that_are_given_count(tmp_path: Path) -> None:
    with Trainer(Spans(), arguments(tmp_path, label_names=["second_label"])) as trainer:
        found = trainer.predict(SPANS)  # type: ignore[arg-type]
    assert found.label_ids.tolist() == list(range(0, 16, 2))


def test_a_loss_function_receives_the_labels_by_their_names(tmp_path: Path) -> None:
    class Predicts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(0.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a * x

    rows = [{"x": float(i), "target": 3.0} for i in range(8)]
    trainer = train(
        tmp_path,
        model=Predicts(),
        label_names=["target"],
        max_steps=1,
        logging_steps=1,
        given={"train_dataset": rows, "compute_loss_func": nn.functional.mse_loss},
    )
    assert trainer.state.log_history[0]["loss"] == 9.0


def test_a_batch_that_lacks_a_label_has_no_labels_and_the_loss_of_its_model(
    tmp_path: Path,
) -> None:
    args = arguments(tmp_path, label_names=["first_label", "third_label"])
    with Trainer(Spans(), args) as trainer:
        found = trainer.predict(SPANS)  # type: ignore[arg-type]
    assert found.label_ids is None
    assert "test_loss" in found.metrics


def test_labels_that_are_no_classes_cannot_be_smoothed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"label_smoothing_factor is 0.1, .*float32"):
        train(tmp_path, max_steps=1, label_smoothing_factor=0.1)


def test_a_model_without_a_method_for_checkpointing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Model has no method for it"):
        Trainer(Model(), arguments(tmp_path, activation_checkpointing=True))
