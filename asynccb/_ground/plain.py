"""Conversion of any value to plain data that JSON and every tracker can store."""

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
_ADDRESS: Final = re.compile(r"(?<=\S) at 0x[0-9a-fA-F]+(?=[^<>]*>)")
"""The place in memory that the text of an object gives, as in `<Adam object at 0x7f…>`."""
_INTEGERS: Final = range(-(2**63), 2**64)
"""The integers that MessagePack can store; an integer outside becomes a string."""


def is_scalar(value: object) -> bool:
    """
    Return whether a value is one real number.

    Booleans count, and so do numpy's scalars of any width and its 0-d arrays. They are recognized
    by their `dtype`; numpy is not imported. Strings of digits do not count. Tensors of torch do
    not count either: they are staged before a tracker sees them.
    """
    if isinstance(value, numbers.Real):
        return True
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind in ("b", "i", "u", "f") and getattr(value, "shape", None) == ()


def flatten(mapping: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """
    Return a mapping without nested mappings: `{"a": {"b": 1}}` as `{"a.b": 1}`.

    An empty nested mapping stays as a value, so that its name is not lost. Lists are values. If
    two names become the same, the later value wins.
    """
    return dict(leaves(mapping, separator))


def leaves(
    mapping: Mapping[str, Any], separator: str, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the values of `flatten` with their names; a name may come twice."""
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, separator, name + separator)
        else:
            yield name, value


def clean(value: Any) -> Any:
    """
    Return any nested configuration as plain data that strict JSON can store, with secrets masked.

    Enums become their values, sets become sorted lists, paths and dtypes become strings.
    Dataclasses and objects with `to_dict` become mappings, classes and functions become their
    names. NaN and infinity become the strings "NaN", "Infinity" and "-Infinity". Anything else
    becomes its `str`. If a key names a credential (it ends in `_token`, `_api_key`, `password`,
    `secret` or the like), its value becomes `<KEY_IN_UPPER>`, whether it was set or not. User names
    and passwords in URLs become `<USERINFO>`. In the text of an object, as `<Adam object at
    0x7f…>`, the address is left out, since it differs from run to run.
    """
    return _clean(value, ())


def _clean(value: Any, path: tuple[int, ...]) -> Any:
    """Clean one value; `path` contains the ids of the containers around it, to stop at a cycle."""
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
        return _clean_text(_qualified_name(value))
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _clean_container(fields, path)
    if callable(getattr(value, "to_dict", None)):
        return _clean(value.to_dict(), path)
    return _clean_text(os.fspath(value) if isinstance(value, os.PathLike) else str(value))


def _qualified_name(value: Any) -> str:
    # Some functions in C have no module: `object().__repr__` lacks it, that of `[].append` is None.
    module = getattr(value, "__module__", None)
    return f"{module}.{value.__qualname__}" if module else str(value.__qualname__)


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
    return _ADDRESS.sub("", _USERINFO.sub("<USERINFO>@", encodable))
