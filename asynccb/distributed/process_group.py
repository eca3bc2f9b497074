"""
This process's place among the processes of the run, and exchanges between them.

Promises: without `torchrun` nothing here sets up `torch.distributed`, and every exchange returns
its input. A process group that other code set up is used and never destroyed.
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
    """Return this process's number on its machine, which is also the number of its GPU."""
    return _from_environ("LOCAL_RANK", 0)


def world_size() -> int:
    """Return the number of processes, 1 without `torchrun`."""
    return dist.get_world_size() if _joined() else _from_environ("WORLD_SIZE", 1)


def choose_device(use_cpu: bool) -> torch.device:
    """Return this process's GPU and make it the current one; without a GPU, return the CPU."""
    if use_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


def join(device: torch.device, backend: str | None = None, timeout: float = 1800.0) -> bool:
    """
    Set up the process group from the environment that `torchrun` made, once per process.

    `backend` None means NCCL on a GPU and gloo on the CPU. A collective of the group fails after
    `timeout` seconds. Returns whether this call made the group: False with a single process or an
    existing group. The group stays until the program ends without an error. A second group over the
    same store of `torchrun` would find the old addresses there and hang (torch 2.13). Raises
    `ConfigurationError` if this build of torch lacks the backend.
    """
    if world_size() == 1 or _joined():
        return False
    name = backend or ("nccl" if device.type == "cuda" else "gloo")
    if not dist.is_available() or not dist.is_backend_available(name):
        raise ConfigurationError(
            f"this build of torch has no distributed backend {name!r}; "
            "set ddp_backend to an existing one, such as 'gloo'"
        )
    dist.init_process_group(
        name,
        timeout=timedelta(seconds=timeout),
        device_id=device if device.type == "cuda" else None,
    )
    atexit.register(_leave)
    return True


def _leave() -> None:
    """Destroy the group, but not after an error: other ranks may be waiting in it for this one."""
    if _joined() and getattr(sys, "last_value", None) is None:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every rank has made this call; synchronizes the GPU under NCCL."""
    if not _joined():
        return
    if dist.get_backend() == "nccl":
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean over the ranks, on the device; one collective, no host synchronization."""
    return total(value) / world_size() if _joined() else value


def total(value: torch.Tensor) -> torch.Tensor:
    """Return the sum over the ranks, on the device; one collective, no host synchronization."""
    if not _joined():
        return value
    result = value.clone()
    dist.all_reduce(result)
    return result


def gather(value: T) -> list[T]:
    """Return every rank's value, by rank; pickles the values and synchronizes."""
    if not _joined():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]
