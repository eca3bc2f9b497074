"""Frozen copies of the state, and the fields that changed from one copy to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from operator import is_not
from typing import Any, NoReturn, overload

from asynccb._compiled.shared import Shared
from asynccb._ground.exceptions import FrozenError
from asynccb._state.log_history import without_late
from asynccb._state.trainer_state import SLOW_FIELDS, TrainerState, _read_slow_fields


class HistoryView(Sequence[dict[str, Any]]):
    """A view of the first `length` entries of a history that only grows, without a copy."""

    __slots__ = ("_entries", "_length")

    def __init__(self, entries: Sequence[dict[str, Any]], length: int) -> None:
        self._entries = entries
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._entries[i] for i in range(self._length))

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self._entries[i] for i in range(*index.indices(self._length))]
        return self._entries[range(self._length)[index]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | HistoryView) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # a list, to which it may be equal, has no hash

    def __repr__(self) -> str:
        return f"<log history of {self._length} entries>"


class StateSnapshot(TrainerState):
    """
    The state that an async hook sees: the values as they were when the event was emitted.

    Writing to it raises `FrozenError`; `log_history` is a read-only sequence.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__ = values

    def __setattr__(self, name: str, value: object) -> None:
        if name == "__dict__":
            object.__setattr__(self, name, value)
        else:
            self._refuse(name)

    def __delattr__(self, name: str) -> None:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise FrozenError(
            f"state.{name} cannot be written in an async hook: the state there is a snapshot of "
            f"step {self.global_step}; set an attribute of the callback instead"
        )


def snapshot(state: TrainerState) -> StateSnapshot:
    """Return a frozen copy of the state as it is now; copies twenty references."""
    history = state.log_history
    values = without_late(state.__dict__)
    values["log_history"] = HistoryView(history, len(history))
    return StateSnapshot(values)


class ChangeTracker:
    """
    Finds the fields that changed since the last call; costs two tuple operations if none did.

    A change inside a container is not noticed; replace the container instead.
    """

    def __init__(self, shared: Shared) -> None:
        """Keep the last values in `shared.seen`, where `KnownLogs` looks at them."""
        self._shared = shared
        self.forget()

    def forget(self) -> None:
        """Have the next call return all fields."""
        self._shared.seen = ()

    def changes(self, state: TrainerState) -> dict[str, Any] | None:
        """Return the changed fields, or None; the first call returns all of them."""
        now = _read_slow_fields(state)
        last = self._shared.seen
        self._shared.seen = now  # also if they are equal: `KnownLogs` looks for the same objects
        if now == last:
            return None
        values = zip(SLOW_FIELDS, now, strict=True)
        # With transformers a field changes at every log. A field that was set to an equal value is
        # sent needlessly, which costs less than comparing all fields by value.
        return dict(compress(values, map(is_not, now, last)) if last else values)
