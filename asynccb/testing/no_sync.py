"""
A check that code does not wait for a CUDA device.

Promises: every change made for a test is undone, even if the test fails.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import torch

from asynccb._ground.exceptions import ConfigurationError

_WAITS = (
    (torch.cuda, "synchronize"),
    (torch.cuda.Stream, "synchronize"),
    (torch.cuda.Event, "synchronize"),
)
"""Explicit waits, which PyTorch's own check does not catch (2.11)."""


@contextmanager
def no_sync() -> Iterator[None]:
    """
    Raise an error if code waits for a CUDA device, on any thread.

    At a hidden wait (`item()`, a copy to pageable memory, the truth value of a tensor), PyTorch's
    `set_sync_debug_mode("error")` raises a RuntimeError. An explicit wait, such as
    `torch.cuda.synchronize()`, raises an AssertionError. Raises `ConfigurationError` if the machine
    has no CUDA device, because the check could then never fail.
    """
    if not torch.cuda.is_available():
        raise ConfigurationError("this machine has no CUDA device: no_sync() could never fail here")
    before = torch.cuda.get_sync_debug_mode()
    with ExitStack() as stack:
        stack.callback(_set_mode, before)
        _set_mode("error")
        for owner, name in _WAITS:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, _refusal(f"{getattr(owner, '__name__', owner)}.{name}"))
        yield


def _set_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that the check is a prototype
        torch.cuda.set_sync_debug_mode(mode)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError(f"{name}() waits for the device, inside no_sync()")

    return refuse
