"""A model that has become NaN: the loss that is logged, the warning, and the count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynccb.trainer import Trainer
from tests.huggingface.their_trainer import their_trainer
from tests.support.regression import Line, Model, Recorder, arguments, train


class Broken(Model):
    """Give a loss that is NaN, or else infinite, in the batches counted in `when`."""

    def __init__(self, when: Sequence[int], value: float = math.nan) -> None:
        super().__init__()
        self.when = when
        self.value = value
        self.calls = 0

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        self.calls += self.training
        loss = nn.functional.mse_loss(x * self.a + self.b, labels)  # type: ignore[arg-type]
        return (loss + self.value if self.calls in self.when else loss,)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "NaN or infinite" in r.getMessage()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_model_that_is_nan_logs_zero_as_in_transformers_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"max_steps": 6, "logging_steps": 2}
    given = {"train_dataset": Line()}
    theirs = their_trainer(tmp_path, model=Broken(range(99)), given=given, **settings)
    theirs.train()
    ours = train(tmp_path, model=Broken(range(99)), given=given, **settings)
    assert losses(ours) == losses(theirs) == [0.0] * 3
    (warning,) = warnings(caplog)
    assert warning.startswith("Broken: 'loss' was NaN or infinite in 2 of 2 batches until step 2")
    assert "logging_nan_inf_filter=False" in warning
    statistics = ours.dispatcher.statistics()
    assert statistics.filtered_losses == 6
    assert "6 losses were NaN or infinite" in statistics.summary({})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_warning_comes_with_the_first_log_that_hides_a_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    model = Broken([10], value)
    settings = {"max_steps": 8, "logging_steps": 2, "gradient_accumulation_steps": 2}
    said: list[int] = []
    note = Recorder(on_log=lambda state, control: said.append(len(warnings(caplog))))
    trainer = train(tmp_path, note, model=model, given={"eval_dataset": None}, **settings)
    assert said == [0, 0, 1, 1, 1]
    assert "in 1 of 12 batches until step 6" in warnings(caplog)[0]
    assert trainer.dispatcher.statistics().filtered_losses == 1


def test_losses_that_no_log_shows_are_counted_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = train(tmp_path, model=Broken([3, 4]), max_steps=5, logging_strategy="no")
    assert trainer.dispatcher.statistics().filtered_losses == 2
    assert "in 2 of 5 batches until step 5" in warnings(caplog)[0]


@pytest.mark.parametrize("filtered", [True, False])
def test_nothing_is_said_of_losses_that_are_finite_or_logged_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, filtered: bool
) -> None:
    trainer = train(
        tmp_path,
        model=Broken([] if filtered else range(99)),
        max_steps=4,
        logging_steps=1,
        logging_nan_inf_filter=filtered,
    )
    assert [math.isfinite(loss) for loss in losses(trainer)] == [filtered] * 4
    assert warnings(caplog) == []
    statistics = trainer.dispatcher.statistics()
    assert statistics.filtered_losses == 0
    assert "infinite" not in statistics.summary({})


def test_a_second_training_adds_to_the_count_and_warns_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"max_steps": 2, "logging_steps": 1}
    model = Broken(range(99))
    with Trainer(model, arguments(tmp_path, **settings), train_dataset=Line()) as trainer:
        trainer.train()
        trainer.train()
    assert trainer.dispatcher.statistics().filtered_losses == 4
    assert len(warnings(caplog)) == 2
