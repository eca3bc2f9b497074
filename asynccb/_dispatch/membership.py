"""The callbacks of a dispatcher: who they are, and how they come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynccb._decisions.decisions import Decisions
from asynccb._dispatch.checks import is_for_rank
from asynccb._lanes.registry import Roster
from asynccb._lanes.routes import Refusing, Route
from asynccb._publishing.publisher import Publisher
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks.request import Requesting


class Membership:
    """Add and remove callbacks; the dispatcher is built on it."""

    args: Any
    state: TrainerState
    model: Any
    request: Requesting
    _closed: bool
    _decisions: Decisions
    _publisher: Publisher
    _roster: Roster
    _routes: Mapping[str, Route | None]

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks, in order."""
        return [member.callback for member in self._roster.members]

    @property
    def callback_list(self) -> str:
        """The callbacks' class names, one a line."""
        return "\n".join(type(callback).__name__ for callback in self.callbacks)

    def add_callback(self, callback: Any) -> None:
        """
        Add a callback, a class or an instance, after all others.

        A second one of a class is added with a warning. Added during an event, it takes part from
        the next one on.
        """
        if self._closed:
            self._routes["on_init_end"]  # raises what every event raises now
        member = self._roster.prepare(callback)
        if member.is_wanted and is_for_rank(member.options.ranks, self.state):
            self._publisher.start_lane(member, self.args, self.model)
            self._publisher.sides.add(member, lambda: self.state)
            self._publisher.offers.add(member, lambda: self.state)
        self.request.connect(member.callback)
        self._roster.add(member)
        self._update_routes()

    def pop_callback(self, callback: Any) -> Any:
        """Remove a callback, the first of a class or an instance, and return it, or None."""
        member = self._roster.find(callback)
        if member is None:
            return None
        self._roster.remove(member)
        self._publisher.end_lane(member)
        self._decisions.forget(member.name)
        self._update_routes()
        return member.callback

    def remove_callback(self, callback: Any) -> None:
        """
        Remove a callback: the first of a class, if there is one, or an instance.

        What its lane has got already is delivered, but decides nothing any more. Raises ValueError
        for an instance that is none of the callbacks.
        """
        if self.pop_callback(callback) is None and not isinstance(callback, type):
            names = ", ".join(member.name for member in self._roster.members)
            raise ValueError(f"{callback!r} is none of the callbacks: {names}")

    def _start_late_lanes(self) -> None:
        for member in list(self._publisher.late):
            self._publisher.start_lane(member, self.args, self.model)
        self._update_routes()

    def _update_routes(self) -> None:
        self._roster.update()
        if not isinstance(self._routes, Refusing):
            self._routes = self._roster.routes
