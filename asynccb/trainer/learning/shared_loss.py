"""
The mean of a loss over the ranks, without a collective of its own.

DDP averages the gradients of all ranks anyway. This module adds one more parameter, a number that
the model does not compute with. The gradient of that number is the loss.

Promises: the ranks exchange only that number in addition, in one of DDP's buckets (in a separate
bucket if no parameter of the model is in float32). Values, gradients, weights and checkpoints of
the model do not change. The loss scale does not affect the number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class SharedLoss(nn.Module):
    """
    A wrapper of a model, with the number whose gradient is the loss.

    Do not use it with `find_unused_parameters`: DDP would treat the number as an unused parameter.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._number = nn.Parameter(torch.zeros((), device=device))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.model(*args, **kwargs)

    def attach(self, loss: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the loss; its backward pass adds `value` to the sum that `take` returns."""
        attached: torch.Tensor = _Attach.apply(loss, self._number, value)  # type: ignore[no-untyped-call]
        return attached

    def take(self) -> torch.Tensor | None:
        """
        Return the sum of the values since the last call, and start a new sum.

        After the gradients have been exchanged, it is the mean over the ranks. None if no value
        was added.
        """
        total, self._number.grad = self._number.grad, None
        return total


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss: torch.Tensor, number: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(value)
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (value,) = ctx.saved_tensors
        return gradients[0], value, None
