"""What the Trainer makes of data: batches, epochs, shards, evaluations, predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trainer import Trainer
from asynccb.trainer.collate import default_collate
from tests.support.regression import Line, Model, Recorder, Stream, arguments, history, train


def test_tuples_are_passed_by_place_and_the_last_is_the_label(tmp_path: Path) -> None:
    class Pairs(Line):
        def __getitem__(self, index: int) -> Any:
            return self.x[index], self.y[index]

    class Plain(Model):
        def forward(self, x: torch.Tensor, labels: Any = None) -> torch.Tensor:
            return x * self.a + self.b

    mapped = train(tmp_path / "maps", logging_steps=1)
    paired = train(
        tmp_path / "pairs",
        model=Plain(),
        logging_steps=1,
        given={
            "train_dataset": Pairs(),
            "eval_dataset": Pairs(8),
            "compute_loss_func": nn.functional.mse_loss,
        },
    )
    # Operations are counted by the name of the model's input, which a tuple does not contain.
    assert "total_flos" in history(mapped)[-1]
    assert "total_flos" not in history(paired)[-1]
    assert [entry | {"total_flos": None} for entry in history(mapped)] == [
        entry | {"total_flos": None} for entry in history(paired)
    ]


def test_samples_that_no_batch_can_be_made_of_are_named(tmp_path: Path) -> None:
    class Odd(Line):
        def __getitem__(self, index: int) -> Any:
            return {"x": object()}

    with pytest.raises(ConfigurationError, match=r"8 values like <object.*data_collator"):
        train(tmp_path, given={"train_dataset": Odd()})


def test_an_iterable_dataset_is_read_again_until_the_steps_are_done(tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = train(tmp_path, recorder, max_steps=10, given={"train_dataset": Stream(32)})
    assert trainer.state.global_step == 10
    assert recorder.events.count("on_epoch_begin") == 3
    assert trainer.state.epoch == pytest.approx(2 + 2 / 10)


def test_an_iterable_dataset_needs_max_steps(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="set max_steps"):
        train(tmp_path, given={"train_dataset": Stream()})


@pytest.mark.parametrize("dataset", [Line(0), Stream(0)])
def test_an_empty_dataset_ends_training_with_a_warning(
    tmp_path: Path, dataset: Dataset[Any], caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, max_steps=3, given={"train_dataset": dataset})
    assert "gave no batch" in caplog.text


def test_a_dataset_with_set_epoch_is_told_each_epoch(tmp_path: Path) -> None:
    class Epochs(Line):
        told: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.told.append(epoch)

    train(tmp_path, num_train_epochs=3, given={"train_dataset": Epochs()})
    assert Epochs.told == [0, 1, 2]


def test_each_epoch_has_an_order_of_its_own_and_misses_no_sample(tmp_path: Path) -> None:
    class Numbers(Dataset[Any]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> Any:
            return {"x": float(index), "labels": 0.0}

    seen: list[list[float]] = []

    class Sees(Model):
        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            seen.append(x.tolist())
            return super().forward(x, labels)

    train(
        tmp_path,
        model=Sees(),
        num_train_epochs=2,
        per_device_train_batch_size=10,
        given={"train_dataset": Numbers()},
    )
    assert sorted(seen[0]) == sorted(seen[1]) == [float(n) for n in range(10)]
    assert seen[0] != seen[1]


def test_workers_load_the_same_batches_as_the_main_process(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", num_train_epochs=1, logging_steps=1)
    worked = train(
        tmp_path / "worked", num_train_epochs=1, logging_steps=1, dataloader_num_workers=1
    )
    assert history(alone) == history(worked)


def test_evaluation_weighs_each_sample_once_and_gives_metrics_their_prefix(
    tmp_path: Path,
) -> None:
    data = Line(20)  # batches of 8, 8 and 4
    with Trainer(
        Model(),
        arguments(tmp_path),
        eval_dataset=data,
        compute_metrics=lambda p: {"mae": float(abs(p.predictions - p.label_ids).mean())},
    ) as trainer:
        metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(float((data.y**2).mean()))
    assert metrics["eval_mae"] == pytest.approx(float(data.y.abs().mean()))
    assert trainer.state.log_history == [metrics | {"step": 0}]


def test_predictions_come_in_the_order_of_the_dataset_and_are_not_logged(tmp_path: Path) -> None:
    data = Line(20)
    model = Model()
    nn.init.constant_(model.a, 2.0)
    with Trainer(model, arguments(tmp_path, eval_accumulation_steps=2)) as trainer:
        output = trainer.predict(data)
    assert output.predictions == pytest.approx((data.x * 2).numpy())
    assert output.label_ids == pytest.approx(data.y.numpy())
    assert set(output.metrics) >= {"test_loss", "test_runtime"}
    assert trainer.state.log_history == []


def test_predictions_are_found_in_a_dataclass_with_slots(tmp_path: Path) -> None:
    @dataclass(slots=True)
    class Output:
        loss: torch.Tensor
        y: torch.Tensor

    class Slotted(Model):
        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            return Output(*super().forward(x, labels))

    data = Line(8)
    with Trainer(Slotted(), arguments(tmp_path)) as trainer:
        assert trainer.predict(data).predictions.shape == (8,)


def test_predictions_of_unequal_length_are_filled_up(tmp_path: Path) -> None:
    class Grows(nn.Module):
        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            return torch.zeros(len(x), len(x))

    with Trainer(Grows(), arguments(tmp_path)) as trainer:
        output = trainer.predict(Line(12))  # batches of 8 and 4
    assert output.predictions.shape == (12, 8)
    assert output.predictions[8].tolist() == [0.0] * 4 + [-100.0] * 4


def test_evaluation_leaves_the_model_in_the_mode_it_was_in(tmp_path: Path) -> None:
    model = Model()
    with Trainer(model, arguments(tmp_path), eval_dataset=Line(8)) as trainer:
        model.train()
        trainer.evaluate()
        assert model.training


def test_evaluation_leaves_a_frozen_part_of_the_model_frozen(tmp_path: Path) -> None:
    model = Model()
    model.dropout.eval()
    with Trainer(model, arguments(tmp_path), eval_dataset=Line(8)) as trainer:
        trainer.evaluate()
    assert (model.training, model.dropout.training) == (True, False)


def test_an_empty_evaluation_dataset_is_refused(tmp_path: Path) -> None:
    with (
        Trainer(Model(), arguments(tmp_path)) as trainer,
        pytest.raises(ConfigurationError, match="gave no sample"),
    ):
        trainer.evaluate(Line(0))


@pytest.mark.parametrize("named", [True, False], ids=["mapping", "positions"])
def test_a_batch_without_tensors_counts_by_its_list(tmp_path: Path, named: bool) -> None:
    class Reads(nn.Module):
        def forward(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([float(len(text)) for text in texts]).mean()

    with Trainer(
        Reads(),
        arguments(tmp_path, per_device_eval_batch_size=2),
        eval_dataset=["a", "bbb", "cc"],
        data_collator=lambda texts: {"texts": texts} if named else (texts,),
    ) as trainer:
        assert trainer.evaluate()["eval_loss"] == 2


def test_a_scalar_before_the_samples_of_a_batch_does_not_count_as_their_number(
    tmp_path: Path,
) -> None:
    class Scaled(Model):
        def forward(self, factor: Any, x: Any, labels: Any) -> Any:  # type: ignore[override]
            return super().forward(factor * x, labels)

    data = Line(20)  # batches of 8, 8 and 4
    with Trainer(
        Scaled(),
        arguments(tmp_path),
        eval_dataset=data,
        data_collator=lambda rows: {"factor": torch.tensor(1.0), **default_collate(rows)},
    ) as trainer:
        assert trainer.evaluate()["eval_loss"] == pytest.approx(float((data.y**2).mean()))


def test_tokens_are_counted_without_the_padding(tmp_path: Path) -> None:
    class Texts(Line):
        def __getitem__(self, index: int) -> Any:
            mask = torch.tensor([1, 1, 0])
            return super().__getitem__(index) | {"input_ids": mask, "attention_mask": mask}

    class Reads(Model):
        main_input_name = "input_ids"

        def forward(self, x: Any, labels: Any, **texts: Any) -> Any:
            return super().forward(x, labels)

    counts = [
        train(
            tmp_path / kind,
            model=Reads(),
            max_steps=2,
            include_num_input_tokens_seen=kind,
            given={"train_dataset": Texts()},
        ).state.num_input_tokens_seen
        for kind in ("all", "non_padding", "no")
    ]
    assert counts == [48, 32, 0]


@settings(deadline=None, max_examples=60)
@for_all(
    length=st.integers(1, 40),
    batch_size=st.integers(1, 6),
    world=st.integers(1, 5),
    stream=st.booleans(),
)
def test_ranks_share_every_sample_out(
    length: int, batch_size: int, world: int, stream: bool
) -> None:
    exact = [shared(length, batch_size, world, rank, stream, False) for rank in range(world)]
    assert sorted(samples(exact)) == list(range(length))
    even = [shared(length, batch_size, world, rank, stream, True) for rank in range(world)]
    assert len({tuple(map(len, batches)) for batches in even}) == 1
    assert set(samples(even)) == set(range(length))
    assert len(samples(even)) < length + world


@settings(deadline=None, max_examples=60)
@for_all(
    length=st.integers(1, 40),
    batch_size=st.integers(1, 6),
    world=st.integers(1, 5),
    training=st.booleans(),
    drop_last=st.booleans(),
)
def test_a_stream_that_knows_its_length_has_one_on_each_rank(
    length: int, batch_size: int, world: int, training: bool, drop_last: bool
) -> None:
    for rank in range(world):
        loader = loader_of(
            Measured(length), batch_size, world, rank, training, dataloader_drop_last=drop_last
        )
        assert len(loader) == len(list(loader))


def samples(ranks: list[list[list[int]]]) -> list[int]:
    return [sample for batches in ranks for batch in batches for sample in batch]


class Counts(IterableDataset[int]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))


class Measured(Counts):
    def __len__(self) -> int:
        return self.length


def shared(
    length: int, batch_size: int, world: int, rank: int, stream: bool, training: bool
) -> list[list[int]]:
    """The batches of one rank."""
    data: Any = Counts(length) if stream else range(length)
    return list(loader_of(data, batch_size, world, rank, training))


def loader_of(
    data: Any, batch_size: int, world: int, rank: int, training: bool, **more: Any
) -> DataLoader[Any]:
    """What loads the batches of one rank."""
    from asynccb.trainer.data import make_loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", str(rank))
        patch.setenv("WORLD_SIZE", str(world))
        args = arguments(
            Path("unused"),
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            **more,
        )
        return make_loader(data, args, list, batch_size, training=training, pin=False)
