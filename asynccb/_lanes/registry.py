"""
Which callbacks a dispatcher has, and who listens to which event.

Promises: a callback that cannot work is refused when it is added; a change during an event takes
effect with the next one; an event without listeners is found with one look.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from asynccb._ground.events import EVENTS, RESETS, Event
from asynccb._lanes.member import Member, make_callback
from asynccb._lanes.routes import Decider, Route
from asynccb._staging.staged_logs import with_numbers
from asynccb.callbacks.base import (
    TrainerCallback,
    find_hooks,
    read_options,
)
from asynccb.callbacks.decides import Deciding
from asynccb.callbacks.tracking import training_side

logger = logging.getLogger("asynccb")


class Registry:
    """The callbacks of a dispatcher in order, and the routes of its events."""

    def __init__(
        self, *, asks: bool = True, resets: Mapping[Event, tuple[str, ...]] = RESETS
    ) -> None:
        """
        Begin without callbacks.

        Without `asks`, hooks that decide are not called, since a trace decides for them. `resets`
        are the flags that each event clears.
        """
        self._asks = asks
        self._resets = resets
        self.members: list[Member] = []
        self.served: dict[str, Member] = {}
        """Members with a lane, by name; removed members stay, for their counts."""
        self.routes: Mapping[str, Route | None] = {}
        self._names: dict[str, int] = {}
        self.update()

    def prepare(self, callback: type | object) -> Member:
        """Check a callback, or make one from a class, and return it; `add` makes it a member."""
        instance, hooks = make_callback(callback)
        if not isinstance(instance, TrainerCallback):  # it knows nothing of values on their way
            read = {event: with_numbers(hook) for event, hook in hooks.inline.items()}
            hooks = hooks._replace(inline=read)
        kind = type(instance)
        if any(type(member.callback) is kind for member in self.members):
            logger.warning(
                "a second %s is added; both will run. Callbacks: %s",
                kind.__name__,
                ", ".join(member.name for member in self.members),
            )
        count = self._names[kind.__name__] = self._names.get(kind.__name__, 0) + 1
        name = kind.__name__ if count == 1 else f"{kind.__name__}-{count}"
        if (side := training_side(instance)) is not None:
            hooks = hooks._replace(inline={**hooks.inline, **find_hooks(side).inline})
        terms = hooks.terms
        if not self._asks:
            called = {e: hook for e, hook in hooks.asynchronous.items() if e not in terms}
            hooks = hooks._replace(asynchronous=called)
        return Member(name, instance, hooks, read_options(instance), terms)

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
            elif member.callback is callback:
                return member
        return None

    def remove(self, member: Member) -> None:
        """Remove a member from the callbacks; its counts stay in `served`."""
        self.members.remove(member)
        self.update()

    @property
    def deciders(self) -> list[tuple[str, str, int]]:
        """Name, event and lag of each hook that decides."""
        return [
            (member.name, str(event), terms.lag)
            for member in self.members
            for event, terms in member.terms.items()
        ]

    def terms(self, name: str, event: str) -> Deciding | None:
        """Return the terms on which a callback decides on an event, or None."""
        for member in self.members:
            if member.name == name:
                return member.terms.get(Event(event))
        return None

    def route_to_deciders(self, event: Event, answered: Collection[str]) -> Route | None:
        """Return an event's route to the callbacks that decide on it and have not `answered`."""
        route = self.routes[event]
        if route is None or not route.deciders:
            return None
        asked = [
            member
            for member in self.members
            if event in member.terms
            and event in member.hooks.asynchronous
            and member.name not in answered
        ]
        return replace(
            route,
            resets=(),
            inline=(),
            lanes=tuple(member.lane for member in asked if member.lane is not None),
            companion=any(member.in_companion for member in asked),
        )

    def update(self) -> None:
        """Compute the routes anew."""
        routes: dict[str, Route | None] = {}
        for number, event in enumerate(EVENTS):
            route = self._route(number, event)
            routes[event] = None if route.is_empty else route
        self.routes = routes

    def _route(self, number: int, event: Event) -> Route:
        listening = [member for member in self.members if event in member.hooks.asynchronous]
        deciders = tuple(
            Decider(position, member.name, member.terms[event], member.is_served)
            for position, member in enumerate(self.members)
            if event in member.terms
        )
        inline = tuple(
            (member.hooks.inline[event], member.name, member.options.agreed)
            for member in self.members
            if event in member.hooks.inline
        )
        lanes = tuple(member.lane for member in listening if member.lane is not None)
        companion = any(member.in_companion for member in listening)
        is_boundary = event == Event.STEP_END
        frames_training = event in (Event.TRAIN_BEGIN, Event.TRAIN_END)
        is_heard = bool(inline or lanes or companion or deciders)
        resets = self._resets.get(event, ())
        return Route(
            number,
            resets,
            inline,
            lanes,
            companion,
            frames_training,
            deciders,
            is_boundary,
            is_boundary or any(decider.terms.lag == 0 for decider in deciders),
            is_heard,
            is_boundary and not (is_heard or resets),
            companion and not (inline or lanes or deciders or is_boundary or frames_training),
        )
