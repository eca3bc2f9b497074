"""
The optimizer, its schedule and the loss scaler.

Promises: a step on a GPU does not wait for the device. The norm of the gradients stays there, and
the fused AdamW reads the scaler's verdict there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.strategies import SchedulerType
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.checkpoint import folders as checkpoint
from asynccb.trainer.best_model import metric_in

_WITH_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that use CUDA graphs."""

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.modules.batchnorm._NormBase,
)


def make_optimizer(model: nn.Module, args: TrainingArguments) -> Optimizer:
    """
    Return AdamW over the trainable parameters, without weight decay on biases and norms.

    A module is a norm if its class is a known norm, or if its class name contains "norm". Raises
    `ConfigurationError` if no parameter is trainable.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter, module in _trainable(model):
        is_norm = isinstance(module, _NORMS) or "norm" in type(module).__name__.lower()
        (plain if is_norm or name.endswith("bias") else decayed).append(parameter)
    if not decayed and not plain:
        raise ConfigurationError(
            f"no parameter of {type(model).__name__} has requires_grad=True; set it on the "
            "parameters to train"
        )
    return AdamW(
        [
            {"params": decayed, "weight_decay": args.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=all(p.is_floating_point() for p in decayed + plain),
    )


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield each trainable parameter once, with its own name and the module that contains it."""
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter, module


def make_scheduler(optimizer: Optimizer, args: TrainingArguments, max_steps: int) -> LambdaLR:
    """Return the schedule of the arguments over `max_steps`; "constant" has no warm-up."""
    kind = SchedulerType(args.lr_scheduler_type)
    warmup = 0 if kind is SchedulerType.CONSTANT else args.get_warmup_steps(max_steps)
    after = _AFTER_WARMUP[kind]

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return after(min((step - warmup) / max(1, max_steps - warmup), 1.0))

    return LambdaLR(optimizer, factor)


_AFTER_WARMUP: dict[SchedulerType, Callable[[float], float]] = {
    SchedulerType.LINEAR: lambda progress: 1.0 - progress,
    SchedulerType.COSINE: lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    SchedulerType.CONSTANT: lambda progress: 1.0,
    SchedulerType.CONSTANT_WITH_WARMUP: lambda progress: 1.0,
}
"""Factor of the learning rate; the argument is the finished share of the steps after warm-up."""


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
