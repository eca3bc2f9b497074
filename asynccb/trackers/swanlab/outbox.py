"""
A run on a SwanLab server: it is found or made, and receives the queued rows.

Promises: a run is made once. A column is declared before its first number. A queued row stays until
it is acknowledged; refused rows are set aside one by one. The vendor's client drops a batch for any
4xx, 429 among them; a batch here waits as long as it takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import anyio.to_thread
from msgspec.structs import replace

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb._ground.types import RunStatus
from asynccb.delivery.client import Client
from asynccb.delivery.queue import Queue, Refuse, json_size
from asynccb.trackers.shared.answers import Reject
from asynccb.trackers.shared.system_metrics import SystemSampler
from asynccb.trackers.swanlab.access import HINT, STATUSES, VERSION, Login
from asynccb.trackers.swanlab.api import COLUMNS, Experiment, Place, Summary, SwanLabServer
from asynccb.trackers.swanlab.run import STATES, SwanLabRun
from asynccb.trackers.swanlab.settings import SwanLabSettings
from asynccb.trackers.swanlab.values import Line, Row, lines_of, moment, row, sample_key

logger = logging.getLogger("asynccb")

ROWS: Final = 10_000
BEAT: Final = 600.0
"""Seconds between two heartbeats, as the vendor's client has it."""
SIZE: Final = 4 << 20
"""Rows and bytes of one request: the vendor's rows, of which 10,000 with short keys are 1 MiB."""


