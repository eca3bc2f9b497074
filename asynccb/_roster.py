"""
Which callbacks a dispatcher has, and who listens to which event.

Promises: a callback that cannot work is refused when it is added; a change during an event takes
effect with the next one; an event without listeners is found with one look.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from asynccb._callback import Hooks, InlineHook, Options, find_hooks, read_options
from asynccb._events import EVENTS, RESETS, Event
from asynccb._thread_lane import ThreadLane

logger = logging.getLogger("asynccb")


@dataclass(eq=False)
class Member:
    """Hold one callback with its hooks, and its lane where it is served on the thread."""

    name: str
    """Class name; a number follows for the second and later ones of a class."""
    callback: Any
    hooks: Hooks
    options: Options
    lane: ThreadLane | None = None
    in_companion: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Say what an event does."""

    number: int
    """The event's place in `EVENTS`."""
    resets: tuple[str, ...]
    inline: tuple[tuple[InlineHook, str], ...]
    """The `def` hooks in order, with their callbacks' names."""
    lanes: tuple[ThreadLane, ...]
    companion: bool
    """Whether a callback in the companion listens."""
    frames_training: bool
    """Whether the event begins or ends a training."""

    @property
    def is_empty(self) -> bool:
        """Whether the event does nothing at all."""
        return not (
            self.resets or self.inline or self.lanes or self.companion or self.frames_training
        )


class Roster:
    """Hold the callbacks in order."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.routes: Mapping[str, Route | None] = {}
        self._names: dict[str, int] = {}
        self.update()

    def prepare(self, callback: type | object) -> Member:
        """Check a callback, or make one from a class; it is not a member yet."""
        instance = callback() if inspect.isclass(callback) else callback
        hooks = find_hooks(instance)
        kind = type(instance)
        if any(type(member.callback) is kind for member in self.members):
            logger.warning(
                "a %s is added beside one that is there already; both will run. Callbacks: %s",
                kind.__name__,
                ", ".join(member.name for member in self.members),
            )
        count = self._names[kind.__name__] = self._names.get(kind.__name__, 0) + 1
        name = kind.__name__ if count == 1 else f"{kind.__name__}-{count}"
        return Member(name, instance, hooks, read_options(instance))

    def add(self, member: Member) -> None:
        """Make a prepared callback a member, after all others."""
        self.members.append(member)
        self.update()

    def find(self, callback: type | object) -> Member | None:
        """Return the first member of a class, or the member that is the given instance."""
        for member in self.members:
            if inspect.isclass(callback):
                if isinstance(member.callback, callback):
                    return member
            elif member.callback == callback:
                return member
        return None

    def remove(self, member: Member) -> None:
        """Forget a member."""
        self.members.remove(member)
        self.update()

    def update(self) -> None:
        """Work the routes out again."""
        routes: dict[str, Route | None] = {}
        for number, event in enumerate(EVENTS):
            route = self._route(number, event)
            routes[event] = None if route.is_empty else route
        self.routes = routes

    def _route(self, number: int, event: Event) -> Route:
        listening = [member for member in self.members if event in member.hooks.asynchronous]
        return Route(
            number,
            RESETS.get(event, ()),
            tuple(
                (member.hooks.inline[event], member.name)
                for member in self.members
                if event in member.hooks.inline
            ),
            tuple(member.lane for member in listening if member.lane is not None),
            any(member.in_companion for member in listening),
            event in (Event.TRAIN_BEGIN, Event.TRAIN_END),
        )


class Refusing(dict[str, Any]):
    """Stand in for the routes where no event may be emitted any more."""

    def __init__(self, error: type[Exception], message: str) -> None:
        super().__init__()
        self._error = error
        self._message = message

    def __missing__(self, event: str) -> NoReturn:
        raise self._error(self._message)
