"""Plain values of whatever was given: what JSON and every tracker can hold."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Iterator, Mapping, Set
from enum import Enum
from typing import Any, Final

_SECRET_KEY: Final = re.compile(
    r"((^|[_.\-])(token|(api|access|private|secret)[_\-]?key)|password|passphrase|secret)$",
    re.IGNORECASE,
)

_USERINFO: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_INTEGERS: Final = range(-(2**63), 2**64)
"""What MessagePack can hold; an integer outside it becomes a string."""


def is_scalar(value: object) -> bool:
    """
    Tell whether a value is one real number.

    Booleans are, and numpy's scalars of any width and its 0-d arrays (recognised by their `dtype`;
    numpy is not imported). Strings of digits are not, nor are tensors of torch, which are staged
    before a tracker sees them.
    """
    if isinstance(value, numbers.Real):
        return True
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind in ("b", "i", "u", "f") and getattr(value, "shape", None) == ()


def flatten(mapping: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """
    Return a mapping without nested mappings: `{"a": {"b": 1}}` as `{"a.b": 1}`.

    An empty nested mapping stays as a value, so that its name is not lost; lists are values. Where
    two names become the same one, the later value wins.
    """
    return dict(_leaves(mapping, "", separator))


def _leaves(mapping: Mapping[str, Any], prefix: str, separator: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, name + separator, separator)
        else:
            yield name, value


def clean(value: Any) -> Any:
    """
    Return any nested configuration as plain data that strict JSON can hold, with secrets masked.

    Enums become their values, sets sorted lists, paths and dtypes strings, dataclasses and objects
    with `to_dict` mappings, classes and functions their names, NaN and infinity the strings "NaN",
    "Infinity" and "-Infinity", and anything else its `str`. A value whose key names a credential
    (it ends in `_token`, `_api_key`, `password`, `secret` or the like) becomes `<KEY_IN_UPPER>`,
    whether it was set or not; user names and passwords in URLs become `<USERINFO>`.
    """
    return _clean(value, ())


def _clean(value: Any, path: tuple[int, ...]) -> Any:
    """Clean one value; `path` holds the ids of the containers around it, to stop at a cycle."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _clean(value.value, path)
    if isinstance(value, str):
        return _clean_text(value)
    if is_scalar(value):
        return _clean_number(value)
    if id(value) in path:
        return "<CYCLE>"
    return _clean_container(value, (*path, id(value)))


def _clean_container(value: Any, path: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {_clean_key(key): _clean_item(key, item, path) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, path) for item in value]
    if isinstance(value, Set):
        return sorted((_clean(item, path) for item in value), key=str)
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return _clean_text(f"{value.__module__}.{value.__qualname__}")
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _clean_container(fields, path)
    if callable(getattr(value, "to_dict", None)):
        return _clean(value.to_dict(), path)
    return _clean_text(os.fspath(value) if isinstance(value, os.PathLike) else str(value))


def _clean_key(key: Any) -> str:
    return _clean_text(str(key.value if isinstance(key, Enum) else key))


def _clean_item(key: Any, item: Any, path: tuple[int, ...]) -> Any:
    name = _clean_key(key)
    return f"<{name.upper()}>" if _SECRET_KEY.search(name) else _clean(item, path)


def _clean_number(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, bool):
        return plain
    if isinstance(plain, int):
        return int(plain) if plain in _INTEGERS else str(plain)
    number = float(plain)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _clean_text(text: str | bytes) -> str:
    plain = os.fsdecode(text) if isinstance(text, bytes) else str(text)
    encodable = plain.encode("utf-8", "backslashreplace").decode("utf-8")
    return _USERINFO.sub("<USERINFO>@", encodable)