class Cloud:
    """The rows for a run's server, and their sender."""

    def __init__(self, settings: SwanLabSettings, run: SwanLabRun) -> None:
        self._settings = settings
        self._run = run
        self._rows = Queue[Row](ROWS, size=SIZE, measure=json_size, repeatable=True)
        self._lines = Queue[Line](ROWS, size=SIZE, measure=json_size, repeatable=True)
        """Their numbers continue the numbers of earlier lines."""
        self._said = 0
        """Lines so far that are ours."""
        self._sampler: SystemSampler | None = None
        self._samples = 0
        self._beaten = 0.0
        """Monotonic seconds at the last heartbeat."""
        self._new: dict[str, None] = {}
        """Columns to be declared, in the order in which they came."""
        self._declared: set[str] = set()
        self._login: Login | None = None
        self._server: SwanLabServer | None = None
        self.place: Place | None = None
        """The run's place, once it is there."""
        self.known = False
        """Whether it was there in an earlier process, so that it is not made a second time."""
        self.lines: int | None = None
        """Lines of the console that were there before ours."""
        self._changed = True
        """Whether the configuration is to be sent."""
        self._explained = False
        """Whether the server was told why the run has ended."""

    def __bool__(self) -> bool:
        return bool(self._rows) or bool(self._lines)

    def describe(self) -> None:
        """Send the run's description with the next rows."""
        self._changed = True

    def add(self, rows: Iterable[Row]) -> None:
        """Queue rows."""
        taken = list(rows)
        self._rows.extend(taken)
        self._new.update(dict.fromkeys(r.key for r in taken if r.key not in self._declared))

    def say(self, told: Sequence[tuple[bool, int, str]]) -> None:
        """Queue lines of the console."""
        self._lines.extend(lines_of(told, self._said + 1))
        self._said += len(told)

    # -- the run -----------------------------------------------------------------------------------

    def connect(self) -> Client:
        """Look up the key and return the client."""
        login = self._login = Login(self._settings.api_host)
        base = f"{self._settings.api_host}/api"
        return Client(base, headers=VERSION, hint=HINT, statuses=STATUSES, renew=login.headers)

    async def begin(self, client: Client) -> Place:
        """Find or make project and run; raise `AccessError` if the run must exist and does not."""
        await self._renew(client)
        assert self._login is not None  # or the client is missing
        server = self._server = SwanLabServer(client)
        settings, run = self._settings, self._run
        project = await server.project(
            settings.workspace or self._login.username, settings.project, public=settings.public
        )
        owner, name = project.group.username, project.name
        must = self.known or settings.resume == "must"
        if must and await server.run(owner, name, run.id) is None:
            why = "is gone" if self.known else "is not there, and resume is 'must'"
            raise AccessError(f"the SwanLab run {owner}/{name}/{run.id} {why}")
        made, was_there = await server.open_run(owner, name, run.about())
        self.place = Place(
            owner,
            name,
            project.cuid,
            made.cuid,
            project.version is not None,
            f"{project.path or f'/{owner}/{name}'}/runs/{made.slug or made.cuid}",
        )
        summary = await self._summary(server, made) if was_there else Summary()
        self._declared |= summary.keys
        if self.lines is None:
            self.lines = summary.lines
        self._samples = summary.samples
        await self._beat(server, self.place)
        self.known = True
        return self.place

    async def _summary(self, server: SwanLabServer, made: Experiment) -> Summary:
        """Return how far a run has come that was there before."""
        assert self.place is not None
        created = made.created_at
        if created is None:
            again = await server.run(self.place.username, self.place.project, made.cuid)
            created = again.created_at if again is not None else None
        try:
            return await server.summary(self.place, _seconds(created))
        except RejectedError:
            return Summary()  # columns are declared once more, which changes nothing

    # -- sending -----------------------------------------------------------------------------------

    async def send(self, client: Client, refuse: Refuse[Row], reject: Reject) -> None:
        """Send the whole queue; `reject` is called for refused values that are not rows."""
        server, place = await self.reached(client)
        if self._changed:
            for name, part in (("metadata", self._run.metadata()), ("config", self._run.config())):
                try:
                    await server.put_profile(place, **{name: part})
                except RejectedError as error:
                    reject(f"the {name}", str(error), cause=error.cause, record=part)
            self._changed = False
        await self._declare(server, place, reject)

        async def post(rows: Sequence[Row]) -> None:
            await server.store(place, "scalar", rows)

        async def verify() -> None:
            if await server.run(place.username, place.project, self._run.id) is None:
                raise AccessError("the SwanLab run is gone: it was deleted while it was logged to")

        await self._rows.send(post, refuse, verify)

        async def print_(lines: Sequence[Line]) -> None:
            first = self.lines or 0
            await server.store(place, "log", [replace(o, epoch=o.epoch + first) for o in lines])

        def refuse_line(line: Line, error: RejectedError) -> None:
            reject("a line of the console", str(error), cause=error.cause, record=line)

        await self._lines.send(print_, refuse_line, verify)

    async def _declare(self, server: SwanLabServer, place: Place, reject: Reject) -> None:
        keys = [key for key in self._new if key not in self._declared]
        for first in range(0, len(keys), COLUMNS):
            some = keys[first : first + COLUMNS]
            try:
                await server.declare(place, some)
            except RejectedError:
                await self._declare_each(server, place, some, reject)
            self._declared.update(some)
        self._new.clear()

    async def _declare_each(
        self, server: SwanLabServer, place: Place, keys: Sequence[str], reject: Reject
    ) -> None:
        """Declare columns one by one after the server refused some; it may still accept rows."""
        for key in keys:
            try:
                await server.declare(place, [key])
            except RejectedError as error:
                reject(f"the column {key!r}", str(error), cause=error.cause)

    async def beat(self, client: Client) -> None:
        """Send a heartbeat, if the last one was long ago."""
        server, place = await self.reached(client)
        if time.monotonic() - self._beaten > BEAT - 1.0:
            await self._beat(server, place)

    async def _beat(self, server: SwanLabServer, place: Place) -> None:
        try:
            await server.beat(place)
        except RejectedError as error:
            logger.info("SwanLab takes no heartbeat: %s", error)
        self._beaten = time.monotonic()

    async def sample(self, pid: int) -> None:
        """Queue readings of the machine and the training process, without a journal."""
        assert self.place is not None  # or the run has not begun
        if not self.place.has_views or len(self._rows) >= ROWS:
            return  # columns of the other kind would say how they look; or the server is away
        if self._sampler is None:
            self._sampler = SystemSampler(pid)
        values = await anyio.to_thread.run_sync(self._sampler.sample)
        keys = {name: key for name in values if (key := sample_key(name)) is not None}
        now = time.time_ns()
        self.add(row(key, self._samples, values[name], now) for name, key in keys.items())
        self._samples += 1

    async def finish(self, client: Client, status: RunStatus, ended: int, reject: Reject) -> None:
        """
        Send the end of the run; `ended` is its time in Unix nanoseconds.

        The server shows rows that arrived between the run's two times, by its own clock, so the end
        is now, if that is later.
        """
        server, place = await self.reached(client)
        why = self._run.ending(status)
        if why is not None and not self._explained:
            line = Line("ERROR", (self.lines or 0) + self._said + 1, why, moment(ended))
            try:
                await server.store(place, "log", [line])
            except RejectedError as error:
                reject("the line of the end", str(error), cause=error.cause, record=line)
            self._explained = True  # a run that has ended takes no more lines
        try:
            await server.end(place, STATES[status], moment(max(ended, time.time_ns())))
        except RejectedError as error:
            raise AccessError(f"the SwanLab run cannot be ended: {error}") from error

    async def reached(self, client: Client) -> tuple[SwanLabServer, Place]:
        """Return the server, in a session that lasts, and the run's place, once it has begun."""
        await self._renew(client)
        assert self._server is not None
        assert self.place is not None  # or the run has not begun
        return self._server, self.place

    async def _renew(self, client: Client) -> None:
        assert self._login is not None
        if self._login.is_ending:
            await client.renew()

    async def close(self) -> None:
        """Close the connection for logins."""
        if self._login is not None:
            await self._login.close()

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that a new object needs to continue."""
        return {"known": self.known, "lines": self.lines, "said": self._said}

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take it back."""
        self.known, self.lines = attributes["known"], attributes["lines"]
        self._said = attributes["said"]


def _seconds(date: str | float | None) -> int:
    """Return a date of the server in Unix seconds; 0 without a date."""
    if isinstance(date, int | float):
        return int(date / 1000 if date > 1e11 else date)  # some servers count milliseconds
    try:
        return int(datetime.fromisoformat(date or "").timestamp())
    except ValueError:
        return 0
