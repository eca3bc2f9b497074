"""
A step of the optimizer, its schedule and the loss scaler.

Promises: a step on a GPU does not wait for the device, except with fp16 and an optimizer that is
not fused. The norm of the gradients stays there, and the fused AdamW reads the scaler's verdict
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.checkpoint import folders as checkpoint
from asynccb.trainer.best_model import metric_in

_WITH_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that use CUDA graphs."""


class Optimization:
    """Turn losses into updates of the model: scale, backward, clip, step, schedule."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        args: TrainingArguments,
        device: torch.device,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._model = model
        self._scaler = torch.amp.GradScaler(device.type, enabled=args.fp16)
        self._max_grad_norm = args.max_grad_norm
        self._metric = args.metric_for_best_model or "loss"
        self._device = device
        # A CUDA graph keeps its gradients in its own memory, which its next run overwrites. So a
        # group of several runs adds its gradients into tensors of ours.
        self._keeps_gradients = (
            args.torch_compile_mode in _WITH_GRAPHS and args.gradient_accumulation_steps > 1
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the loss to the gradients of the group."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def clip(self) -> torch.Tensor:
        """Clip the total norm of the gradients; return the norm from before, on the device."""
        self._scaler.unscale_(self.optimizer)
        if self._max_grad_norm > 0:
            return nn.utils.clip_grad_norm_(self._model.parameters(), self._max_grad_norm)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def update(self) -> None:
        """Make the step; with a scaler, skip it if a gradient was infinite."""
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def learning_rate(self) -> float | torch.Tensor:
        """Return the rate of the first parameter group; a copy if it is a tensor."""
        rate: float | torch.Tensor = self.optimizer.param_groups[0]["lr"]
        return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate

    def advance(self) -> None:
        """Move the schedule to the next step, unless the schedule follows evaluations."""
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def follow(self, schedule: LRScheduler) -> None:
        """Follow another schedule from the same step on, unless it follows evaluations."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            return
        if self.scheduler.last_epoch > 0:
            schedule.last_epoch = self.scheduler.last_epoch - 1
            schedule.step()  # sets the rate of this step
        self.scheduler = schedule

    def judge(self, metrics: Mapping[str, Any]) -> None:
        """Move a schedule that follows evaluations; waits if the metric is on the device."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(metric_in(metrics, self._metric))

    def clear(self) -> None:
        """Drop all gradients, so that no part of them reaches a later step."""
        if not self._keeps_gradients:
            self._model.zero_grad(set_to_none=True)
            return
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
            elif parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def save(self, folder: Path) -> None:
        """Write the states of optimizer, schedule and scaler; synchronizes to read them."""
        for name, part in self._parts().items():
            checkpoint.save_part(part.state_dict(), folder, name)

    def classes(self) -> dict[str, str]:
        """Return, for each file, the class name of the object whose state it contains."""
        return {name: type(part).__qualname__ for name, part in self._parts().items()}

    def load(self, folder: Path, classes: Mapping[str, str]) -> list[str]:
        """
        Restore the states; return the names of the missing files.

        `classes` is the result of `classes()` from the time of the save, as far as it is known.
        Raises `ConfigurationError` if a state is of another class or does not fit.
        """
        missing = []
        for name, part in self._parts().items():
            state = checkpoint.load_part(folder, name, self._device)
            if state is None:
                missing.append(name)
                continue
            now = type(part).__qualname__
            if (then := classes.get(name, now)) != now:
                raise _misfit(folder / name, f"is of {then}, not of {now}")
            try:
                part.load_state_dict(state)
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise _misfit(folder / name, f"does not fit {now} ({error!r})") from error
        return missing

    def _parts(self) -> dict[str, Optimizer | LRScheduler | torch.amp.GradScaler]:
        """Return the objects that have a state, by the names of their files."""
        parts: dict[str, Optimizer | LRScheduler | torch.amp.GradScaler] = {
            "optimizer.pt": self.optimizer,
            "scheduler.pt": self.scheduler,
        }
        if self._scaler.is_enabled():
            parts["scaler.pt"] = self._scaler
        return parts


def _misfit(path: Path, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"the state in {path} {how}; resume with the optimizer and schedule of the checkpoint, or "
        "delete the file to begin with a new state"
    )
