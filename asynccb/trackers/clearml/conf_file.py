"""
ClearML's configuration file: the part of HOCON that such files are written in.

Promises: what it says is what the reader of `clearml` 2.1 makes of it; a mistake is named by its
line alone, since a line may hold a key. Variables are looked up where a value is asked for, so
that one that is missing harms no other. Includes are refused.
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
    """Stand for a value that is somewhere else: in the file or in the environment."""

    def __init__(self, path: str, optional: bool) -> None:
        self.path = path
        self.optional = optional


class _Text(list[str | _Reference]):
    """Hold a value as the pieces that stand beside each other."""


_Tree: TypeAlias = dict[str, Any]
"""Values are trees, lists and texts."""


class Configuration:
    """Hold what a configuration file says."""

    def __init__(self, tree: _Tree, environ: Mapping[str, str], name: str) -> None:
        self._tree = tree
        self._environ = environ
        self._name = name

    def text(self, path: str) -> str | None:
        """
        Return the text at a path such as `api.credentials.access_key`.

        None where there is none, or an empty one. Raises `ConfigurationError` for what is no text,
        and for a variable that is needed and missing.
        """
        found = self._find(path)
        if found is None:
            return None
        if not isinstance(found, _Text):
            raise ConfigurationError(f"{path} in {self._name} is no single value")
        return self._joined(found, path, ()).strip() or None

    def texts(self, path: str) -> list[str]:
        """Return the texts of the list at a path; none where there is no list."""
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
                f"{path} in {self._name} is that of ${{{reference.path}}}, which is not set"
            )
        return value or ""


def read_configuration(text: str, environ: Mapping[str, str], name: str) -> Configuration:
    """Return what a file says, whose name is for messages; raises `ConfigurationError`."""
    return Configuration(_Reader(text, name).whole(), environ, name)


class _Reader:
    """Read from the front to the back."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._at = 0

    def whole(self) -> _Tree:
        self._skip(_SPACE)
        tree = self._tree("}") if self._takes("{") else self._tree("")
        self._skip(_SPACE)
        if self._at < len(self._text):
            raise self._error("there is something behind the end")
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
        """Skip to the next entry; tell whether there is none."""
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
            raise self._error("there is no key where one must be")
        if found["plain"] == "include":
            raise self._error("it includes another file, which is not read")
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
            raise self._error("there is no value where one must be")
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
            raise self._error("a text has an escape that there is not") from None

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
    """Put a value at a path; trees at one path are one, of anything else the last counts."""
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
