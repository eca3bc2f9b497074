"""
Settings that are no UTF-8, as a variable or a folder of Linux may be, and no journal can be.

Promises: names are there with what is odd in them spelled out; a path, which would then be another
one, is refused, and the variable that it is from is named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from asynccb._ground.exceptions import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def in_utf8(settings: S, environ: Mapping[str, str]) -> S:
    """Return settings that can be written down; raises `ConfigurationError` for a path."""

    def plain(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return path_in_utf8(name, value, environ) if os.path.isabs(value) else _spelled(value)
        if isinstance(value, list):
            return [plain(name, one) for one in value]
        if isinstance(value, dict):
            return {plain(name, key): plain(name, one) for key, one in value.items()}
        return value

    return replace(
        settings, **{f.name: plain(f.name, getattr(settings, f.name)) for f in fields(settings)}
    )


def path_in_utf8(name: str, path: str, environ: Mapping[str, str]) -> str:
    """Return a path that can be written down; raises `ConfigurationError` for another one."""
    if _spelled(path) == path:
        return path
    told = (variable for variable, value in environ.items() if _is_from(path, value))
    raise ConfigurationError(
        f"{next(told, name)} gives the path {_spelled(path)!r}, which is no UTF-8 and cannot be "
        "written down: rename the folder, or name another one"
    )


def _is_from(path: str, value: str) -> bool:
    """Tell whether a variable is what makes a path odd; a tilde in it was replaced."""
    return _spelled(value) != value and value.strip().lstrip("~") in path


def _spelled(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
