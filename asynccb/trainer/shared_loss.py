"""
The mean of a loss over the ranks, without a collective for it.

DDP averages the gradients of all ranks anyway. It is given one more parameter, a number that no
model computes with, and the gradient of that number is the loss.

Promises: nothing is added to what the ranks exchange but that number, in a bucket of DDP's (of its
own where no parameter of the model is in float32); values, gradients, weights and checkpoints of
the model are what they are without it; no loss scale reaches it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class SharedLoss(nn.Module):
    """
    Call a model as it is called, and hold the number whose gradient is the loss.

    Not for `find_unused_parameters`, under which DDP takes the number for one that is not used.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._number = nn.Parameter(torch.zeros((), device=device))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.model(*args, **kwargs)

    def attach(self, loss: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the loss, whose backward pass adds `value` to what `take` returns."""
        attached: torch.Tensor = _Attach.apply(loss, self._number, value)  # type: ignore[no-untyped-call]
        return attached

    def take(self) -> torch.Tensor | None:
        """
        Return the sum of the values since the last call, and start anew.

        It is the mean over the ranks once gradients have been exchanged; None without a value.
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
