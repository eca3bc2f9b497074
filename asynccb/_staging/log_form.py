"""
The form of a log of tensors: in which order its values lie in the slots, and what copies them.

Promises: it is worked out once for all logs of a run that are alike; telling that a log is alike
costs a few tenths of a microsecond a tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

import torch

from asynccb._ground.exceptions import ConfigurationError
from asynccb._ring.slots import COUNT, Kind, Part
from asynccb._staging.staged import Layout
from asynccb._staging.staged_logs import pack_layout

LARGEST: Final = COUNT // 2
"""Slots that one log may take."""

_ONLY_TENSORS: Final = {torch.Tensor}
_PLAIN: Final = {float, str, bool, type(None)}
_LARGE: Final = 1 << 63
_look = attrgetter("__class__", "dtype", "ndim", "requires_grad", "device")


class Group(NamedTuple):
    """Say which tensors of a log one launch copies: those of one device and one dtype."""

    device: int
    floating: bool
    """Whether their slots hold floats."""
    begin: int
    """Place of the first one among the log's tensors and, as each takes one, its slots."""
    end: int


class Form:
    """Hold the form of one log: its numbers by device and dtype, then its rows."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> None:
        """Take the tensors of a log, 0-d or short 1-d ones, and all its names in order."""
        numbers = sorted(
            (key for key, tensor in tensors.items() if not tensor.ndim),
            key=lambda key: (tensors[key].get_device(), str(tensors[key].dtype)),
        )
        rows = [key for key, tensor in tensors.items() if tensor.ndim]
        self.layout = Layout({key: _part(tensors[key]) for key in (*numbers, *rows)})
        if self.layout.count > LARGEST:
            raise ConfigurationError(
                f"one log holds {self.layout.count} values of the device; at most {LARGEST} go"
            )
        self.groups = _groups([tensors[key] for key in numbers])
        self.rows = len(rows)
        """How many of the tensors, the last ones, are rows."""
        taken = [tensors[key] for key in self.layout.keys]
        self.requires_grad = any(tensor.requires_grad for tensor in taken)
        """Whether a tensor is part of a graph that the copy must not become a part of."""
        self._pick = itemgetter(*self.layout.keys)
        self.names = tuple(names)
        self.packed = pack_layout(names, self.layout)
        """The layout, with all names in order, as records have it."""
        self.number: int | None = None
        """That of `packed` in the table that the companion reads, 0 without one; None before it was
        asked for."""
        self.other_names = tuple(name for name in names if name not in tensors)
        """Names of the values that are no tensors."""
        self._looks = list(map(_look, taken))
        self.recurs = not rows and set(map(type, taken)) == _ONLY_TENSORS
        """Whether `take` can tell logs of this form."""

    def pick(self, values: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        """Return the tensors of a log in the order of the slots."""
        tensors: Any = self._pick(values)
        return tensors if len(self._looks) > 1 else (tensors,)

    def others(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a log that are no tensors."""
        return {name: values[name] for name in self.other_names}

    def take(self, values: Mapping[str, Any]) -> tuple[torch.Tensor, ...] | None:
        """Do as `pick` for a log with these names; return None where it has not this form."""
        tensors: Any = self._pick(values)
        if len(self._looks) == 1:
            tensors = (tensors,)
        try:
            if [*map(_look, tensors)] != self._looks:
                return None
        except AttributeError:  # one of them is no tensor
            return None
        for name in self.other_names:
            value = values[name]
            if type(value) not in _PLAIN and not (type(value) is int and abs(value) < _LARGE):
                return None
        return tensors  # type: ignore[no-any-return]


def kind_of(dtype: torch.dtype) -> Kind:
    """Return how slots hold values of a dtype."""
    if dtype.is_floating_point:
        return Kind.FLOAT
    return Kind.BOOLEAN if dtype == torch.bool else Kind.INTEGER


def _part(tensor: torch.Tensor) -> Part:
    size = tensor.numel() if tensor.ndim else 1
    return Part(kind_of(tensor.dtype), size if size > 1 else 0)


def _groups(numbers: Sequence[torch.Tensor]) -> list[Group]:
    groups: list[Group] = []
    alike = itertools.groupby(numbers, lambda tensor: (tensor.get_device(), tensor.dtype))
    for (device, dtype), members in alike:
        begin = groups[-1].end if groups else 0
        end = begin + len(list(members))
        groups.append(Group(device, kind_of(dtype) == Kind.FLOAT, begin, end))
    return groups
