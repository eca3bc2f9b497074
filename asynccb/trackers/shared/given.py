"""
A tracker's settings: the arguments of its constructor, and for each that is None, its variable.

Promises: an invalid value raises `ConfigurationError`, which names the argument and its variable,
quotes the value, and lists the valid ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from asynccb._ground.environment import switch_setting, text_setting
from asynccb._ground.exceptions import ConfigurationError

C = TypeVar("C")


class Given:
    """A constructor's arguments (all of its `locals()` will do), and the environment."""

    def __init__(self, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._arguments = arguments
        self.environ = environ

    def __getitem__(self, name: str) -> Any:
        return self._arguments[name]

    def variable(self, name: str) -> str | None:
        """Return a variable's value without surrounding space; None if nothing is left."""
        return self.environ.get(name, "").strip() or None

    def text(self, name: str, variable: str = "") -> str | None:
        """Return a text, or None; if no variable is named, only the argument counts."""
        return text_setting(name, self[name], variable, self.environ)

    def switch(self, name: str, variable: str = "") -> bool:
        """Return a switch, which is off by default."""
        return switch_setting(name, self[name], variable, self.environ)

    def choice(self, name: str, variable: str, choices: Mapping[str, C], usual: C, takes: str) -> C:
        """Return the choice that a word stands for."""
        word = self[name] if self[name] is not None else self.variable(variable)
        if word is None:
            return usual
        if isinstance(word, str) and word in choices:
            return choices[word]
        raise ConfigurationError(f"{name} (or {variable}) is {word!r}; it takes {takes}")

    def seconds(self, name: str, variable: str = "", *, usual: float, least: int) -> float:
        """Return seconds, at least `least` and below a million, or 0.0 for False."""
        value = self[name]
        if value is None:
            value = self.variable(variable)
            with suppress(ValueError):  # a text instead of a number is refused below
                value = usual if value is None else float(value)
        if value is False:
            return 0.0
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and least <= value < 1e6:
            return float(value)
        named = f"{name} (or {variable})" if variable else name
        raise ConfigurationError(
            f"{named} is {value!r}; it takes seconds, at least {least}, or False"
        )

    def tags(
        self,
        who: str,
        longest: int | None = None,
        most: int | None = None,
        *,
        listed: Iterable[Any] = (),
        strip: bool = False,
    ) -> list[str]:
        """
        Return the tags for the service `who`, each once.

        If the argument is None, the tags are those `listed` in a variable, without empty ones.
        """
        given = self["tags"]
        tags = listed if given is None else given
        if isinstance(tags, str) or not isinstance(tags, Iterable):
            raise ConfigurationError(f"tags are {tags!r}; they take a list of strings")
        found = [tag.strip() if strip and isinstance(tag, str) else tag for tag in tags]
        if given is None:
            found = [tag for tag in found if tag]
        takes = "a string" if longest is None else f"1 to {longest} characters"
        for tag in found:
            if not (isinstance(tag, str) and 0 < len(tag) <= (longest or len(tag))):
                raise ConfigurationError(f"a {who} tag is {tag!r}; it takes {takes}")
        if most is not None and len(found) > most:
            raise ConfigurationError(f"there are {len(found)} tags; {who} takes {most}")
        return list(dict.fromkeys(found))
