"""
Batches for training and evaluation: order, shards, epochs, and the position of a resumed run.

Promises: the order depends on the seed and the epoch alone; every rank sees the same number of
training batches; evaluation sees each sample exactly once over all ranks; skipping the batches of
an interrupted epoch loads no sample of a map-style dataset.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.distributed import process_group as distributed
from asynccb.trainer.learning.losses import Position

Collator: TypeAlias = Callable[[list[Any]], Any]


class _Share:
    """This rank's part of each group of `batch_size * world` samples, including the tail."""

    def __init__(self, batch_size: int) -> None:
        self._rank = distributed.rank()
        self._world = distributed.world_size()
        self.group = batch_size * self._world

    def of(self, size: int) -> slice:
        """Return this rank's slice of `size` samples; late ranks may be past the end of a tail."""
        each = math.ceil(size / self._world)
        return slice(self._rank * each, (self._rank + 1) * each)

    def padding(self, size: int) -> int:
        """Return the number of samples missing from a group to give all ranks equally many."""
        return -size % self._world


class Batches(Sampler[list[int]]):
    """
    The indices of this rank's batches in one epoch.

    Batches are dealt to the ranks in turn, and the samples of the last, partial round are spread
    over all ranks. Training repeats fewer than `world` samples from the beginning of the epoch, so
    that all ranks have equally many batches. Evaluation (`exact`) repeats none, so late ranks may
    have one batch fewer.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int | None, drop_last: bool, exact: bool
    ) -> None:
        self._length = length
        self._seed = seed
        self._share = _Share(batch_size)
        self._exact = exact
        rounds = length / self._share.group
        self.rounds = math.floor(rounds) if drop_last else math.ceil(rounds)
        self._epoch = self._skip = 0

    def start_at(self, epoch: int, skip: int) -> None:
        """Set the epoch of the next iteration, and the number of batches to skip."""
        self._epoch, self._skip = epoch, skip

    def __len__(self) -> int:
        return self.rounds

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for number in range(self._skip, self.rounds):
            start = number * self._share.group
            group = order[start : start + self._share.group]
            if not self._exact:
                repeats = torch.arange(self._share.padding(len(group))) % self._length
                group = torch.cat([group, order[repeats]])
            if batch := group[self._share.of(len(group))].tolist():
                yield batch

    def _order(self) -> torch.Tensor:
        if self._seed is None:
            return torch.arange(self._length)
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return torch.randperm(self._length, generator=generator)


class SharedStream(IterableDataset[Any]):
    """This rank's part of an iterable dataset; every rank reads the whole dataset."""

    def __init__(
        self, dataset: IterableDataset[Any], batch_size: int, *, drop_last: bool, exact: bool
    ) -> None:
        self._dataset = dataset
        self._share = _Share(batch_size)
        self._drop_last = drop_last
        self._exact = exact

    def __iter__(self) -> Iterator[Any]:
        stream = iter(self._dataset)
        while group := list(itertools.islice(stream, self._share.group)):
            if len(group) < self._share.group and self._drop_last:
                return
            if not self._exact:
                wanted = len(group) + self._share.padding(len(group))
                group = list(itertools.islice(itertools.cycle(group), wanted))
            yield from group[self._share.of(len(group))]

    def __len__(self) -> int:
        """Return the number of samples of this rank; TypeError if the dataset has no length."""
        groups, tail = divmod(len(self._dataset), self._share.group)  # type: ignore[arg-type]
        whole = groups * self._samples_of(self._share.group)
        return whole if self._drop_last else whole + self._samples_of(tail)

    def _samples_of(self, size: int) -> int:
        """Return the number of samples of this rank in a group of `size` samples."""
        size += 0 if self._exact else self._share.padding(size)
        return len(range(size)[self._share.of(size)])


