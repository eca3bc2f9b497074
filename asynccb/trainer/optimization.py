"""
The optimizer, its schedule and the loss scaler.

Promises: a step on a GPU waits for nothing: the gradients' norm stays on the device, and the
fused AdamW takes the scaler's verdict there.
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

    A module is a norm by its class, or by a class name that holds "norm". Raises
    `ConfigurationError` where nothing is trainable.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter, module in _trainable(model):
        is_norm = isinstance(module, _NORMS) or "norm" in type(module).__name__.lower()
        (plain if is_norm or name.endswith("bias") else decayed).append(parameter)
    if not decayed and not plain:
        raise ConfigurationError(f"no parameter of {type(model).__name__} has requires_grad=True")
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
    """Give each trainable parameter once, with its own name and the module that holds it."""
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter, module


def make_scheduler(optimizer: Optimizer, args: TrainingArguments, max_steps: int) -> LambdaLR:
    """Return the arguments' schedule over `max_steps`; "constant" has no warm-up."""
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
"""Factor of the learning rate, from the share of the steps after the warm-up that is done."""


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
        # A CUDA graph's gradients lie in its own memory, which its next run overwrites: a group of
        # several runs adds into tensors of ours instead.
        self._keeps_gradients = (
            args.torch_compile_mode in _WITH_GRAPHS and args.gradient_accumulation_steps > 1
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Add the loss's gradients to those of the group."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def clip(self) -> torch.Tensor:
        """Limit the norm of all gradients together and return what it was before, on the device."""
        self._scaler.unscale_(self.optimizer)
        if self._max_grad_norm > 0:
            return nn.utils.clip_grad_norm_(self._model.parameters(), self._max_grad_norm)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def update(self) -> None:
        """Make the step; under a scaler, not where a gradient was infinite."""
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def learning_rate(self) -> float | torch.Tensor:
        """Return the first group's rate, a copy where the optimizer keeps it on the device."""
        rate: float | torch.Tensor = self.optimizer.param_groups[0]["lr"]
        return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate

    def advance(self) -> None:
        """Move the schedule to the next step, unless it goes by evaluations."""
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def judge(self, metrics: Mapping[str, Any]) -> None:
        """Move a schedule that goes by evaluations; waits for a metric on the device."""
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
        """Write the states of optimizer, schedule and scaler; reads them from the device."""
        for name, part in self._parts().items():
            checkpoint.save_part(part.state_dict(), folder, name)

    def classes(self) -> dict[str, str]:
        """Return the class of what has its state in each file."""
        return {name: type(part).__qualname__ for name, part in self._parts().items()}

    def load(self, folder: Path, classes: Mapping[str, str]) -> list[str]:
        """
        Take the states back; return the names of those that are missing.

        `classes` is what `classes` returned then, as far as it is known. Raises
        `ConfigurationError` for a state of another class, or one that does not fit.
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
        """Return what has a state of its own, by the name of its file."""
        parts: dict[str, Optimizer | LRScheduler | torch.amp.GradScaler] = {
            "optimizer.pt": self.optimizer,
            "scheduler.pt": self.scheduler,
        }
        if self._scaler.is_enabled():
            parts["scaler.pt"] = self._scaler
        return parts


def _misfit(path: Path, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"the state in {path} {how}; resume with what the checkpoint was saved with, or delete the "
        "file to begin with a new state"
    )
