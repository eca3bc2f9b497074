"""Batches that do not fit into memory: telling such an error from others, and freeing memory."""

from __future__ import annotations

import gc
from typing import Final

import torch

_SAYS: Final = (
    "out of memory",
    "CUDNN_STATUS_NOT_SUPPORTED",  # of a workspace that does not fit
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
"""Messages of torch that mean that memory is short, besides its own exception."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller batch may do what has failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS)


def free_memory(device: torch.device) -> None:
    """Return what nothing refers to any more to the allocator, and from there to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
