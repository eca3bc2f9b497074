"""
Histograms of a model's tensors, counted where they lie.

Promises: nothing waits for the device; what comes back is one short row for each tensor, which is
staged like any other value. NaN and infinity are counted in no bin.
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

    A row has `BINS + 2` numbers: the least and the greatest finite value, and how many are in each
    bin between them; none at all where the least is above the greatest.
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
    """Return the row of one tensor, on its device."""
    if hasattr(tensor, "to_local"):  # a part of a distributed tensor
        tensor = tensor.to_local()
    # 32 bits, because not every device counts in 16 or has 64.
    values = tensor.detach().reshape(-1).float()
    finite = values.isfinite()
    least = values.where(finite, torch.inf).amin()
    most = values.where(finite, -torch.inf).amax()
    # Half of everything where the range is greater than any float, so that it is one.
    scale = 1 - 0.5 * (most - least).isinf().float()
    begin = least * scale
    width = most * scale - begin
    # Given as numbers, the ends of the range would have to be known here, and waited for.
    places = ((values * scale - begin) / width.where(width > 0, 1.0)).where(finite, -1.0)
    return torch.cat([least.reshape(1), most.reshape(1), _counts(places)])


def _counts(places: Tensor) -> Tensor:
    """Count places between 0 and 1 by bin; others belong to none."""
    if not torch.are_deterministic_algorithms_enabled():
        return torch.histc(places, BINS, 0.0, 1.0)
    # `histc` is refused there, though sums of ones come out the same in any order.
    bins = (places * BINS).floor().clamp(max=BINS - 1).long().where(places >= 0, BINS)
    counts = torch.zeros(BINS + 1, device=places.device)
    return counts.scatter_add_(0, bins, torch.ones_like(places))[:BINS]


def can_count() -> bool:
    """Tell whether this is no moment at which every launch becomes part of a CUDA graph."""
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
