"""
The optimizer of the arguments.

Promises: biases and norms do not decay; with the default, a step on a GPU is one fused call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from torch import nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer, RMSprop

from asynccb._ground.exceptions import ConfigurationError
from asynccb.arguments.options import read_optim_args
from asynccb.arguments.strategies import OptimizerNames
from asynccb.arguments.training_arguments import TrainingArguments

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.modules.batchnorm._NormBase,
)

_OTHERS: Final[dict[OptimizerNames, type[Optimizer]]] = {
    OptimizerNames.SGD: SGD,
    OptimizerNames.ADAGRAD: Adagrad,
    OptimizerNames.RMSPROP: RMSprop,
}


def make_optimizer(model: nn.Module, args: TrainingArguments) -> Optimizer:
    """
    Return the optimizer over the trainable parameters, without weight decay on biases and norms.

    A module is a norm if its class is a known norm, or if its class name contains "norm". "fused"
    applies if all parameters are floating-point numbers. Raises `ConfigurationError` if no
    parameter is trainable.
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
    groups = [
        {"params": decayed, "weight_decay": args.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    kind = OptimizerNames(args.optim)
    if kind in _OTHERS:
        options: dict[str, Any] = read_optim_args(kind, args.optim_args)
        return _OTHERS[kind](groups, lr=args.learning_rate, **options)  # type: ignore[call-arg]
    fused = kind is OptimizerNames.ADAMW_TORCH_FUSED
    return AdamW(
        groups,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=fused and all(p.is_floating_point() for p in decayed + plain),
    )


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield each trainable parameter once, with its own name and the module that contains it."""
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter, module
