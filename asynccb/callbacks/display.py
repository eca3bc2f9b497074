"""Logs in a form for people, once their numbers have arrived from the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from asynccb._staging.staged import Staged


def readable(logs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a copy for printing: floats with four significant digits, and no `total_flos`.

    Other values are unchanged: converting a tensor to a float would make the loop wait for the GPU.
    """
    return {name: _readable(value) for name, value in logs.items() if name != "total_flos"}


def _readable(value: Any) -> Any:
    if isinstance(value, Staged):
        value = value.value()
    return f"{value:.4g}" if isinstance(value, float) else value


class Arriving:
    """A queue of logs whose numbers may not have arrived from the device."""

    def __init__(self) -> None:
        self._logs: deque[Mapping[str, Any]] = deque()

    def add(self, logs: Mapping[str, Any]) -> None:
        """Append logs; copy them only if a number has not arrived."""
        self._logs.append(logs if _is_here(logs) else dict(logs))

    def here(self) -> Iterator[Mapping[str, Any]]:
        """
        Remove and yield the first logs, up to the first whose numbers have not all arrived.

        Never waits.
        """
        while self._logs and _is_here(self._logs[0]):
            yield self._logs.popleft()

    def all(self) -> Iterator[Mapping[str, Any]]:
        """Remove and yield all logs; reading their numbers may wait for the device."""
        while self._logs:
            yield self._logs.popleft()


def _is_here(logs: Mapping[str, Any]) -> bool:
    return all(value.landed for value in logs.values() if type(value) is Staged)
