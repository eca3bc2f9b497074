"""
Parse ClearML's configuration file, which is written in a part of HOCON.

Promises: values are the same as with the parser of `clearml` 2.1. An error message contains only
the number of a line, since the line may contain a key. Variables are looked up when a value is
requested, so a missing variable affects only the values that use it. Includes are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from asynccb._ground.exceptions import ConfigurationError

_SPACE: Final = re.compile(r"(?:\s|(?:#|//)[^\n]*)*")
_BLANK: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r'"(?P<quoted>(?:[^"\\\n]|\\.)*)"|(?P<plain>[^\s"{}\[\],:=+#$]+)')
_ASSIGN: Final = re.compile(r"\+=|[:=]")
_LONG: Final = re.compile(r'"""(.*?)"""', re.DOTALL)
_QUOTED: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_VARIABLE: Final = re.compile(r"\$\{(\??)([^}\n]+)\}")
_PLAIN: Final = re.compile(r"""(?!//)[^\s"{}\[\],#$]+[ \t]*""")


class _Reference:
    """A reference to a value elsewhere in the file or in the environment."""

    def __init__(self, path: str, optional: bool) -> None:
        self.path = path
        self.optional = optional


class _Text(list[str | _Reference]):
    """A text value as a list of adjacent pieces."""


_Tree: TypeAlias = dict[str, Any]
"""Values are trees, lists and texts."""


class Configuration:
    """The contents of a configuration file."""

    def __init__(self, tree: _Tree, environ: Mapping[str, str], name: str) -> None:
        self._tree = tree
        self._environ = environ
        self._name = name

    def text(self, path: str) -> str | None:
        """
        Return the text at a path such as `api.credentials.access_key`.

        Return None if the text is missing or empty. Raises `ConfigurationError` if the value is not
        a text, and if a required variable is missing.
        """
        found = self._find(path)
        if found is None:
            return None
        if not isinstance(found, _Text):
            raise ConfigurationError(f"{path} in {self._name} must be a single value")
        return self._joined(found, path, ()).strip() or None

    def texts(self, path: str) -> list[str]:
        """Return the texts of the list at a path; an empty list if the value is not a list."""
        found = self._find(path)
        if not isinstance(found, list) or isinstance(found, _Text):
            return []
        return [self._joined(text, path, ()) for text in found if isinstance(text, _Text)]

    def _find(self, path: str) -> Any:
        place: Any = self._tree
        for name in path.split("."):
            place = place.get(name) if isinstance(place, dict) else None
        return place

    def _joined(self, text: _Text, path: str, asked: tuple[str, ...]) -> str:
        pieces = (p if isinstance(p, str) else self._resolved(p, path, asked) for p in text)
        return "".join(pieces)

    def _resolved(self, reference: _Reference, path: str, asked: tuple[str, ...]) -> str:
        found = self._find(reference.path)
        if isinstance(found, _Text) and reference.path not in asked:
            return self._joined(found, path, (*asked, reference.path))
        value = self._environ.get(reference.path)
        if value is None and not reference.optional:
            raise ConfigurationError(
                f"{path} in {self._name} refers to ${{{reference.path}}}, which is not set"
            )
        return value or ""


def read_configuration(text: str, environ: Mapping[str, str], name: str) -> Configuration:
    """Parse a file's text; `name` is for messages. Raises `ConfigurationError`."""
    return Configuration(_Reader(text, name).whole(), environ, name)


class _Reader:
    """A parser that reads the text once, from start to end."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._at = 0

    def whole(self) -> _Tree:
        self._skip(_SPACE)
        tree = self._tree("}") if self._takes("{") else self._tree("")
        self._skip(_SPACE)
        if self._at < len(self._text):
            raise self._error("unexpected text after the end")
        return tree

    def _tree(self, end: str) -> _Tree:
        tree: _Tree = {}
        while not self._is_over(end):
            path = self._key()
            self._skip(_SPACE)
            assigned = self._match(_ASSIGN)
            self._skip(_SPACE)
            if self._peek("{"):
                self._at += 1
                _put(tree, path, self._tree("}"))
            elif assigned is None:
                raise self._error("a key is followed by neither a value nor an object")
            else:
                _put(tree, path, self._value(), adds=assigned == "+=")
        return tree

    def _list(self) -> list[Any]:
        found: list[Any] = []
        while not self._is_over("]"):
            found.append(self._value())
        return found

    def _is_over(self, end: str) -> bool:
        """Skip to the next entry; return whether the end is reached instead."""
        self._skip(_SPACE)
        while self._takes(","):
            self._skip(_SPACE)
        if self._at == len(self._text):
            if end:
                raise self._error(f"a {end} is missing")
            return True
        return bool(end) and self._takes(end)

    def _key(self) -> list[str]:
        path: list[str] = []
        found = _KEY.match(self._text, self._at)
        if found is None:
            raise self._error("a key is missing")
        if found["plain"] == "include":
            raise self._error("includes of other files are not supported")
        while found is not None:
            self._at = found.end()
            if found["quoted"] is not None:
                path.append(self._unquoted(found[0]))
            else:
                path += [part for part in found["plain"].split(".") if part]
            found = _KEY.match(self._text, self._at)
        return path

    def _value(self) -> Any:
        if self._takes("{"):
            return self._tree("}")
        if self._takes("["):
            return self._list()
        text = _Text()
        while (piece := self._piece()) is not None:
            text.append(piece)
        if not text:
            raise self._error("a value is missing")
        return text

    def _piece(self) -> str | _Reference | None:
        if (long := _LONG.match(self._text, self._at)) is not None:
            self._at = long.end()
            return long[1]
        if (quoted := self._match(_QUOTED)) is not None:
            self._skip(_BLANK)
            return self._unquoted(quoted)
        if (variable := _VARIABLE.match(self._text, self._at)) is not None:
            self._at = variable.end()
            self._skip(_BLANK)
            return _Reference(variable[2].strip(), bool(variable[1]))
        return self._match(_PLAIN)

    def _unquoted(self, text: str) -> str:
        try:
            return str(json.loads(text))
        except ValueError:
            raise self._error("a text contains an invalid escape") from None

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _takes(self, text: str) -> bool:
        taken = self._peek(text)
        self._at += len(text) * taken
        return taken

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[0]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._match(pattern)

    def _error(self, why: str) -> ConfigurationError:
        line = self._text.count("\n", 0, self._at) + 1
        return ConfigurationError(f"line {line} of {self._name} cannot be read: {why}")


def _put(tree: _Tree, path: list[str], value: Any, *, adds: bool = False) -> None:
    """Put a value at a path; merge it if both are trees, else replace the earlier value."""
    *above, name = path
    for part in above:
        below = tree.get(part)
        if not isinstance(below, dict):
            below = tree[part] = {}
        tree = below
    known = tree.get(name)
    if isinstance(known, dict) and isinstance(value, dict):
        for key, item in value.items():
            _put(known, [key], item)
    elif adds:
        tree[name] = [*(known if isinstance(known, list) else ()), value]
    else:
        tree[name] = value
