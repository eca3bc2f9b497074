"""
Histograms of a model's tensors, counted on the tensors' own device.

Promises: nothing waits for the device. The result is one short row for each tensor, staged like any
other value. NaN and infinity are counted in no bin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

BINS: Final = 64


def histograms(
    model: nn.Module, *, gradients: bool, parameters: bool
) -> Iterator[tuple[str, Tensor]]:
    """
    Yield a row for each gradient and each parameter, as `gradients/<name>` and `parameters/<name>`.

    A row has `BINS + 2` numbers: the least and the greatest finite value, then the counts of the
    bins between them. If no value is finite, the least is above the greatest and all counts are 0.
    """
    for name, parameter in model.named_parameters():
        if parameters and _is_countable(parameter):
            yield f"parameters/{name}", row(parameter)
        gradient = parameter.grad
        if gradients and gradient is not None and _is_countable(gradient):
            yield f"gradients/{name}", row(gradient)


def _is_countable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is torch.strided and tensor.numel() > 0


@torch.no_grad()
def row(tensor: Tensor) -> Tensor:
    """Return the row of one tensor, on the tensor's device."""
    if hasattr(tensor, "to_local"):  # the local part of a distributed tensor
        tensor = tensor.to_local()
    # Use 32 bits: not every device can count 16-bit floats or has 64-bit ones.
    values = tensor.detach().reshape(-1).float()
    finite = values.isfinite()
    least = values.where(finite, torch.inf).amin()
    most = values.where(finite, -torch.inf).amax()
    # If the range overflows a float, halve everything so that it does not.
    scale = 1 - 0.5 * (most - least).isinf().float()
    begin = least * scale
    width = most * scale - begin
    # Scale to 0..1 here: `histc` takes the range as Python numbers, which would mean a wait.
    places = ((values * scale - begin) / width.where(width > 0, 1.0)).where(finite, -1.0)
    return torch.cat([least.reshape(1), most.reshape(1), _counts(places)])


def _counts(places: Tensor) -> Tensor:
    """Count places between 0 and 1 by bin; places outside belong to no bin."""
    if not torch.are_deterministic_algorithms_enabled():
        return torch.histc(places, BINS, 0.0, 1.0)
    # Deterministic mode refuses `histc`. Sums of ones are the same in any order.
    bins = (places * BINS).floor().clamp(max=BINS - 1).long().where(places >= 0, BINS)
    counts = torch.zeros(BINS + 1, device=places.device)
    return counts.scatter_add_(0, bins, torch.ones_like(places))[:BINS]


def can_count() -> bool:
    """Return whether histograms can be counted now: not while a CUDA graph is being captured."""
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
