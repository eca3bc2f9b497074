"""
Reading a model's weights from disk; `model_files.py` writes them.

Promises: no code from the file is run. Tied weights stay tied.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asynccb._ground.exceptions import ConfigurationError, naming_damage
from asynccb.checkpoint.model_files import PICKLED, SAFE, bare

SAFE_INDEX = "model.safetensors.index.json"


def load_weights(model: nn.Module, folder: Path) -> None:
    """
    Load a folder's weights into the model, in place, on the model's device.

    Raises `ConfigurationError` if the weights are missing, damaged or of another model.
    """
    state = _read(folder)
    model = bare(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ConfigurationError(f"the weights in {folder} do not fit the model: {error}") from None
    absent = _not_tied(model, set(missing)) - _made_anew(model)
    if absent or unexpected:
        raise ConfigurationError(
            f"the weights in {folder} belong to another model: "
            f"missing {sorted(absent)}, unexpected {sorted(unexpected)}"
        )
    model.to(device)


def _read(folder: Path) -> dict[str, Any]:
    if (folder / SAFE).is_file():
        return _read_safe(folder / SAFE)
    if (folder / SAFE_INDEX).is_file():
        state: dict[str, Any] = {}
        for name in _shards(folder / SAFE_INDEX):
            state.update(_read_safe(folder / name))
        return state
    if (folder / PICKLED).is_file():
        return _read_pickled(folder / PICKLED)
    raise ConfigurationError(f"{folder} has no weights: neither {SAFE} nor {PICKLED} exists")


def _shards(index: Path) -> list[str]:
    with naming_damage(index, OSError, ValueError, TypeError, KeyError, AttributeError):
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))


def _read_safe(path: Path) -> dict[str, Any]:
    if not importlib.util.find_spec("safetensors"):
        raise ConfigurationError(f"reading {path} needs the package safetensors: pip install it")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with naming_damage(path, OSError, SafetensorError):
        return load_file(str(path))


def _read_pickled(path: Path) -> dict[str, Any]:
    with naming_damage(path, OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state


def _not_tied(model: nn.Module, missing: set[str]) -> set[str]:
    """Return the missing names that share no memory with a loaded one; ties are stored once."""
    state = model.state_dict()
    present = {t.data_ptr() for name, t in state.items() if name not in missing and t.numel()}
    return {name for name in missing if state[name].data_ptr() not in present}


def _made_anew(model: nn.Module) -> set[str]:
    """Return the names that a transformers model does not save, because it computes them."""
    return set(getattr(model, "_keys_to_ignore_on_save", None) or ())