def make_loader(
    dataset: Dataset[Any],
    args: TrainingArguments,
    collate: Collator,
    batch_size: int,
    *,
    training: bool,
    pin: bool,
) -> DataLoader[Any]:
    """
    Return the loader of this rank's batches.

    The loader has its own generator, so that starting an epoch draws nothing from the program's
    generator. With `pin`, batches are in pinned memory, unless `dataloader_pin_memory` is False.
    """
    drop_last = args.dataloader_drop_last and training
    seed = data_seed(args)
    common: dict[str, Any] = {
        "collate_fn": collate,
        "num_workers": args.dataloader_num_workers,
        "pin_memory": pin and args.dataloader_pin_memory,
        "generator": torch.Generator().manual_seed(seed),
    }
    if args.dataloader_num_workers:
        common["prefetch_factor"] = args.dataloader_prefetch_factor
    if isinstance(dataset, IterableDataset):
        if distributed.world_size() > 1:
            dataset = SharedStream(dataset, batch_size, drop_last=drop_last, exact=not training)
        return DataLoader(dataset, batch_size=batch_size, drop_last=drop_last, **common)
    batches = Batches(
        len(dataset),  # type: ignore[arg-type]
        batch_size,
        seed=seed if training else None,
        drop_last=drop_last,
        exact=not training,
    )
    return DataLoader(dataset, batch_sampler=batches, **common)


def data_seed(args: TrainingArguments) -> int:
    """Return the seed for the order of the data."""
    return args.seed if args.data_seed is None else args.data_seed


def size_of(data: Any) -> int | None:
    """Return the length of a loader or dataset, or None if it has no length."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


class Epochs:
    """The epochs of a training, as groups of micro-batches: one group for each step."""

    def __init__(
        self,
        loader: DataLoader[Any],
        dataset: Dataset[Any],
        args: TrainingArguments,
        batch_size: int,
    ) -> None:
        self.loader = loader
        self.batches = size_of(loader)
        """Micro-batches in an epoch, or None if the data has no length."""
        self.samples = batch_size * distributed.world_size()
        """Samples in a micro-batch, over all ranks."""
        self._dataset = dataset
        self._group_size = args.gradient_accumulation_steps
        self._seed = data_seed(args)

    @property
    def steps(self) -> int | None:
        """Steps in an epoch; the last, partial group counts as a step too."""
        return None if self.batches is None else math.ceil(self.batches / self._group_size)

    def fraction(self, position: Position, max_steps: int) -> float:
        """Return the epoch as a number; data without a length is one epoch of `max_steps`."""
        batches = self.batches or max_steps * self._group_size
        return position.epoch + position.batches / batches

    def position_of(self, step: int) -> Position:
        """Return the position after `step` steps, as if no epoch had ended early."""
        if not self.steps or self.batches is None:
            return Position(batches=step * self._group_size)
        epoch, steps = divmod(step, self.steps)
        return Position(epoch, min(steps * self._group_size, self.batches))

    def steps_to(self, position: Position) -> int:
        """Return the steps up to a position; an epoch that was ended early counts as whole."""
        assert self.steps is not None
        assert self.batches is not None
        left = 0 if position.cut else self.batches - position.batches
        return (position.epoch + 1) * self.steps - math.ceil(left / self._group_size)

    def plan(self, length: tuple[int, int]) -> dict[str, Any]:
        """Return the numbers that define a run's steps; `length` is its steps and epochs."""
        return {
            "length": length,
            "batches": self.batches,
            "samples": self.samples,
            "group": self._group_size,
        }

    def groups(self, epoch: int, skip: int) -> Iterator[list[Any]]:
        """
        Return the groups of an epoch, without its first `skip` micro-batches.

        The skipping is done when this returns. A group is read only when it is requested, so that
        a checkpoint's random state belongs to its step. Loader workers still read ahead.
        """
        if callable(set_epoch := getattr(self._dataset, "set_epoch", None)):
            set_epoch(epoch)
        generator = self.loader.generator
        assert generator is not None
        generator.manual_seed(self._seed + epoch)
        batches = self._after(epoch, skip)
        return iter(lambda: list(itertools.islice(batches, self._group_size)), [])

    def _after(self, epoch: int, skip: int) -> Iterator[Any]:
        sampler = self.loader.batch_sampler
        if isinstance(sampler, Batches):
            sampler.start_at(epoch, skip)
            return iter(self.loader)
        batches = iter(self.loader)
        for _ in range(skip):
            next(batches, None)
        return batches
