"""
Finding what waits for a CUDA device.

Promises: what is changed for the time of a test is put back, whatever happens in it.
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
"""Explicit waits, which PyTorch's own check lets pass (2.11)."""


@contextmanager
def no_sync() -> Iterator[None]:
    """
    Fail at whatever waits for a CUDA device, on any thread.

    PyTorch's `set_sync_debug_mode("error")` catches the hidden ones (`item()`, a copy to pageable
    memory, a tensor's truth) with a RuntimeError; the explicit ones raise AssertionError. Raises
    `ConfigurationError` where there is no CUDA device, on which nothing could fail.
    """
    if not torch.cuda.is_available():
        raise ConfigurationError("there is no CUDA device here, so that no_sync() could not fail")
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
        warnings.simplefilter("ignore")  # that the check is a prototype
        torch.cuda.set_sync_debug_mode(mode)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError(f"{name}() waits for the device, inside no_sync()")

    return refuse
