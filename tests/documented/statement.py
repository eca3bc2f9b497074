"""What a row of the tables holds."""

from __future__ import annotations

from typing import NamedTuple


class Statement(NamedTuple):
    """A documented statement in our words, and the tests that show it."""

    said: str
    tests: tuple[str, ...]


def shown(said: str, *tests: str) -> Statement:
    """Return a statement that the tests show, which are named as pytest does, below `tests/`."""
    return Statement(said, tests)
