"""
Settings from an argument or, without one, from an environment variable; nothing is guessed.

Promises: a setting that cannot work raises `ConfigurationError` as soon as it is read. The message
contains its name, its value and the accepted values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from asynccb._ground.exceptions import ConfigurationError

Uploaded: TypeAlias = Literal["end", "checkpoint", "false"]
"""Which models a tracker stores: the final one, each checkpoint, or none."""

_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})
_FALSE: Final = frozenset({"", "0", "OFF", "NO", "FALSE"})


def switch(environ: Mapping[str, str], name: str) -> bool:
    """
    Return whether a variable is switched on; an unset or empty one is off.

    Raises `ConfigurationError` for a value that means neither on nor off; transformers reads such
    a value as off.
    """
    value = environ.get(name, "").strip().upper()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ConfigurationError(
        f"the environment variable {name} is {environ[name]!r}; it takes 1, on, yes or true, "
        "or 0, off, no or false"
    )


def expanded(path: str) -> Path:
    """
    Return the path with a leading `~` or `~user` replaced by that user's home.

    If the user is unknown, the path stays as it is; `Path.expanduser` would raise.
    """
    return Path(os.path.expanduser(path))


def folder_setting(name: str, path: str) -> str:
    """
    Return the absolute path of a folder to write to.

    Raises `ConfigurationError` with `name` if the path starts with the `~` of an unknown user.
    """
    folder = str(expanded(path))
    if folder.startswith("~"):
        raise ConfigurationError(
            f"{name} is {path!r}, and the home of that user is not known: give a path without ~"
        )
    return os.path.abspath(folder)


def text_setting(name: str, given: object, variable: str, environ: Mapping[str, str]) -> str | None:
    """
    Return the text that was given or, if that is None, the variable's.

    Returns None if the variable is unset or empty, too.
    """
    value = given if given is not None else environ.get(variable, "").strip() or None
    if value is not None and not (isinstance(value, str) and value):
        raise ConfigurationError(f"{name} is {value!r}; it takes a string that is not empty")
    return value


def switch_setting(name: str, given: object, variable: str, environ: Mapping[str, str]) -> bool:
    """Return the switch that was given or, if that is None, the variable's."""
    if given is None:
        return switch(environ, variable)
    if not isinstance(given, bool):
        raise ConfigurationError(f"{name} is {given!r}; it takes True or False")
    return given


def upload_setting(name: str, given: object, variable: str, environ: Mapping[str, str]) -> Uploaded:
    """
    Return which models are stored: the value given, else the variable's, else `"false"`.

    Raises `ConfigurationError` for any other value; transformers reads it as `"false"`.
    """
    value = given if given is not None else environ.get(variable, "").strip().lower() or "false"
    if value == "end" or value == "checkpoint" or value == "false":
        return value
    raise ConfigurationError(
        f"{name} (or {variable}) is {value!r}; it takes 'end', 'checkpoint' or 'false'"
    )
