"""
Logs of fresh tensors, written down some at a time.

Promises: between two groups a log costs the training thread a copy of its dict and no call to the
device; the records keep their order, because whatever else is written, the group goes before it. A
training that is killed loses the group, 10 ms of logs at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from asynccb.staging import Staging

Head: TypeAlias = tuple[int, int, int, float, int]
"""The fields of a record before `logs`."""


class _Log(NamedTuple):
    head: Head
    entry: dict[str, Any]
    """Of the log history: the logs with the step, still with the tensors themselves."""
    changes: dict[str, Any] | None


class LogGroup:
    """Hold the logs since the last group."""

    def __init__(self, staging: Staging, put: Callable[[tuple[Any, ...]], object]) -> None:
        """Take what stages the tensors, and what writes a record."""
        self._staging = staging
        self._put = put
        self._logs: list[_Log] = []
        self._made_on = -1

    def add(
        self, head: Head, entry: dict[str, Any], changes: dict[str, Any] | None, made_on: int
    ) -> None:
        """Take a log whose tensors were made on the stream `made_on`."""
        if made_on != self._made_on:
            self.write()
            self._made_on = made_on
        self._logs.append(_Log(head, entry, changes))

    def write(self) -> None:
        """Write the records, and put stand-ins for the tensors into the history's entries."""
        while self._logs:
            head, entry, changes = self._logs.pop(0)
            values = dict(entry)
            del values["step"]
            plain = self._staging.plain(values, made_on=self._made_on)
            entry.update(plain)
            self._staging.watch(plain, entry)
            logs = self._staging.for_record(plain)
            self._put((*head, logs) if changes is None else (*head, logs, changes))
