"""
The form of a log of tensors: the order of its values in the slots, and the launches to copy them.

Promises: a form is computed once for all similar logs of a run. Recognizing a similar log costs a
few tenths of a microsecond a tensor.
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

LARGEST: Final = COUNT // 2
"""Most slots that one log may use."""

_ONLY_TENSORS: Final = {torch.Tensor}
_PLAIN: Final = {float, str, bool, type(None)}
_LARGE: Final = 1 << 63
_look = attrgetter("__class__", "dtype", "ndim", "requires_grad", "device")


class Group(NamedTuple):
    """The tensors of a log that one launch copies: all of one device and one dtype."""

    device: int
    floating: bool
    """Whether their slots hold floats."""
    begin: int
    """Index of the first among the log's tensors, and among its slots: each tensor uses one."""
    end: int


class Form:
    """The form of similar logs: their numbers by device and dtype, then their rows."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> None:
        """Take a log's tensors, which are 0-d or short and 1-d, and all of its names in order."""
        numbers = sorted(
            (key for key, tensor in tensors.items() if not tensor.ndim),
            key=lambda key: (tensors[key].get_device(), str(tensors[key].dtype)),
        )
        rows = [key for key, tensor in tensors.items() if tensor.ndim]
        self.layout = Layout({key: _part(tensors[key]) for key in (*numbers, *rows)})
        if self.layout.count > LARGEST:
            raise ConfigurationError(
                f"a log has {self.layout.count} values on the device; the limit is {LARGEST}"
            )
        self.groups = _groups([tensors[key] for key in numbers])
        self.rows = len(rows)
        """Number of tensors that are rows; they come last."""
        taken = [tensors[key] for key in self.layout.keys]
        self.requires_grad = any(tensor.requires_grad for tensor in taken)
        """Whether a tensor is part of an autograd graph, which the copy must stay out of."""
        self._pick = itemgetter(*self.layout.keys)
        self.other_names = tuple(name for name in names if name not in tensors)
        """Names of the values that are not tensors."""
        self._looks = list(map(_look, taken))
        self.recurs = not rows and set(map(type, taken)) == _ONLY_TENSORS
        """Whether `take` can recognize logs of this form."""

    def pick(self, values: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        """Return the tensors of a log in the order of the slots."""
        tensors: Any = self._pick(values)
        return tensors if len(self._looks) > 1 else (tensors,)

    def take(self, values: Mapping[str, Any]) -> tuple[torch.Tensor, ...] | None:
        """Return the tensors of a log with these names, like `pick`; None if the form differs."""
        tensors: Any = self._pick(values)
        if len(self._looks) == 1:
            tensors = (tensors,)
        try:
            if [*map(_look, tensors)] != self._looks:
                return None
        except AttributeError:  # one of them is not a tensor
            return None
        for name in self.other_names:
            value = values[name]
            if type(value) not in _PLAIN and not (type(value) is int and abs(value) < _LARGE):
                return None
        return tensors  # type: ignore[no-any-return]


def kind_of(dtype: torch.dtype) -> Kind:
    """Return the kind of slot that holds values of a dtype."""
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
