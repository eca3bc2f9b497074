"""A Flyte task on this machine, for code that works only within a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_bodies: list[Callable[[], Any]] = []
_results: list[Any] = []


def in_a_task(body: Callable[[], Any]) -> Any:
    """Call a function on this thread, within a task that has a Deck, and return its result."""
    import flytekit

    _bodies.append(body)
    # Without the default Deck fields, one of which calls pip, and pip uses the network.
    flytekit.task(enable_deck=True, deck_fields=())(_task)()
    return _results.pop()


def _task() -> None:  # Flyte does not accept functions that are defined within functions
    _results.append(_bodies.pop()())
