"""
The decisions that a checkpoint stores: answered, and not due yet.

Promises: plain JSON values. Decisions of callbacks that are missing now are left out, with a
warning and never an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from asynccb._decisions.schedule import Outcome, Ticket
from asynccb._ground.events import EVENTS
from asynccb._ground.exceptions import ConfigurationError
from asynccb._lanes.registry import Registry
from asynccb._state.control import FLAGS, Decision

logger = logging.getLogger("asynccb")


class Pending(msgspec.Struct, frozen=True):
    """One decision that is not due yet."""

    emission: int
    position: int
    callback: str
    event: str
    step: int
    due: int
    flags: dict[str, bool]
    outcome: Outcome


class Saved(msgspec.Struct, frozen=True):
    """Everything about decisions in a checkpoint."""

    emission: int
    """Number of the last event that asked for decisions."""
    training: int
    deciders: list[tuple[str, str, int]]
    """Name, event and lag of each hook that decided."""
    pending: list[Pending]
    flags: int = 0
    """The control, packed."""
    stopped: bool = False
    """Whether it was decided that the run ends at the checkpoint's step."""


def save(
    emission: int,
    training: int,
    registry: Registry,
    tickets: Iterable[Ticket],
    *,
    flags: int,
    stopped: bool,
) -> dict[str, Any]:
    """Return the state; the tickets are settled."""
    pending = [
        Pending(
            ticket.emission,
            ticket.position,
            ticket.name,
            ticket.event,
            ticket.step,
            ticket.due,
            ticket.decision.opinions,
            ticket.outcome or "decided",
        )
        for ticket in tickets
    ]
    saved = Saved(emission, training, registry.deciders, pending, flags, stopped)
    state: dict[str, Any] = msgspec.to_builtins(saved)
    return state


def load(state: object, registry: Registry) -> tuple[Saved, list[Ticket]]:
    """Return the saved state and its tickets; raise `ConfigurationError` for anything else."""
    try:
        saved = msgspec.convert(state, Saved)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"this is no state of a dispatcher ({error}); give what state_dict() returned"
        ) from None
    for each in saved.pending:
        if each.event not in EVENTS or not set(each.flags) <= set(FLAGS):
            raise ConfigurationError(
                f"this is no state of a dispatcher (it holds {each}); give what state_dict() "
                "returned"
            )
    _warn_of_differences(saved, registry)
    return saved, [ticket for each in saved.pending for ticket in _tickets(each, registry)]


def _warn_of_differences(saved: Saved, registry: Registry) -> None:
    then = {name for name, _, _ in saved.deciders}
    now = {name for name, _, _ in registry.deciders}
    for names, what in (
        (then - now, "decided in the checkpoint's run, and not any more"),
        (now - then, "decide now, and did not in the checkpoint's run"),
    ):
        if names:
            logger.warning("%s %s", ", ".join(sorted(names)), what)


def _tickets(pending: Pending, registry: Registry) -> list[Ticket]:
    terms = registry.terms(pending.callback, pending.event)
    if terms is None:
        return []
    ticket = Ticket(
        pending.emission,
        pending.position,
        pending.callback,
        pending.event,
        pending.step,
        pending.due,
        terms,
    )
    ticket.settle(Decision(**pending.flags), pending.outcome)
    return [ticket]
