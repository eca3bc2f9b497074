"""A callback that was added, and what is known of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asynccb._ground.events import Event
from asynccb._lanes.thread_lane import ThreadLane
from asynccb.callbacks.base import Hooks, Options, find_hooks
from asynccb.callbacks.decides import Deciding


@dataclass(eq=False)
class Member:
    """Hold one callback with its hooks, and its lane where it is served on the thread."""

    name: str
    """Class name; a number follows for the second and later ones of a class."""
    callback: Any
    hooks: Hooks
    options: Options
    terms: Mapping[Event, Deciding]
    """Terms of the hooks that decide, also where a trace decides for them."""
    lane: ThreadLane | None = None
    in_companion: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether it has async hooks, and is no tracker that is switched off."""
        return bool(self.hooks.asynchronous) and getattr(self.callback, "enabled", True)

    @property
    def is_served(self) -> bool:
        """Whether its async hooks run, here and not on another rank only."""
        return self.lane is not None or self.in_companion


def make_callback(callback: type | object) -> tuple[Any, Hooks]:
    """Return a callback, made here from a class, and its hooks; raises as `find_hooks` does."""
    instance = callback() if inspect.isclass(callback) else callback
    return instance, find_hooks(instance)
