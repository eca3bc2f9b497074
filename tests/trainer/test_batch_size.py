"""A batch size that fits into memory is found within one run; and what there is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asynccb._ground.events import Event
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trainer import Trainer
from tests.support.regression import Line, Model, Recorder, arguments, history, train, weights


class Large(Model):
    """A model with room for `most` samples, from its call number `since` on."""

    def __init__(self, most: int, since: int = 0, error: BaseException | None = None) -> None:
        super().__init__()
        self.most, self.since, self.calls = most, since, 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        self.sizes: list[int] = []

    def forward(self, x: Any, labels: Any = None) -> Any:
        self.calls += self.training
        if self.training and self.calls > self.since and len(x) > self.most:
            raise self.error
        self.sizes.append(len(x))
        return super().forward(x, labels)


FINDS: dict[str, Any] = {"auto_find_batch_size": True, "logging_steps": 1, "num_train_epochs": 2}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc] DefaultCPUAllocator: can't allocate memory: 12"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."),
        MemoryError(),
    ],
    ids=str,
)
def test_batches_are_halved_until_they_fit(tmp_path: Path, error: BaseException) -> None:
    found = train(tmp_path / "found", model=Large(3, error=error), **FINDS)
    assert found.state.train_batch_size == 2
    assert found.state.global_step == found.state.max_steps == 64
    told = {**FINDS, "auto_find_batch_size": False, "per_device_train_batch_size": 2}
    expected = train(tmp_path / "told", **told)
    assert weights(found) == weights(expected)
    assert history(found) == history(expected)


def test_the_callbacks_see_one_run(tmp_path: Path) -> None:
    recorder, expected = Recorder(), Recorder()
    train(tmp_path / "found", recorder, model=Large(4), **FINDS)
    train(tmp_path / "told", expected, **{**FINDS, "per_device_train_batch_size": 4})
    assert recorder.events == expected.events
    assert recorder.steps == expected.steps


def test_a_run_goes_on_with_the_batch_that_does_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    model = Large(4, since=3)
    trainer = train(tmp_path, recorder, model=model, **FINDS)
    # 3 steps of 8 samples, 10 of 4, then 16 of 4 in the second epoch.
    assert model.sizes == [8] * 3 + [4] * 26
    assert trainer.state.global_step == trainer.state.max_steps == 29
    assert trainer.state.epoch == 2
    assert recorder.events.count(Event.TRAIN_BEGIN) == 1
    assert recorder.events.count(Event.EPOCH_BEGIN) == 2
    assert recorder.events.count(Event.STEP_BEGIN) == recorder.events.count(Event.STEP_END) == 29
    rates = [entry["learning_rate"] for entry in trainer.state.log_history[:-1]]
    assert rates[2:] == pytest.approx(
        [0.1 * (1 - 2 / 16), *(0.1 * (1 - n / 29) for n in range(3, 29))]
    )
    assert "a batch of 8 samples does not fit into memory: training goes on with batches of 4" in (
        caplog.text
    )
    assert trainer.state.total_flos == 6 * 2 * 128  # of each sample once an epoch


def test_no_sample_is_missed_or_seen_twice_in_groups(tmp_path: Path) -> None:
    settings = {**FINDS, "gradient_accumulation_steps": 2, "num_train_epochs": 1}
    model = Large(4, since=3)  # the second batch of the second group
    trainer = train(tmp_path, model=model, **settings)
    assert model.sizes == [8, 8, 8] + [4] * 12
    assert trainer.state.global_step == 7


def test_a_resumed_run_begins_with_the_size_that_was_found(tmp_path: Path) -> None:
    settings = {**FINDS, "save_steps": 10}
    whole = train(tmp_path, model=Large(4), **settings)
    model = Large(4)
    resumed = train(tmp_path, model=model, resume=tmp_path / "checkpoint-10", **settings)
    assert model.sizes == [4] * 22
    assert weights(resumed) == weights(whole)


def test_one_sample_that_does_not_fit_is_the_end(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError) as raised:
        train(tmp_path, model=Large(0), **FINDS)
    assert raised.value.__notes__ == [
        "auto_find_batch_size: a batch of 1 sample does not fit either"
    ]


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"auto_find_batch_size": False}, MemoryError()), ({}, RuntimeError("shapes differ"))],
)
def test_other_errors_are_raised(
    tmp_path: Path, settings: dict[str, Any], error: BaseException
) -> None:
    with pytest.raises(type(error)):
        train(tmp_path, model=Large(4, error=error), **{**FINDS, **settings})


def test_several_processes_cannot_find_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = arguments(tmp_path, auto_find_batch_size=True)
    with pytest.raises(ConfigurationError, match="there are 2 processes"):
        Trainer(Model(), args, train_dataset=Line())


def test_a_search_for_hyperparameters_is_refused_with_what_to_use(tmp_path: Path) -> None:
    with (
        Trainer(Model(), arguments(tmp_path), train_dataset=Line()) as trainer,
        pytest.raises(ConfigurationError, match=r"no hyperparameter_search: use optuna's"),
    ):
        trainer.hyperparameter_search(direction="minimize", n_trials=3)
