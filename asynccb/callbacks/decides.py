"""The decorator `@decides`, which lets an async hook write to the control."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar

from asynccb._ground.exceptions import ConfigurationError, DefinitionError
from asynccb.callbacks.hook_kinds import is_asynchronous, layers, own

OnLate: TypeAlias = Literal["wait", "skip", "raise"]
Hook = TypeVar("Hook", bound=Callable[..., Coroutine[Any, Any, Any]])

_MARK: Final = "__asynccb_decides__"


@dataclass(frozen=True)
class Deciding:
    """The terms of a deciding hook; `decides` documents them."""

    lag: int
    limit: float
    on_late: OnLate


def decides(
    lag: int = 1, *, limit: float = 60.0, on_late: OnLate = "wait"
) -> Callable[[Hook], Hook]:
    """
    Let an `async def` hook write to the control, and apply its decision at a fixed step.

    The hook receives its own control with the flags as they were at its event. Its decision
    consists of the flags that it changes there, or in the control that it returns. Setting a flag
    to True is always part of the decision. Setting a flag to False is part of it only if the flag
    was True at the event.

    A decision on an event at `state.global_step` s is applied at the `on_step_end` of step
    s + `lag`, after the `def` hooks, as if a `def` hook had set the flags there. With `lag=0` it is
    applied within the event, and the training waits for the hook.

    If the decision has not arrived by then, the training waits for it. After `limit` seconds
    `on_late` selects the reaction: `"wait"` warns and continues to wait; `"skip"` warns and
    continues without the decision (the run can then be repeated only from its trace); `"raise"`
    raises `LateDecisionError`. Each of these names the callback. A hook decides nothing if it fails
    or times out, if its callback is removed or disabled, or if the run ends before the decision
    arrives.

    `on_save` is emitted after its checkpoint is written. A run that resumes from the checkpoint
    also applies the decisions on that event, and asks a hook again if its decision had not arrived.

    Raises `DefinitionError` unless the hook is an `async def`, and `ConfigurationError` for a value
    out of range.
    """
    _check(lag, limit, on_late)
    terms = Deciding(lag, limit, on_late)

    def mark(hook: Hook) -> Hook:
        if not is_asynchronous(hook):
            raise DefinitionError(
                f"@decides is for `async def` hooks, but {getattr(hook, '__qualname__', hook)} is "
                "not `async def`; a `def` hook writes to the control without @decides"
            )
        setattr(hook, _MARK, terms)
        return hook

    return mark


def terms_of(hook: object) -> Deciding | None:
    """Return the terms of a hook, bound or not, or None if it may not decide."""
    for layer in layers(hook):
        if isinstance(terms := own(layer).get(_MARK), Deciding):
            return terms
    return None


def _check(lag: object, limit: object, on_late: object) -> None:
    if not isinstance(lag, int) or isinstance(lag, bool) or lag < 0:
        raise ConfigurationError(
            f"lag is {lag!r}; it takes a number of steps from 0 on, as in @decides(lag=1)"
        )
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not limit > 0:
        raise ConfigurationError(f"limit is {limit!r}; it takes seconds above 0")
    if on_late not in ("wait", "skip", "raise"):
        raise ConfigurationError(f"on_late is {on_late!r}; it takes one of 'wait', 'skip', 'raise'")
