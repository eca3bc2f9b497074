"""
Queue events for a ClearML task and send them in batches.

Promises: the same records make the same events. An event that the server refuses is set aside and
does not affect other events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

import anyio.to_thread

from asynccb._ground.exceptions import RejectedError
from asynccb._state.run_description import RunDescription
from asynccb.delivery.queue import Queue
from asynccb.trackers.clearml.api import ClearMLServer
from asynccb.trackers.clearml.files import Owner
from asynccb.trackers.clearml.opening import check_open
from asynccb.trackers.clearml.values import (
    Scalar,
    TaskEvent,
    events_of,
    machine_scalars,
    metric_name,
    texts_of,
)
from asynccb.trackers.names import Names
from asynccb.trackers.shared.answers import Reject
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.system_metrics import SystemSampler

logger = logging.getLogger("asynccb")

_COUNT: Final = 10_000
_SIZE: Final = 8 << 20
"""Limits for a request, in events and bytes; the server accepts 15 MiB."""


class Outbox:
    """The events to send to one task."""

    def __init__(self, reject: Reject) -> None:
        """Call `reject` for every value that the server cannot store."""
        self._reject = reject
        self._events = Queue[TaskEvent](
            _COUNT, size=_SIZE, measure=attrgetter("size"), repeatable=True
        )
        self._curves = CurveNames("ClearML", metric_name)
        self._singles: dict[str, Scalar] = {}
        self._steps: dict[tuple[str, str], int] = {}
        self._replaces = False
        self._sampler: SystemSampler | None = None

    def __bool__(self) -> bool:
        return bool(self._events or self._singles)

    def add_numbers(self, numbers: Mapping[str, float], step: int, when: int, names: Names) -> None:
        """Queue the numbers of a log; `when` is in Unix nanoseconds."""
        made = events_of(self._curves.of(numbers, "given"), step, when, names)
        for event in made.events:
            if isinstance(event, Scalar):
                self._note(event)
        self._events.extend(made.events)
        self._singles |= made.singles

    def add_lines(self, lines: Iterable[tuple[bool, int, str]]) -> None:
        """Queue console lines; each has whether it is an error, its time in ns, and its text."""
        self._events.extend(texts_of(lines))

    async def sample(self, run: RunDescription) -> None:
        """Queue the current resource usage of the training and its machine."""
        if self._sampler is None:
            self._sampler = SystemSampler(run.pid)
        # NVML may be slow, and other lanes share this event loop.
        values = await anyio.to_thread.run_sync(self._sampler.sample)
        self._events.extend(machine_scalars(values, run.started, time.time_ns()))

    async def send(self, server: ClearMLServer, owner: Owner, worker: str) -> None:
        """Send everything; values of the whole run are sent last, each of them once."""

        async def post(events: Sequence[TaskEvent]) -> None:
            await server.add_events([e.line(owner.task, worker, owner.suffix) for e in events])

        async def verify() -> None:
            check_open(await server.task(owner.task), owner.task)

        self._events.extend(self._singles.values())
        self._singles.clear()
        await self._events.send(post, self._refuse, verify)

    def _note(self, event: Scalar) -> None:
        """Warn, once, that a value replaces an earlier one."""
        assert event.iteration is not None
        series = event.title, event.series
        if event.iteration <= self._steps.get(series, -1) and not self._replaces:
            self._replaces = True
            logger.warning(
                "ClearML keeps only the last logged value of %s/%s for step %d; the same applies "
                "to other series whose steps repeat or go back (logged once)",
                *(*series, event.iteration),
            )
        self._steps[series] = event.iteration

    def _refuse(self, event: TaskEvent, error: RejectedError) -> None:
        what = "a line of the console"
        if isinstance(event, Scalar):
            what = f"{event.title}/{event.series} of step {event.iteration}"
        self._reject(what, str(error), cause=error.cause, record=event)
