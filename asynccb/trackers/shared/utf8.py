"""
Convert settings to UTF-8, which a journal requires and Linux does not guarantee.

Variables and folder names of Linux may contain any bytes. Promises: in a name, invalid bytes are
spelled out as escapes. A path with escapes would be a different path, so it is refused, with the
name of the variable that it comes from.
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
    """Return settings that can be stored; raise `ConfigurationError` for a path that cannot."""

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
    """Return the path; raise `ConfigurationError` if it is not valid UTF-8."""
    if _spelled(path) == path:
        return path
    told = (variable for variable, value in environ.items() if _is_from(path, value))
    raise ConfigurationError(
        f"{next(told, name)} gives the path {_spelled(path)!r}, which is not valid UTF-8 and "
        "cannot be stored: rename the folder, or choose another one"
    )


def _is_from(path: str, value: str) -> bool:
    """Tell whether a path's invalid bytes come from a variable; a tilde in it was expanded."""
    return _spelled(value) != value and value.strip().lstrip("~") in path


def _spelled(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
