"""
Decide when to send updates to DVC Studio, and react to its refusals.

Promises: rows are written to the tables first and read from there, so an outage costs no memory.
Acknowledged rows are not sent again, as far as the cursor records them. If Studio is unreachable,
the caller is held up a few times, and then not until the end. If Studio refuses the experiment,
nothing more is sent. If it refuses a request, only that request is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from anyio import to_thread

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.trackers.dvclive.api import MOST_PLOTS, Studio, next_rows
from asynccb.trackers.dvclive.folder import DVCLiveFolder
from asynccb.trackers.shared.answers import Reject

logger = logging.getLogger("asynccb")

_PATIENCE: Final = 3
"""Number of consecutive failures that may hold up the files."""
_PAUSE: Final = 30.0
"""Seconds between two later attempts."""


class Updates:
    """The updates that keep Studio in step with the directory."""

    def __init__(
        self, folder: DVCLiveFolder, opened: Callable[[], Awaitable[Studio]], reject: Reject
    ) -> None:
        """Call `opened`, often if necessary, to get Studio after the experiment's `start`."""
        self._folder = folder
        self._opened = opened
        self._reject = reject
        self._lacks = False
        self._refuses = False
        self._misses = 0  # in a row
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether Studio lacks an update that may be sent now."""
        return self._lacks and not self._refuses and time.monotonic() >= self._next

    def note(self) -> None:
        """Note that the files have changed."""
        self._lacks = True

    async def send(self, step: int, params: Mapping[str, Any] | None) -> None:
        """Send the update if it is due; raise `TransientError` for the first few failures."""
        if not self.due:
            return
        try:
            await self._unless_refused(lambda: self._send_all(step, params))
        except TransientError as error:
            self._misses += 1
            if self._misses <= _PATIENCE:
                raise
            if self._misses == _PATIENCE + 1:
                logger.warning(
                    "DVC Studio gets no updates for now; the files are still written: %s", error
                )
            self._next = time.monotonic() + _PAUSE
        else:
            self._misses = 0

    async def end(
        self, step: int, params: Mapping[str, Any] | None, revision: str | None, *, done: bool
    ) -> None:
        """Send a missing update, and the end if `done`; raise if Studio is unreachable."""

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
            self._reject(
                "updates to DVC Studio", f"{error}; the files are still written", cause="Studio"
            )

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
        """Send one request; if it is refused, count and skip it."""
        try:
            await call()
        except RejectedError as error:
            self._reject(f"{what} to DVC Studio", str(error), cause=f"Studio {error.cause}")

    def _leave_out(self, name: str) -> None:
        table = self._folder.tables.known[name]
        if table.sent == 0:
            why = f"it shows only {MOST_PLOTS} plots; the files contain this plot"
            self._reject(f"the plot {name} to DVC Studio", why, cause="plots")
            table.sent = table.offset
