"""
Calling the model on a batch, and finding the loss and the predictions in its outputs.

Promises: nothing here waits for the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trainer.collate import to_device
from asynccb.trainer.model_inputs import ModelInputs

ComputeLoss: TypeAlias = Callable[[Any, Any], torch.Tensor]


class Result(NamedTuple):
    """A model's result for one batch; `loss` is None if no loss was computed."""

    loss: torch.Tensor | None
    predictions: Any
    labels: Any


class Forward:
    """
    The call of a model on a batch, in the precision of the run.

    A mapping is passed as keyword arguments, a tuple or list as positional arguments, and any other
    batch as the only argument. The labels of a mapping are found by their names (several are a
    tuple), and those of a tuple are its last item. With `compute_loss(outputs, labels)`, which
    returns a scalar, the model does not receive the labels. `smoothed` takes its place for labels
    that are one tensor. Without either the model receives the labels and returns the loss: a
    scalar, `loss` of a mapping or object, or the first item of a tuple.
    """

    def __init__(
        self,
        device: torch.device,
        precision: torch.dtype | None = None,
        compute_loss: ComputeLoss | None = None,
        smoothed: ComputeLoss | None = None,
        *,
        inputs: ModelInputs,
    ) -> None:
        self.device = device
        self._precision = precision
        self._compute_loss = compute_loss
        self._smoothed = smoothed
        self._inputs = inputs

    def __call__(self, model: nn.Module, batch: Any) -> Result:
        """Run the model; `batch` may still lie on the CPU."""
        batch = to_device(batch, self.device)
        labels, without = self._split(batch)
        compute_loss = self._compute_loss
        if compute_loss is None and isinstance(labels, torch.Tensor):
            compute_loss = self._smoothed
        with self._autocast():
            if compute_loss is None:
                outputs = _call(model, batch)
                loss = _find_loss(outputs)
            else:
                outputs = _call(model, without)
                loss = None if labels is None else compute_loss(outputs, labels)
        left_out = {"loss", *_ignored_keys(model)}
        first = int(compute_loss is None and loss is not None)
        return Result(loss, _predictions(outputs, left_out, first), labels)

    def _split(self, batch: Any) -> tuple[Any, Any]:
        """Return the labels of a batch, or None, and the batch without them."""
        if isinstance(batch, Mapping):
            names = self._inputs.labels_in(batch)
            labels = tuple(batch[name] for name in names)
            without = {key: value for key, value in batch.items() if key not in names}
            return (labels[0] if len(labels) == 1 else labels or None), without
        if isinstance(batch, tuple | list) and len(batch) > 1:
            return batch[-1], batch[:-1]
        return None, batch

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Return the loss; raise `ConfigurationError` if the model returns none."""
        loss = self(model, batch).loss
        if loss is None:
            raise ConfigurationError(
                f"{type(model).__name__} gave no loss for a batch of {_describe(batch)}: return "
                "a scalar, an object with .loss or a tuple that begins with the loss, or pass "
                "compute_loss_func to the Trainer"
            )
        return loss

    def _autocast(self) -> torch.autocast:
        dtype = self._precision
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"keys {', '.join(map(str, batch))}"
    return f"{len(batch)} values" if isinstance(batch, tuple | list) else type(batch).__name__


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def _find_loss(outputs: Any) -> torch.Tensor | None:
    if isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    elif isinstance(outputs, tuple | list):
        loss = outputs[0] if outputs else None
    else:
        loss = getattr(outputs, "loss", outputs)
    return loss if isinstance(loss, torch.Tensor) and loss.ndim == 0 else None


def _ignored_keys(model: nn.Module) -> list[str]:
    """Return the output names that a transformers model declares not to be predictions."""
    config = getattr(model, "config", None)
    return getattr(config, "keys_to_ignore_at_inference", None) or []


def _predictions(outputs: Any, left_out: set[str], first: int) -> Any:
    """Return the outputs except the loss: a single value as it is, several as a tuple, or None."""
    if isinstance(outputs, tuple | list):
        values = tuple(outputs[first:])
    elif isinstance(outputs, torch.Tensor):
        values = () if first else (outputs,)
    else:
        values = tuple(value for key, value in _named(outputs).items() if key not in left_out)
    return values[0] if len(values) == 1 else values or None


def _named(outputs: Any) -> Mapping[str, Any]:
    if isinstance(outputs, Mapping):
        return outputs
    if dataclasses.is_dataclass(outputs):  # a dataclass with slots has no `__dict__`
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    return getattr(outputs, "__dict__", {})
