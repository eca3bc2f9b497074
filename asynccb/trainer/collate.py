"""
Collating samples into batches, and copying batches to the device.

Promises: nested mappings, tuples, named tuples and lists keep their shape. Copies to a GPU do not
wait if the batch is in pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from asynccb._ground.exceptions import ConfigurationError


def default_collate(samples: Sequence[Any]) -> Any:
    """
    Stack samples into one batch: mappings by key, tuples by place, tensors, arrays and numbers.

    As in transformers, a float becomes a float32 tensor and an integer an int64 tensor, and a
    sample's `label` or `label_ids` becomes the batch's `labels`. Keys whose values are strings or
    None are left out. Tensors must have equal shapes; a `data_collator` has to do any padding.
    Raises `ConfigurationError` for values that cannot become a tensor.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {
            _LABELS.get(key, key): default_collate([sample[key] for sample in samples])
            for key, value in first.items()
            if value is not None and not isinstance(value, str)
        }
    if isinstance(first, tuple):
        return _rebuild(first, [default_collate(column) for column in zip(*samples, strict=True)])
    if isinstance(first, torch.Tensor):
        return torch.stack(list(samples))
    try:
        return torch.stack([_as_tensor(sample) for sample in samples])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"cannot stack {len(samples)} values like {first!r} into a batch ({error}); "
            "give a data_collator that can"
        ) from None


_LABELS = {"label": "labels", "label_ids": "labels"}


def _as_tensor(value: Any) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float32 if isinstance(value, float) else None)


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor in a nest of mappings, tuples and lists; leave the rest."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return _rebuild(value, [map_tensors(function, item) for item in value])
    return value


def _rebuild(like: Any, items: list[Any]) -> Any:
    """Make a sequence of the same type; a named tuple takes its items one by one."""
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def to_device(batch: Any, device: torch.device) -> Any:
    """Copy a batch's tensors to the device, without waiting for the copy."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def count_samples(batch: Any) -> int:
    """Return the samples in a batch: the length of its first tensor, else first list, else 1."""
    return _first_length(batch) or _first_list(batch) or 1


def _first_length(value: Any) -> int:
    """Return the length of the first tensor that is not a scalar, or 0."""
    if isinstance(value, torch.Tensor):
        return len(value) if value.ndim else 0
    items = value.values() if isinstance(value, Mapping) else value
    if isinstance(items, str | bytes) or not hasattr(items, "__iter__"):
        return 0
    return next((length for item in items if (length := _first_length(item))), 0)


def _first_list(batch: Any) -> int:
    """Return the length of the first list in a batch, or of the batch itself, or 0."""
    if isinstance(batch, Mapping):
        columns = [*batch.values()]
    else:
        columns = [*batch, batch] if isinstance(batch, tuple | list) else []
    return next((len(column) for column in columns if isinstance(column, list)), 0)
