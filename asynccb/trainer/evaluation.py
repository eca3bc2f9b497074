"""
Running a model over a dataset without learning from it.

Promises: over all ranks each sample counts once, in the order of the dataset; every rank reports
the same number of batches; the losses stay on the device until the end, which is the only place
that synchronizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from asynccb._ground.exceptions import ConfigurationError
from asynccb.distributed import process_group as distributed
from asynccb.trainer.collate import count_samples, map_tensors
from asynccb.trainer.forward import Forward
from asynccb.trainer.speed import speed_metrics

PADDING = -100
"""Pads predictions and labels of unequal length; torch's losses ignore this value."""


class EvalPrediction(NamedTuple):
    """The argument of `compute_metrics`: numpy arrays, or nests of them, one row per sample."""

    predictions: Any
    label_ids: Any


class PredictionOutput(NamedTuple):
    """The result of `Trainer.predict`: numpy arrays, or nests of them, and the metrics."""

    predictions: Any
    label_ids: Any
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """The results of an evaluation over all ranks."""

    loss: float | None
    predictions: Any
    labels: Any
    samples: int
    rounds: int
    """Batches of the rank that had the most."""
    seconds: float

    def metrics(
        self, prefix: str, compute: Callable[[EvalPrediction], Mapping[str, Any]] | None
    ) -> dict[str, Any]:
        """Return the computed metrics, the loss and the speed; every name has the prefix."""
        metrics: dict[str, Any] = {}
        if compute is not None:
            computed: object = compute(EvalPrediction(self.predictions, self.labels))
            if not isinstance(computed, Mapping):
                raise ConfigurationError(
                    f"compute_metrics returned {computed!r}; return a dict of metrics"
                )
            metrics |= computed
        if self.loss is not None:
            metrics["loss"] = self.loss
        named = {_prefixed(name, prefix): value for name, value in metrics.items()}
        return named | speed_metrics(prefix, self.seconds, samples=self.samples, steps=self.rounds)


def _prefixed(name: object, prefix: str) -> str:
    if not isinstance(name, str):
        raise ConfigurationError(
            f"compute_metrics returned a metric named {name!r}; use strings as names"
        )
    return name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"


class Evaluation:
    """
    The evaluation of a model on batches; calls `on_batch` after each batch.

    Predictions move to the CPU after every `accumulate` batches; with None they all stay on the
    device until the end.
    """

    def __init__(
        self, forward: Forward, on_batch: Callable[[], None], accumulate: int | None = None
    ) -> None:
        self._forward = forward
        self._on_batch = on_batch
        self._accumulate = accumulate

    @torch.no_grad()
    def run(self, model: nn.Module, batches: Iterable[Any], *, keep: bool) -> Evaluated:
        """
        Return the results; predictions and labels are kept only with `keep`.

        Raises `ConfigurationError` if the dataset contains no sample.
        """
        began = time.perf_counter()
        weighed = torch.zeros(2, dtype=torch.float64, device=self._forward.device)
        kept: list[Any] = []
        samples = done = 0
        with _eval_mode(model):
            for done, batch in enumerate(batches, 1):
                size = count_samples(batch)
                result = self._forward(model, batch)
                samples += size
                if result.loss is not None:
                    ones = torch.ones((), dtype=torch.float64, device=weighed.device)
                    weighed = weighed + size * torch.stack([result.loss.detach() * ones, ones])
                if keep:
                    kept.append((result.predictions, result.labels))
                    if self._accumulate and done % self._accumulate == 0:
                        kept[-self._accumulate :] = _to_cpu(kept[-self._accumulate :])
                self._on_batch()
        return self._gather(weighed, kept, samples, done, began)

    def _gather(
        self, weighed: torch.Tensor, kept: list[Any], samples: int, done: int, began: float
    ) -> Evaluated:
        counts = distributed.gather((samples, done))
        rounds = max(done for _, done in counts)
        for _ in range(rounds - done):
            self._on_batch()  # ranks with fewer batches report as many as the others
        if not rounds:
            raise ConfigurationError("there is nothing to evaluate: the dataset gave no sample")
        loss, weight = distributed.total(weighed).tolist()  # synchronizes
        parts = _interleave(distributed.gather(_to_cpu(kept)))
        predictions, labels = _concatenate(parts) if parts else (None, None)
        return Evaluated(
            loss=loss / weight if weight else None,
            predictions=map_tensors(_to_numpy, predictions),
            labels=map_tensors(_to_numpy, labels),
            samples=sum(samples for samples, _ in counts),
            rounds=rounds,
            seconds=time.perf_counter() - began,
        )


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:  # a frozen part may have been in eval mode
            module.training = training


def _to_cpu(parts: list[Any]) -> list[Any]:
    moved: list[Any] = map_tensors(lambda tensor: tensor.cpu(), parts)
    return moved


def _to_numpy(tensor: torch.Tensor) -> Any:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _interleave(by_rank: list[list[Any]]) -> list[Any]:
    """Return the batches of all ranks in dataset order: they were dealt to the ranks in turn."""
    if len(by_rank) == 1:
        return by_rank[0]
    return [part for part in chain.from_iterable(zip_longest(*by_rank)) if part is not None]


def _concatenate(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return _concatenate_tensors(parts)
    if isinstance(first, Mapping):
        return {key: _concatenate([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_concatenate(list(column)) for column in zip(*parts, strict=True))
    return None if first is None else parts


def _concatenate_tensors(tensors: list[torch.Tensor]) -> torch.Tensor:
    if tensors[0].ndim == 0:
        return torch.stack(tensors)
    if tensors[0].ndim > 1:
        longest = max(tensor.shape[1] for tensor in tensors)
        tensors = [_lengthen(tensor, longest) for tensor in tensors]
    return torch.cat(tensors)


def _lengthen(tensor: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - tensor.shape[1]
    behind = [0, 0] * (tensor.ndim - 2) + [0, missing]
    return pad(tensor, behind, value=PADDING) if missing else tensor
