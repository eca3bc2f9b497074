"""
Settings that are given, or else read from environment variables, without guessing.

Promises: what cannot work is refused where it was given, with its value and what would do.
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
    Tell whether a variable is switched on; unset and empty are off.

    Raises `ConfigurationError` for a value that is neither; transformers takes it as off.
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
    Return where a path leads, with the home of a user for a tilde.

    One of a user who is not known, with which `Path.expanduser` fails, leads nowhere.
    """
    return Path(os.path.expanduser(path))


def folder_setting(name: str, path: str) -> str:
    """Return the absolute path of a folder to write to; `name` is said where there can be none."""
    folder = str(expanded(path))
    if folder.startswith("~"):
        raise ConfigurationError(
            f"{name} is {path!r}, and the home of that user is not known: give it without a ~"
        )
    return os.path.abspath(folder)


def text_setting(name: str, given: object, variable: str, environ: Mapping[str, str]) -> str | None:
    """Return a text: what was given, or the variable; None where both are missing or empty."""
    value = given if given is not None else environ.get(variable, "").strip() or None
    if value is not None and not (isinstance(value, str) and value):
        raise ConfigurationError(f"{name} is {value!r}; it takes a string that is not empty")
    return value


def switch_setting(name: str, given: object, variable: str, environ: Mapping[str, str]) -> bool:
    """Return a switch: what was given, or the variable."""
    if given is None:
        return switch(environ, variable)
    if not isinstance(given, bool):
        raise ConfigurationError(f"{name} is {given!r}; it takes True or False")
    return given


def upload_setting(name: str, given: object, variable: str, environ: Mapping[str, str]) -> Uploaded:
    """
    Return which models are stored; `"false"` where nothing is said.

    Raises `ConfigurationError` for another value; transformers takes it as `"false"`.
    """
    value = given if given is not None else environ.get(variable, "").strip().lower() or "false"
    if value == "end" or value == "checkpoint" or value == "false":
        return value
    raise ConfigurationError(
        f"{name} (or {variable}) is {value!r}; it takes 'end', 'checkpoint' or 'false'"
    )
