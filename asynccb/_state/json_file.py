"""
The state of a run as a file, `trainer_state.json`.

Promises: a file contains strict JSON, and is written completely or not at all. Reading it returns
the same numbers, NaN and infinity included. A value that JSON cannot store causes a warning, but
the checkpoint is written. Files that transformers wrote can be read unchanged.

A number that is not finite is written as `{"$float": "NaN"}` (or `"Infinity"`, `"-Infinity"`).
"""

from __future__ import annotations

import json
import logging
import math
import os
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from asynccb._ground.exceptions import StateFileError
from asynccb._ground.types import Dataclass

State = TypeVar("State", bound=Dataclass)

logger = logging.getLogger("asynccb")

_FLOAT: Final = "$float"
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def save_state(
    state: Dataclass, path: str | os.PathLike[str], *, leave_out: Collection[str] = ()
) -> None:
    """
    Write the state, without the fields of `leave_out`.

    Even after a power loss, a reader sees the whole old file or the new one.
    """
    odd: set[str] = set()
    names = [f.name for f in fields(state) if f.name not in leave_out]
    tree = {name: _encode(getattr(state, name), name, odd) for name in names}
    if odd:
        logger.warning(
            "%s: JSON cannot store the values of %s; they are saved as text",
            path,
            ", ".join(sorted(odd)),
        )
    text = json.dumps(tree, indent=2, sort_keys=True, allow_nan=False)
    replace_file(Path(path), f"{text}\n".encode())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file; even after a power loss, a reader sees the whole old file or the new one."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _encode(value: object, key: str, odd: set[str]) -> Any:
    """Return the value for strict JSON; add the key to `odd` if its value became text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: _name_of(value)}
    if isinstance(value, Mapping):
        return {_encode_key(k, key, odd): _encode(v, str(k), odd) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_encode(item, key, odd) for item in value]
    number = _number_in(value)
    if number is not None:
        return _encode(number, key, odd)
    odd.add(key)
    return str(value)


def _encode_key(key: object, parent: str, odd: set[str]) -> str:
    if not isinstance(key, str):
        odd.add(parent)
    return str(key)


def _name_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _number_in(value: Any) -> bool | int | float | None:
    """Return the number in a numpy scalar or a 0-d tensor in CPU memory; None for other values."""
    if getattr(value, "ndim", None) != 0 or not callable(getattr(value, "item", None)):
        return None
    device = getattr(value, "device", "cpu")
    if getattr(device, "type", device) != "cpu":
        return None
    number = value.item()
    return number if isinstance(number, bool | int | float) else None


def load_state(cls: type[State], path: str | os.PathLike[str]) -> State:
    """Read a state; leave out keys for which `cls` has no field, with a warning."""
    tree = _read_object(Path(path))
    names = {f.name for f in fields(cls)}
    unknown = sorted(tree.keys() - names)
    if unknown:
        logger.warning("%s: unknown keys are left out: %s", path, ", ".join(unknown))
    known = {name: value for name, value in tree.items() if name in names}
    for name, kinds in _field_kinds(cls).items():
        if name in known and not _is_of_kind(known[name], kinds):
            expected = " or ".join("null" if k is types.NoneType else k.__name__ for k in kinds)
            raise StateFileError(f"{path}: {name} is {known[name]!r:.100}, not {expected}")
    _check_history(known.get("log_history"), path)
    return cls(**known)


def _read_object(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        # The parser itself reads the bare NaN and Infinity that transformers writes.
        tree = json.loads(data.decode(), object_hook=_decode)
    except (ValueError, RecursionError) as error:
        raise StateFileError(f"{path} is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise StateFileError(
            f"{path} contains {tree!r:.100}, not a JSON object: it is not a saved state"
        )
    return tree


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() == {_FLOAT} and (name := value[_FLOAT]) in _NOT_FINITE:
        return _NOT_FINITE[name]
    return value


def _field_kinds(cls: type[Dataclass]) -> dict[str, tuple[type, ...]]:
    """Return the types that each field accepts, from its annotation and default."""
    hints = typing.get_type_hints(cls)
    return {f.name: _kinds(hints[f.name], f.default) for f in fields(cls)}


def _kinds(hint: Any, default: object) -> tuple[type, ...]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [typing.get_origin(option) or option for option in options]
    if default is None and types.NoneType not in kinds:
        kinds.append(types.NoneType)
    return tuple(kinds)


def _is_of_kind(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return int in kinds or float in kinds
    return isinstance(value, kinds)


def _check_history(history: Any, path: str | os.PathLike[str]) -> None:
    for entry in history or ():
        if not isinstance(entry, dict):
            raise StateFileError(f"{path}: log_history has the entry {entry!r:.100}, not an object")
