"""The `def` hooks: called on the training thread, in order, with the live state and control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynccb._control import FLAGS
from asynccb._exceptions import HookReturnError
from asynccb._roster import Route


def run_inline(
    route: Route, event: str, args: Any, state: Any, control: Any, keywords: Mapping[str, Any]
) -> Any:
    """
    Call an event's `def` hooks and return the control that the last one left.

    A control that a hook returns replaces the one before, for the hooks after it too; raises
    `HookReturnError` for anything else but None.
    """
    for hook, name in route.inline:
        returned = hook(args, state, control, **keywords)
        if returned is None or returned is control:
            continue
        if not all(hasattr(returned, flag) for flag in FLAGS):
            raise HookReturnError(
                f"{name}.{event} returned {type(returned).__name__} {returned!r}; a hook returns "
                "None, or the control"
            )
        control = returned
    return control
