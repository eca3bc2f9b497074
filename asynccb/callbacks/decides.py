"""The mark on an async hook that may decide, and its terms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar

from asynccb._ground.exceptions import ConfigurationError, DefinitionError

OnLate: TypeAlias = Literal["wait", "skip", "raise"]
Hook = TypeVar("Hook", bound=Callable[..., Coroutine[Any, Any, Any]])

_MARK: Final = "__asynccb_decides__"


@dataclass(frozen=True)
class Deciding:
    """Hold the terms on which a hook decides; `decides` documents them."""

    lag: int
    limit: float
    on_late: OnLate


def decides(
    lag: int = 1, *, limit: float = 60.0, on_late: OnLate = "wait"
) -> Callable[[Hook], Hook]:
    """
    Let an `async def` hook write to the control, and apply that at a fixed step.

    The hook gets a control of its own with the flags as they were at its event; what it changes
    there, or in the control that it returns, is its decision. Setting a flag to True is one even
    where it is up at the event, setting it to False only there. A decision on an event at
    `state.global_step` s is applied at the `on_step_end` of step s + `lag`, after the `def` hooks,
    as if a `def` hook had set the flags there; with `lag=0` already within the event, for which
    the training then waits. If the decision is not in by then, the training waits for it. From
    `limit` seconds on it says for whom, and `on_late` says what else happens: `"wait"` goes on
    waiting, `"skip"` goes on without it (that run cannot be repeated then, except from its trace),
    `"raise"` raises `LateDecisionError`. A hook that fails or times out decides nothing, and so
    does a callback that is removed, disabled, or on its way when a run ends. `on_save` comes after
    its checkpoint; a run that resumes from there goes by what was decided on it, too, and asks
    again where the decision had not come.

    Raises `DefinitionError` for a hook that is no `async def`, and `ConfigurationError` for a value
    out of range.
    """
    _check(lag, limit, on_late)
    terms = Deciding(lag, limit, on_late)

    def mark(hook: Hook) -> Hook:
        if not inspect.iscoroutinefunction(hook):
            raise DefinitionError(
                f"@decides is for `async def` hooks, and {getattr(hook, '__qualname__', hook)} is "
                "none; a `def` hook decides without it, by writing to the control"
            )
        setattr(hook, _MARK, terms)
        return hook

    return mark


def terms_of(hook: object) -> Deciding | None:
    """Return the terms of a hook, bound or not, or None for one that may not decide."""
    return getattr(hook, _MARK, None)


def _check(lag: object, limit: object, on_late: object) -> None:
    if not isinstance(lag, int) or isinstance(lag, bool) or lag < 0:
        raise ConfigurationError(
            f"lag is {lag!r}; it takes a number of steps from 0 on, as in @decides(lag=1)"
        )
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not limit > 0:
        raise ConfigurationError(f"limit is {limit!r}; it takes seconds above 0")
    if on_late not in ("wait", "skip", "raise"):
        raise ConfigurationError(f"on_late is {on_late!r}; it takes one of 'wait', 'skip', 'raise'")
