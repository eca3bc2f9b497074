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
from itertools import chain, pairwise, zip_longest
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.distributed import process_group as distributed
from asynccb.trainer.collate import count_samples, map_tensors
from asynccb.trainer.eval_metrics import (
    BatchMetrics,
    ComputeMetrics,
    EvalPrediction,
    compute,
    prefixed,
)
from asynccb.trainer.forward import Forward, Result
from asynccb.trainer.speed import speed_metrics

PADDING = -100
"""Pads predictions and labels of unequal length; torch's losses ignore this value."""


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

    computed: dict[str, Any]
    """Metrics of `compute_metrics`, which has been called unless predictions or labels lack."""

    def metrics(self, prefix: str) -> dict[str, Any]:
        """Return the computed metrics, the loss and the speed; every name has the prefix."""
        metrics = dict(self.computed)
        if self.loss is not None:
            metrics["loss"] = self.loss
        named = {prefixed(name, prefix): value for name, value in metrics.items()}
        return named | speed_metrics(prefix, self.seconds, samples=self.samples, steps=self.rounds)


class Part(NamedTuple):
    """What is kept of a batch; None for what is not."""

    predictions: Any
    labels: Any
    inputs: Any
    losses: torch.Tensor | None
    """The loss of the batch, once for each sample."""


class Evaluation:
    """
    The evaluation of a model on batches; calls `on_batch` after each batch.

    `main_input` is the key of a batch that `compute_metrics` receives as inputs. Predictions move
    to the CPU after every `eval_accumulation_steps` batches; with None they all stay on the device
    until the end. As in transformers, a batch with a loss of NaN or infinity does not count in the
    mean with `logging_nan_inf_filter`, unless none is finite.
    """

    def __init__(
        self,
        forward: Forward,
        on_batch: Callable[[], None],
        args: TrainingArguments,
        compute: ComputeMetrics | None,
        main_input: str,
    ) -> None:
        self._forward = forward
        self._on_batch = on_batch
        self._accumulate = args.eval_accumulation_steps
        self._filters = args.logging_nan_inf_filter
        self._losses = "loss" in args.include_for_metrics
        self._main_input = main_input if "inputs" in args.include_for_metrics else None
        self._keeps = not args.prediction_loss_only
        self._compute = compute if self._keeps else None
        self._batchwise = args.batch_eval_metrics

    @torch.no_grad()
    def run(self, model: nn.Module, batches: Iterable[Any], *, keep: bool) -> Evaluated:
        """
        Return the results; predictions and labels are kept for the caller only with `keep`.

        Raises `ConfigurationError` if the dataset contains no sample.
        """
        began = time.perf_counter()
        sums = torch.zeros(4, dtype=torch.float64, device=self._forward.device)
        by_batch = BatchMetrics(self._compute, _join) if self._batchwise and self._compute else None
        keep = self._keeps and (keep or (self._compute is not None and by_batch is None))
        kept: list[Part] = []
        samples = done = 0
        with _eval_mode(model):
            for done, (batch, last) in enumerate(_with_last(batches), 1):
                size = count_samples(batch)
                result = self._forward(model, batch)
                samples += size
                if result.loss is not None:
                    sums = sums + _weighed(result.loss.detach(), size)
                if keep or by_batch is not None:
                    part = self._part(batch, result, size)
                    if keep:
                        kept.append(part)
                        if self._accumulate and done % self._accumulate == 0:
                            kept[-self._accumulate :] = _to_cpu(kept[-self._accumulate :])
                self._on_batch()
                if by_batch is not None:
                    several = distributed.world_size() > 1
                    by_batch.add(_to_cpu([part])[0] if several else part, last=last)
        if by_batch is not None:
            by_batch.finish()
        evaluated = self._gather(sums, kept, samples, done, began)
        if by_batch is not None:
            evaluated.computed.update(by_batch.metrics)
        return evaluated

    def _part(self, batch: Any, result: Result, size: int) -> Part:
        inputs = None
        if self._main_input is not None and self._batchwise:
            inputs = batch
        elif self._main_input is not None:
            if not isinstance(batch, Mapping) or self._main_input not in batch:
                raise ConfigurationError(
                    "include_for_metrics names 'inputs', but the batch has no "
                    f"{self._main_input!r}; set main_input_name of the model"
                )
            inputs = batch[self._main_input]
        losses = None
        if self._losses and result.loss is not None:
            losses = result.loss.detach().repeat(size)
        return Part(result.predictions, result.labels, inputs, losses)

    def _gather(
        self, sums: torch.Tensor, kept: list[Part], samples: int, done: int, began: float
    ) -> Evaluated:
        counts = distributed.gather((samples, done))
        rounds = max(done for _, done in counts)
        for _ in range(rounds - done):
            self._on_batch()  # ranks with fewer batches report as many as the others
        if not rounds:
            raise ConfigurationError("there is nothing to evaluate: the dataset gave no sample")
        finite, finite_weight, loss, weight = distributed.total(sums).tolist()  # synchronizes
        if self._filters and finite_weight:
            loss, weight = finite, finite_weight
        parts = _interleave(distributed.gather(_to_cpu(kept)))
        whole = Part(*map_tensors(_to_numpy, _concatenate(parts))) if parts else _NOTHING
        computed: dict[str, Any] = {}
        if self._compute is not None and not self._batchwise:
            given = _prediction(whole)
            computed = {} if given is None else compute(self._compute, given)
        return Evaluated(
            loss=loss / weight if weight else None,
            predictions=whole.predictions,
            labels=whole.labels,
            samples=sum(samples for samples, _ in counts),
            rounds=rounds,
            seconds=time.perf_counter() - began,
            computed=computed,
        )


_NOTHING: Final = Part(None, None, None, None)
_END: Final = object()


def _with_last(batches: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Yield each batch, and whether it is the last one; reads one batch ahead."""
    for batch, after in pairwise(chain(batches, [_END])):
        yield batch, after is _END


def _weighed(loss: torch.Tensor, size: int) -> torch.Tensor:
    """Return the loss and 1, both times the size; first as 0 if the loss is not finite."""
    loss = loss.double()
    finite = torch.isfinite(loss)
    known = torch.stack([torch.where(finite, loss, 0.0), finite.double()])
    return size * torch.cat([known, torch.stack([loss, torch.ones_like(loss)])])


def _join(parts: list[Part]) -> EvalPrediction | None:
    """Return the batches of all ranks as one; None if there is nothing to compute metrics of."""
    if not parts:
        return None
    return _prediction(parts[0] if len(parts) == 1 else Part(*_concatenate(parts)))


def _prediction(part: Part) -> EvalPrediction | None:
    if part.predictions is None or part.labels is None:
        return None
    return EvalPrediction(*part)


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


def _to_cpu(parts: list[Part]) -> list[Part]:
    moved: list[Part] = map_tensors(lambda tensor: tensor.cpu(), parts)
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
