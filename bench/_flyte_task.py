"""A Flyte task on this machine, for what only works within one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_bodies: list[Callable[[], Any]] = []
_results: list[Any] = []


def in_a_task(body: Callable[[], Any]) -> Any:
    """Call a function within a task that has a Deck, on this thread, and return what it returns."""
    import flytekit

    _bodies.append(body)
    # Without its own fields, of which one asks pip, and that the network.
    flytekit.task(enable_deck=True, deck_fields=())(_task)()
    return _results.pop()


def _task() -> None:  # Flyte takes no function that is defined in another one
    _results.append(_bodies.pop()())
