"""What `compute_metrics` receives, and when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trainer import Trainer
from tests.support.regression import Line, Model, arguments


def trainer_of(directory: Path, compute: Any, **settings: Any) -> Trainer:
    args = arguments(directory, per_device_eval_batch_size=2, **settings)
    return Trainer(Model(), args, eval_dataset=Line(5), compute_metrics=compute)


def test_only_what_is_asked_for_can_be_unpacked(tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def compute(prediction: Any) -> dict[str, float]:
        seen.append(tuple(prediction))
        assert prediction[1] is prediction.label_ids
        return {}

    for wanted in ([], ["loss"], ["inputs", "loss"]):
        with trainer_of(tmp_path, compute, include_for_metrics=wanted) as trainer:
            loss = trainer.evaluate()["eval_loss"]
    assert [len(parts) for parts in seen] == [2, 3, 4]
    _, labels, inputs, losses = seen[2]
    np.testing.assert_array_equal(inputs, Line(5).x)
    np.testing.assert_array_equal(labels, Line(5).y)
    assert losses.mean() == pytest.approx(loss)
    np.testing.assert_array_equal(losses, seen[1][2])


def test_each_batch_is_given_by_itself_and_the_last_result_counts(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def compute(prediction: Any, compute_result: bool) -> dict[str, float]:
        assert isinstance(prediction.predictions, torch.Tensor)
        seen.append((len(prediction.predictions), compute_result))
        return {"rows": sum(rows for rows, _ in seen)}

    with trainer_of(tmp_path, compute, batch_eval_metrics=True) as trainer:
        assert trainer.evaluate()["eval_rows"] == 5
        assert seen == [(2, False), (2, False), (1, True)]
        assert trainer.predict(Line(5)).predictions.shape == (5,)


def test_a_function_that_cannot_be_called_by_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give compute_metrics a parameter"):
        trainer_of(tmp_path, lambda prediction: {}, batch_eval_metrics=True)


def test_nothing_is_kept_if_only_the_loss_is_asked_for(tmp_path: Path) -> None:
    def compute(prediction: Any) -> dict[str, float]:
        raise AssertionError

    with trainer_of(tmp_path, compute, prediction_loss_only=True) as trainer:
        assert "eval_loss" in trainer.evaluate()
        found = trainer.predict(Line(5))
    assert found.predictions is found.label_ids is None


def test_metrics_are_not_computed_without_labels(tmp_path: Path) -> None:
    def compute(prediction: Any) -> dict[str, float]:
        raise AssertionError

    with trainer_of(tmp_path, compute) as trainer:
        found = trainer.predict([{"x": 1.0}] * 3)  # type: ignore[arg-type]
    assert found.predictions.shape == (3,)
    assert found.label_ids is None


def test_inputs_that_a_batch_does_not_have_are_refused_by_name(tmp_path: Path) -> None:
    class Other(Model):
        main_input_name = "pixels"

    args = arguments(tmp_path, include_for_metrics=["inputs"])
    with (
        Trainer(
            Other(), args, eval_dataset=Line(4), compute_metrics=lambda prediction: {}
        ) as trainer,
        pytest.raises(ConfigurationError, match="the batch has no 'pixels'"),
    ):
        trainer.evaluate()
