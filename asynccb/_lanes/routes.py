"""Who listens to an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from asynccb._lanes.thread_lane import ThreadLane
from asynccb.callbacks.base import InlineHook
from asynccb.callbacks.decides import Deciding


class Decider(NamedTuple):
    """A callback that decides on an event."""

    position: int
    """Its place among the callbacks."""
    name: str
    terms: Deciding
    asked: bool
    """Whether it is asked here, and not on another rank only."""


@dataclass(frozen=True, slots=True)
class Route:
    """Everything that an event does."""

    number: int
    """The event's place in `EVENTS`."""
    resets: tuple[str, ...]
    inline: tuple[tuple[InlineHook, str, bool], ...]
    """The `def` hooks in order, with their callbacks' `name` and `agreed`."""
    lanes: tuple[ThreadLane, ...]
    companion: bool
    """Whether a callback in the companion listens."""
    frames_training: bool
    """Whether the event begins or ends a training."""
    deciders: tuple[Decider, ...]
    """Who decides on the event, in order."""
    is_boundary: bool
    """Whether decisions of earlier events are applied at it."""
    applies: bool
    """Whether any decision can be applied at it."""

    is_heard: bool
    """Whether a callback listens."""

    is_quiet: bool
    """Whether the event is only a boundary."""

    is_direct: bool
    """Whether it only goes to the companion."""

    @property
    def is_empty(self) -> bool:
        """Whether the event does nothing at all."""
        return not (self.resets or self.is_heard or self.frames_training or self.is_boundary)


class Refusing(dict[str, Any]):
    """Routes of a run whose events are refused: each look-up raises the error."""

    def __init__(self, error: type[Exception], message: str) -> None:
        super().__init__()
        self._error = error
        self._message = message

    def __missing__(self, event: str) -> NoReturn:
        raise self._error(self._message)
