"""How logs are shown to a person."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from asynccb._staging.staged import Staged


def readable(logs: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a copy for printing: floats with four significant digits, `total_flos` left out.

    All else stays as it is: to turn a tensor into a float would make the loop wait for the GPU.
    """
    return {name: _readable(value) for name, value in logs.items() if name != "total_flos"}


def _readable(value: Any) -> Any:
    if isinstance(value, Staged):
        value = value.value()
    return f"{value:.4g}" if isinstance(value, float) else value


class Arriving:
    """Keep logs back, in order, until the numbers in them have come from the device."""

    def __init__(self) -> None:
        self._logs: deque[Mapping[str, Any]] = deque()

    def add(self, logs: Mapping[str, Any]) -> None:
        """Take logs; they are copied only if a number is missing."""
        self._logs.append(logs if _is_here(logs) else dict(logs))

    def here(self) -> Iterator[Mapping[str, Any]]:
        """Yield, once, the logs whose numbers are here; waits for nothing."""
        while self._logs and _is_here(self._logs[0]):
            yield self._logs.popleft()

    def all(self) -> Iterator[Mapping[str, Any]]:
        """Yield all logs that are left; reading their numbers may wait for the device."""
        while self._logs:
            yield self._logs.popleft()


def _is_here(logs: Mapping[str, Any]) -> bool:
    return all(value.landed for value in logs.values() if type(value) is Staged)
