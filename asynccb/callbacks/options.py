"""
The options of a callback, and the check of their values.

Options are read by `read_options` in `base.py`, and only from our own callbacks.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from asynccb._ground.exceptions import ConfigurationError
from asynccb._ground.types import OnError, Overflow, Placement, Ranks

_CHOICES: Final[dict[str, tuple[str | bool | None, ...]]] = {
    "placement": ("thread", "process"),
    "overflow": ("block", "drop_oldest", "drop_newest", "raise", None),
    "on_error": ("warn", "disable", "raise"),
    "ranks": ("all", "local_zero", "world_zero"),
    "agreed": (True, False),
    "needs_history": (True, False),
}


class Options(NamedTuple):
    """A callback's options; the defaults are the same as in `TrainerCallback`."""

    placement: Placement = "thread"
    concurrency: int = 1
    overflow: Overflow | None = None
    on_error: OnError = "warn"
    timeout: float | None = None
    ranks: Ranks = "all"
    agreed: bool = False
    needs_history: bool = True


def check_options(owner: str, options: Options) -> None:
    """Raise `ConfigurationError` for a value that an option does not take; `owner` has it."""
    for name, choices in _CHOICES.items():
        value: Any = getattr(options, name)
        # An array or a tensor is not compared: its comparison may raise, or wait for a device.
        if not (value is None or isinstance(value, str | int)) or value not in choices:
            raise ConfigurationError(
                f"{owner}.{name} is {value!r}; it takes one of {', '.join(map(repr, choices))}. "
                "The name is asynccb's: give an attribute of your own another one"
            )
    concurrency, timeout = options.concurrency, options.timeout
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError(
            f"{owner}.concurrency is {concurrency!r}; it takes an integer above 0. "
            "The name is asynccb's: give an attribute of your own another one"
        )
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise ConfigurationError(
            f"{owner}.timeout is {timeout!r}; it takes seconds above 0, or None. "
            "The name is asynccb's: give an attribute of your own another one"
        )
