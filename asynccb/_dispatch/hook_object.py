"""The objects that every hook receives, as attributes of a dispatcher."""

from __future__ import annotations

from typing import Any


class HookObject:
    """An attribute of a dispatcher that every hook receives as the keyword of the same name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, dispatcher: Any, owner: type) -> Any:
        return self if dispatcher is None else dispatcher._emitter.objects[self._name]

    def __set__(self, dispatcher: Any, value: object) -> None:
        dispatcher._emitter.objects[self._name] = value
