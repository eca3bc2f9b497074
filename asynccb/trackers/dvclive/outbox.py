"""
When DVC Studio is told, and what becomes of what it does not take.

Promises: rows are read from the tables, which are there before Studio hears of them, so that an
outage costs no memory; those that it has acknowledged are not sent again, as far as the cursor
knows. A Studio that is away holds its caller up a few times, and then no more until the end; one
that refuses the experiment gets nothing more, and one that refuses a request loses that one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from anyio import to_thread

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.trackers.dvclive.api import MOST_PLOTS, Studio, next_rows
from asynccb.trackers.dvclive.folder import DVCLiveFolder

logger = logging.getLogger("asynccb")

_PATIENCE: Final = 3
"""Failures in a row that hold the files up."""
_PAUSE: Final = 30.0
"""Seconds between two attempts after that."""


class _Reject(Protocol):
    def __call__(self, what: str, why: str, *, cause: str | None = None) -> None: ...


class Updates:
    """Keep Studio up to date with the directory."""

    def __init__(
        self, folder: DVCLiveFolder, opened: Callable[[], Awaitable[Studio]], reject: _Reject
    ) -> None:
        """Take what returns Studio once it knows of the experiment; may be called often."""
        self._folder = folder
        self._opened = opened
        self._reject = reject
        self._lacks = False
        self._refuses = False
        self._misses = 0  # in a row
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether there is something that Studio lacks, and may get now."""
        return self._lacks and not self._refuses and time.monotonic() >= self._next

    def note(self) -> None:
        """Take it that the files have changed."""
        self._lacks = True

    async def send(self, step: int, params: Mapping[str, Any] | None) -> None:
        """Send what it lacks, if that is due; raises `TransientError` the first few times."""
        if not self.due:
            return
        try:
            await self._unless_refused(lambda: self._send_all(step, params))
        except TransientError as error:
            self._misses += 1
            if self._misses <= _PATIENCE:
                raise
            if self._misses == _PATIENCE + 1:
                logger.warning("DVC Studio is left alone for now, and the files go on: %s", error)
            self._next = time.monotonic() + _PAUSE
        else:
            self._misses = 0

    async def end(
        self, step: int, params: Mapping[str, Any] | None, revision: str | None, *, done: bool
    ) -> None:
        """Send what it lacks, and `done` where that is wanted; raises while it is away."""

        async def all_of_it() -> None:
            if self._lacks:
                await self._send_all(step, params)
            if done:
                studio = await self._opened()
                await self._taken(partial(studio.end, revision), "the end")

        await self._unless_refused(all_of_it)

    async def _unless_refused(self, call: Callable[[], Awaitable[None]]) -> None:
        if self._refuses:
            return
        try:
            await call()
        except (AccessError, RejectedError) as error:
            self._refuses = True
            self._reject("updates to DVC Studio", f"{error}; the files go on", cause="Studio")

    async def _send_all(self, step: int, params: Mapping[str, Any] | None) -> None:
        studio = await self._opened()
        latest = await to_thread.run_sync(self._folder.latest)
        await self._taken(partial(studio.sum_up, step, latest, params), "the last values")
        tables = self._folder.tables
        while True:
            rows, ends = await to_thread.run_sync(next_rows, tables)
            if rows:
                await self._taken(partial(studio.add_rows, step, rows), "rows of tables")
            for name, end in ends.items():
                tables.known[name].sent = end
            if not ends:
                break
        for name in list(tables.known)[MOST_PLOTS:]:
            self._leave_out(name)
        self._lacks = False

    async def _taken(self, call: Callable[[], Awaitable[None]], what: str) -> None:
        """Send one request; one that is refused is counted, and passed over."""
        try:
            await call()
        except RejectedError as error:
            self._reject(f"{what} to DVC Studio", str(error), cause=f"Studio {error.cause}")

    def _leave_out(self, name: str) -> None:
        table = self._folder.tables.known[name]
        if table.sent == 0:
            why = f"it shows {MOST_PLOTS} plots, and this is one more; the files have it"
            self._reject(f"the plot {name} to DVC Studio", why, cause="plots")
            table.sent = table.offset
