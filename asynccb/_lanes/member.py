"""A callback that was added, with its hooks and the place that serves it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asynccb._ground.events import Event
from asynccb._lanes.thread_lane import ThreadLane
from asynccb.callbacks.base import Hooks, find_hooks
from asynccb.callbacks.decides import Deciding
from asynccb.callbacks.options import Options
from asynccb.callbacks.tracking import Tracking


@dataclass(eq=False)
class Member:
    """One callback of a dispatcher."""

    name: str
    """Class name; the second and later callbacks of a class have a number behind it."""
    callback: Any
    hooks: Hooks
    options: Options
    terms: Mapping[Event, Deciding]
    """Terms of the hooks that decide, also if a trace decides for them."""
    place: ThreadLane | Literal["companion"] | None = None
    """The place of the async hooks: a lane on the thread, the companion, or None on this rank."""

    @property
    def lane(self) -> ThreadLane | None:
        """The lane on the event-loop thread, if there is one."""
        return self.place if isinstance(self.place, ThreadLane) else None

    @property
    def in_companion(self) -> bool:
        """Whether the companion serves the callback."""
        return self.place == "companion"

    @property
    def is_wanted(self) -> bool:
        """Whether the callback has async hooks and is not a tracker that is switched off."""
        is_off = isinstance(self.callback, Tracking) and not self.callback.enabled
        return bool(self.hooks.asynchronous) and not is_off

    @property
    def is_served(self) -> bool:
        """Whether the async hooks run here, and not on another rank only."""
        return self.place is not None


def make_callback(callback: type | object) -> tuple[Any, Hooks]:
    """Return a callback, made here from a class, and its hooks; raises as `find_hooks` does."""
    instance = callback() if inspect.isclass(callback) else callback
    return instance, find_hooks(instance)
