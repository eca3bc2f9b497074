"""Errors of async hooks that their callbacks want raised on the training thread."""

from __future__ import annotations

from typing import NoReturn, TypeAlias

from asynccb._ground.exceptions import CallbackError

Faults: TypeAlias = list[tuple[str, BaseException | str]]
"""Callbacks' names, and the error or, from the companion, its text; oldest first."""


def raise_oldest(faults: Faults) -> NoReturn:
    """Take out the oldest error and raise it as `CallbackError`."""
    name, error = faults.pop(0)
    if isinstance(error, str):
        raise CallbackError(f"{name} failed in the companion: {error}")
    raise CallbackError(f"{name} failed: {type(error).__name__}: {error}") from error
