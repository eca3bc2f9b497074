"""
Writing a model's weights to disk.

Promises: the file is written with safetensors if that package is installed, else with
`torch.save`. Weights have the model's own names, without the prefixes of the wrappers of data
parallelism and `torch.compile`.
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
    """Write the weights; a model with `save_pretrained` also writes its configuration."""
    model = bare(model)
    if callable(save_pretrained := getattr(model, "save_pretrained", None)):
        save_pretrained(str(folder), **_under_own_names(save_pretrained))
    elif importlib.util.find_spec("safetensors"):
        from safetensors.torch import save_model

        save_model(model, str(folder / SAFE))
    else:
        torch.save(model.state_dict(), folder / PICKLED)


def _under_own_names(save_pretrained: Callable[..., Any]) -> dict[str, bool]:
    """Return the argument that keeps transformers from renaming and splitting saved weights."""
    name = "save_original_format"
    return {name: False} if name in inspect.signature(save_pretrained).parameters else {}


def bare(model: Any) -> nn.Module:
    """Return the model without the wrappers of data parallelism and `torch.compile`."""
    found: nn.Module = model
    while (inner := _wrapped(found)) is not None:
        found = inner
    return found


def _wrapped(model: nn.Module) -> nn.Module | None:
    # Check the class: a model may have a submodule of its own with the name `module`.
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        wrapped: nn.Module = model.module
        return wrapped
    return getattr(model, "_orig_mod", None)


def is_sharded(model: nn.Module) -> bool:
    """Return whether this process has only a part of each parameter (FSDP, tensor parallel)."""
    return any(hasattr(parameter, "to_local") for parameter in model.parameters())
