"""
Where this process stands among those of the run, and what they exchange.

Promises: without `torchrun` nothing here touches `torch.distributed`, and every exchange returns
its input; a process group that somebody else set up is used and never taken down.
"""

from __future__ import annotations

import atexit
import os
import sys
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from asynccb._ground.exceptions import ConfigurationError

T = TypeVar("T")


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _from_environ(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(
            f"the environment variable {name} is {text!r}; torchrun sets it to an integer"
        ) from None


def rank() -> int:
    """Return this process's number, 0 without `torchrun`."""
    return dist.get_rank() if _joined() else _from_environ("RANK", 0)


def local_rank() -> int:
    """Return this process's number on its machine, which is also its GPU's."""
    return _from_environ("LOCAL_RANK", 0)


def world_size() -> int:
    """Return the number of processes, 1 without `torchrun`."""
    return dist.get_world_size() if _joined() else _from_environ("WORLD_SIZE", 1)


def choose_device(use_cpu: bool) -> torch.device:
    """Return this process's GPU and make it the current one, or the CPU where there is none."""
    if use_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


def join(device: torch.device, backend: str | None = None, timeout: float = 1800.0) -> bool:
    """
    Set the process group up from the environment that `torchrun` made, once for the process.

    `backend` None takes NCCL on a GPU and gloo on the CPU; a collective of the group fails after
    `timeout` seconds. Returns whether the group was made here:
    False with a single process or an existing group. It stays until the program ends well; a group
    made anew through the same store of `torchrun` would find the old addresses there and hang
    (torch 2.13). Raises `ConfigurationError` for a backend that this build of torch lacks.
    """
    if world_size() == 1 or _joined():
        return False
    name = backend or ("nccl" if device.type == "cuda" else "gloo")
    if not dist.is_available() or not dist.is_backend_available(name):
        raise ConfigurationError(
            f"this build of torch has no distributed backend {name!r}; "
            "set ddp_backend to one that it has, such as 'gloo'"
        )
    dist.init_process_group(
        name,
        timeout=timedelta(seconds=timeout),
        device_id=device if device.type == "cuda" else None,
    )
    atexit.register(_leave)
    return True


def _leave() -> None:
    """Take the group down, but not after an error: others may be waiting in it for this rank."""
    if _joined() and getattr(sys, "last_value", None) is None:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every rank has come here; synchronises the GPU under NCCL."""
    if not _joined():
        return
    if dist.get_backend() == "nccl":
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean over the ranks, on the device; one collective, no host synchronisation."""
    return total(value) / world_size() if _joined() else value


def total(value: torch.Tensor) -> torch.Tensor:
    """Return the sum over the ranks, on the device; one collective, no host synchronisation."""
    if not _joined():
        return value
    result = value.clone()
    dist.all_reduce(result)
    return result


def gather(value: T) -> list[T]:
    """Return every rank's value, by rank; pickles them, and synchronises."""
    if not _joined():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]
