"""
The log history, including entries whose numbers have not arrived from the device.

Promises: `state.log_history` always contains every entry, in order. If an entry's numbers have not
arrived, it contains stand-ins, which are replaced in place when the numbers arrive. If nobody reads
an entry before then, no stand-ins are made. Compiled code (`_compiled/hot.c`) appends such entries
to the attribute `_late`.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias, overload

from asynccb._staging.staged import StagedLog

History: TypeAlias = list[dict[str, Any]]
LateEntry: TypeAlias = tuple[StagedLog, tuple[str, ...], dict[str, Any] | None, int]
"""A log whose numbers have not arrived, its names in order, its other values, and the step."""

_LATE = "_late"
_FIELD = "log_history"


class LogHistory:
    """The descriptor of a state's attribute `log_history`; assigning None makes an empty list."""

    @overload
    def __get__(self, state: None, owner: type) -> None: ...
    @overload
    def __get__(self, state: object, owner: type) -> History: ...
    def __get__(self, state: object | None, owner: type) -> History | None:
        if state is None:
            return None  # the field's default
        values = state.__dict__
        history: History = values[_FIELD]
        if late := values.get(_LATE):
            while late:
                history.append(_make_entry(*late.popleft()))
        return history

    def __set__(self, state: object, entries: History | None) -> None:
        state.__dict__[_FIELD] = [] if entries is None else entries
        state.__dict__.pop(_LATE, None)


def take_in(state: object) -> None:
    """Move the entries whose numbers have arrived into the list, where a read costs nothing."""
    values = state.__dict__
    late: deque[LateEntry] | None = values.get(_LATE)
    while late and late[0][0].values is not None:
        values[_FIELD].append(_make_entry(*late.popleft()))


def without_late(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a state's attributes without the queue of entries not yet in the list."""
    return {name: value for name, value in values.items() if name != _LATE}


def _make_entry(
    log: StagedLog, names: tuple[str, ...], others: dict[str, Any] | None, step: int
) -> dict[str, Any]:
    entry = dict.fromkeys(names)
    values = log.values
    entry.update(zip(log.layout.keys, values or log.stand_ins(), strict=True))
    if others is not None:
        entry.update(others)
    entry["step"] = step
    if values is None:
        log.watch(entry)
    return entry
