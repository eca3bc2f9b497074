"""
Seeding a process's random number generators, and capturing their exact state for a checkpoint.

Promises: covers `random`, torch on the CPU, torch on this process's GPU and, if the program has
imported it, numpy. A captured state contains only plain numbers and tensors, so that
`torch.load(weights_only=True)` can read it.
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
    """Return the state of every generator; reads from the GPU, so it synchronizes."""
    state: dict[str, Any] = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if numpy := sys.modules.get("numpy"):
        name, keys, *rest = numpy.random.get_state(legacy=True)
        state["numpy"] = (name, keys.tolist(), *rest)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Set the generators to a captured state; generators missing from it are left alone."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    torch.set_rng_state(state["cpu"].cpu())
    if "numpy" in state and (numpy := sys.modules.get("numpy")):
        numpy.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
