"""
A model's weights, written to disk.

Promises: written as safetensors where that package is there, else with `torch.save`; under the
names that the model itself has for them, without those of what data parallelism and
`torch.compile` put around it.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

SAFE = "model.safetensors"
PICKLED = "pytorch_model.bin"


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write the weights; a model with `save_pretrained` writes itself, configuration included."""
    model = bare(model)
    if callable(save_pretrained := getattr(model, "save_pretrained", None)):
        save_pretrained(str(folder), **_under_own_names(save_pretrained))
    elif importlib.util.find_spec("safetensors"):
        from safetensors.torch import save_model

        save_model(model, str(folder / SAFE))
    else:
        torch.save(model.state_dict(), folder / PICKLED)


def _under_own_names(save_pretrained: Callable[..., Any]) -> dict[str, bool]:
    """Return what keeps transformers from renaming and splitting weights on their way to disk."""
    name = "save_original_format"
    return {name: False} if name in inspect.signature(save_pretrained).parameters else {}


def bare(model: Any) -> nn.Module:
    """Return the model without what data parallelism and `torch.compile` put around it."""
    found: nn.Module = model
    while (inner := _wrapped(found)) is not None:
        found = inner
    return found


def _wrapped(model: nn.Module) -> nn.Module | None:
    # By class: a model may well have a part of its own that it calls `module`.
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped: nn.Module = model.module
        return wrapped
    return getattr(model, "_orig_mod", None)


def is_sharded(model: nn.Module) -> bool:
    """Tell whether this process has only a part of each parameter (FSDP, tensor parallel)."""
    return any(hasattr(parameter, "to_local") for parameter in model.parameters())
