"""
The random number generators of a process: seeding them, and their exact state for a checkpoint.

Promises: covers `random`, torch on the CPU, torch on this process's GPU and, where the program
has imported it, numpy; what is captured holds plain numbers and tensors only, so that
`torch.load(weights_only=True)` reads it.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def seed_all(seed: int) -> None:
    """Seed every generator of this process."""
    random.seed(seed)
    torch.manual_seed(seed)  # all GPUs too
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def capture() -> dict[str, Any]:
    """Return the state of every generator; reads from the GPU, so it synchronises."""
    state: dict[str, Any] = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if numpy := sys.modules.get("numpy"):
        name, keys, *rest = numpy.random.get_state(legacy=True)
        state["numpy"] = (name, keys.tolist(), *rest)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Set every generator to what `capture` returned; leave alone those that it does not hold."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    torch.set_rng_state(state["cpu"].cpu())
    if "numpy" in state and (numpy := sys.modules.get("numpy")):
        numpy.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
