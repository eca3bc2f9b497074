"""Checks of a dispatcher's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError, DefinitionError
from asynccb._ground.types import Ranks
from asynccb._state.trainer_state import TrainerState

_OVERFLOWS: Final = ("block", "drop_oldest", "drop_newest", "raise")


def check_limits(callbacks: object, max_steps: object, capacity: object, overflow: object) -> None:
    """Raise unless the arguments can work; the error names the value and what to give instead."""
    if overflow not in _OVERFLOWS:
        raise ConfigurationError(
            f"overflow is {overflow!r}; it takes one of {', '.join(_OVERFLOWS)}"
        )
    if not isinstance(capacity, int) or capacity < 1:
        raise ConfigurationError(f"capacity is {capacity!r}; it takes an integer above 0")
    if not isinstance(max_steps, int) or max_steps < 0:
        raise ConfigurationError(f"max_steps is {max_steps!r}; it takes 0 or a number of steps")
    if isinstance(callbacks, str | bytes) or not isinstance(callbacks, Iterable):
        raise DefinitionError(f"callbacks is {callbacks!r}; it takes a list of callbacks")


def check_mapping(name: str, values: object) -> None:
    """Raise unless logs and metrics are mappings."""
    if not isinstance(values, Mapping):
        raise DefinitionError(
            f"{name} is {values!r}; it takes a mapping of names to values, as in {{'loss': 0.5}}"
        )


def check_timeout(timeout: object) -> None:
    """Raise unless the timeout is a number of seconds."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < 1e9:
        raise ConfigurationError(f"timeout is {timeout!r}; it takes a number of seconds from 0 on")


def first_state(args: Any) -> TrainerState:
    """Return the state of a run before its first step, with the rank flags of the arguments."""
    return TrainerState(
        is_local_process_zero=args.local_process_index == 0,
        is_world_process_zero=args.process_index == 0,
    )


def is_for_rank(ranks: Ranks, state: TrainerState) -> bool:
    """Tell whether a callback's async hooks run on this rank."""
    return (
        ranks == "all"
        or (ranks == "world_zero" and state.is_world_process_zero)
        or (ranks == "local_zero" and state.is_local_process_zero)
    )
