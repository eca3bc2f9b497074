"""The `def` hooks: called on the training thread, in order, with the live state and control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asynccb._ground.exceptions import HookReturnError
from asynccb._lanes.routes import Route
from asynccb._state.control import Decision, combine, is_control, pack_flags, write_flags


def run_inline(
    route: Route,
    event: str,
    args: Any,
    state: Any,
    control: Any,
    keywords: Mapping[str, Any],
    agree: Callable[[str, int, Decision], Decision],
) -> Any:
    """
    Call an event's `def` hooks and return the control that the last one left.

    A control that a hook returns replaces the one before, for the hooks after it too; raises
    `HookReturnError` for anything else but None. What callbacks with `agreed` want is passed
    through `agree(event, step, wishes)` after all.
    """
    wishes: list[Decision] = []
    for hook, name, agreed in route.inline:
        before = pack_flags(control) if agreed else 0
        returned = hook(args, state, control, **keywords)
        if returned is not None and returned is not control:
            _check(returned, name, event)
            control = returned
        if agreed:
            wishes.append(Decision.between(before, pack_flags(control)))
    if wishes:
        write_flags(control, [agree(event, state.global_step, combine(wishes))])
    return control


def _check(returned: object, name: str, event: str) -> None:
    if not is_control(returned):
        raise HookReturnError(
            f"{name}.{event} returned {type(returned).__name__} {returned!r}; a hook returns "
            "None, or the control"
        )
