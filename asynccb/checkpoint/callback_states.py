"""
The states of callbacks in a checkpoint.

Promises: if the checkpoint has no state for a callback, or a state of a missing callback,
a warning is logged, never an error raised. The user's instances and their order do not change.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynccb._state.trainer_state import ExportableState, export_states, exports_state, whole_state

logger = logging.getLogger("asynccb")

DISPATCHER: Final = "CallbackDispatcher"
"""The dispatcher's name among the callbacks; its state has the same form."""


def stateful(callbacks: Sequence[Any]) -> list[Any]:
    """Return the callbacks whose state belongs in a checkpoint."""
    return [
        callback
        for callback in callbacks
        if exports_state(callback)
        and not (isinstance(callback, ExportableState) and not callback.in_checkpoint)
    ]


def capture(callbacks: Sequence[Any], dispatcher: dict[str, Any]) -> dict[str, Any]:
    """Return the callbacks' current states by class name, and the dispatcher's state."""
    states = export_states(stateful(callbacks))
    return {**states, DISPATCHER: {"args": {}, "attributes": dispatcher}}


def dispatcher_state(states: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the dispatcher's state that `capture` stored, or None."""
    stored = states.get(DISPATCHER)
    return None if stored is None else stored["attributes"]


def say_left_out(callbacks: Sequence[Any], states: Mapping[str, Any]) -> None:
    """Warn of callbacks whose states in the checkpoint are not restored."""
    present = {type(callback).__name__ for callback in stateful(callbacks)}
    if left_out := sorted(present & states.keys()):
        logger.warning(
            "the checkpoint's states of %s are not restored; set "
            "restore_callback_states_from_checkpoint=True to restore them",
            ", ".join(left_out),
        )


def restore(callbacks: Sequence[Any], states: Mapping[str, Any]) -> None:
    """
    Restore the callbacks' states in place, by class name and, within one class, by order.

    The constructor's arguments are restored from the checkpoint, too; the instance's are replaced.
    """
    present: dict[str, list[Any]] = {}
    for callback in stateful(callbacks):
        present.setdefault(type(callback).__name__, []).append(callback)
    for name, stored in states.items():
        if name == DISPATCHER:
            continue
        listed = stored if isinstance(stored, list) else [stored]
        instances = present.pop(name, [])
        for callback, state in zip(instances, listed, strict=False):
            if isinstance(state, Mapping):
                vars(callback).update(vars(type(callback).from_state(whole_state(state))))
            else:
                logger.warning(
                    "the checkpoint's state of %s is %r, not a dict with `args` and `attributes`; "
                    "it starts anew",
                    *(name, state),
                )
        if len(instances) != len(listed):
            logger.warning(
                "the checkpoint contains the states of %d %s, but the run has %d; the others %s",
                *(len(listed), name, len(instances)),
                "start anew" if len(instances) > len(listed) else "are left out",
            )
    if present:
        logger.warning("the checkpoint has no state of %s; they start anew", ", ".join(present))
