"""
The states of callbacks in a checkpoint.

Promises: a callback that the checkpoint does not know, or one that it knows and is not there, is
a warning, never an error; the user's own instances and their order stay.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from asynccb._state.trainer_state import export_states

logger = logging.getLogger("asynccb")

DISPATCHER: Final = "CallbackDispatcher"
"""Stands among the callbacks for the dispatcher, whose state has their form."""


def stateful(callbacks: Sequence[Any]) -> list[Any]:
    """Return the callbacks whose state belongs in a checkpoint."""
    return [
        callback
        for callback in callbacks
        if callable(getattr(callback, "state", None))
        and callable(getattr(callback, "from_state", None))
        and getattr(callback, "in_checkpoint", True)
    ]


def capture(callbacks: Sequence[Any], dispatcher: dict[str, Any]) -> dict[str, Any]:
    """Return the states by class name, as they are now, and that of the dispatcher beside them."""
    states = export_states(stateful(callbacks))
    return {**states, DISPATCHER: {"args": {}, "attributes": dispatcher}}


def dispatcher_state(states: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what `capture` has put there for the dispatcher, or None."""
    stored = states.get(DISPATCHER)
    return None if stored is None else stored["attributes"]


def say_left_out(callbacks: Sequence[Any], states: Mapping[str, Any]) -> None:
    """Warn of callbacks that start anew though the checkpoint holds their states."""
    present = {type(callback).__name__ for callback in stateful(callbacks)}
    if left_out := sorted(present & states.keys()):
        logger.warning(
            "the states that the checkpoint holds of %s are left out: "
            "restore_callback_states_from_checkpoint=True puts them back",
            ", ".join(left_out),
        )


def restore(callbacks: Sequence[Any], states: Mapping[str, Any]) -> None:
    """
    Give the callbacks their states back, in place, by class name and, within one class, by order.

    What the constructor takes comes from the checkpoint too, not from the instance that is there.
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
            vars(callback).update(vars(type(callback).from_state(state)))
        if len(instances) != len(listed):
            logger.warning(
                "the checkpoint holds the state of %d %s, and %d are there now; the others %s",
                *(len(listed), name, len(instances)),
                "start anew" if len(instances) > len(listed) else "are left out",
            )
    if present:
        logger.warning("the checkpoint holds no state of %s; they start anew", ", ".join(present))
