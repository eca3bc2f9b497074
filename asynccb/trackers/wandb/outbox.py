"""
The lines of a W&B run's files that are still to be sent.

Promises: queued values become lines only once the number of the run's lines is known. The same
events make the same lines, at the same places.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import anyio.to_thread
import msgspec

from asynccb._state.run_description import RunDescription
from asynccb.delivery.client import Client
from asynccb.trackers.shared.answers import Reject
from asynccb.trackers.shared.system_metrics import SystemSampler
from asynccb.trackers.wandb.api import Known, RunInfo
from asynccb.trackers.wandb.stream import (
    CONSOLE,
    EVENTS,
    HISTORY,
    LONGEST_LINE,
    FileStream,
    as_line,
)
from asynccb.trackers.wandb.values import STEP, Bases, History, histogram


class Entry(NamedTuple):
    """One log that has no line number yet."""

    time: int
    """Unix nanoseconds."""
    values: Mapping[str, Any]
    single: Mapping[str, Any]
    """What goes into the summary alone."""
    bulky: bool = False
    """Whether the values are left out of the summary."""


Mark: TypeAlias = Callable[[History], None]
"""Called with the history as it is between two logs."""


class Outbox:
    """The lines that are to be sent to one run."""

    def __init__(self, on_stop: Callable[[], None], reject: Reject) -> None:
        """Call `stop` if somebody stops the run, and `reject` for a line that cannot be stored."""
        self.history = History()
        self._stream = FileStream(on_stop)
        self._reject = reject
        self._sampler: SystemSampler | None = None
        self._entries: list[Entry | Mark] = []

    def __bool__(self) -> bool:
        return bool(self._entries or self._stream)

    def add(self, entry: Entry | Mark) -> None:
        """Queue a log, or something to be called in its turn."""
        self._entries.append(entry)

    async def sample(self, run: RunDescription) -> None:
        """Queue the resources that the training and its machine use now."""
        if self._sampler is None:
            self._sampler = SystemSampler(run.pid)
        # NVML may take its time, and other lanes have this loop too.
        values = await anyio.to_thread.run_sync(self._sampler.sample)
        now = time.time_ns()
        runtime = self.history.bases.runtime + (now - run.started) / 1e9
        named = {f"system.{name}": value for name, value in values.items()}
        head = {"_wandb": True, "_timestamp": now / 1e9, "_runtime": runtime}
        self._stream.add(EVENTS, as_line({**head, **named}))

    def add_text(self, text: str, printed: int, *, is_error: bool) -> None:
        """Queue a line of the console; `printed` is when, in Unix nanoseconds."""
        when = datetime.fromtimestamp(printed / 1e9, UTC).replace(tzinfo=None)
        begin = f"{'ERROR ' if is_error else ''}{when.isoformat(timespec='microseconds')}"
        self._stream.add(CONSOLE, f"{begin} {text}")

    def add_told(self, what: str, values: Mapping[str, Any], when: int) -> None:
        """Queue values of the training side: histograms, or lines of the console."""
        if what == "console":
            for is_error, printed, text in values["lines"]:
                self.add_text(text, printed, is_error=is_error)
            return
        rows = {name: histogram(row) for name, row in values.items() if name != "step"}
        line = {name: found for name, found in rows.items() if found is not None}
        self.add(Entry(when, {**line, STEP: values["step"]}, {}, bulky=True))

    def end(self, exit_code: int) -> None:
        """Queue the end of the run, behind everything else."""
        self._stream.exit_code = exit_code

    def continue_from(self, bases: Bases, known: Known) -> None:
        """Begin where another part of the run has ended; before the first line."""
        self.history.begin(bases, known.summary)
        self._stream.files[HISTORY].offset = bases.history
        self._stream.files[CONSOLE].offset = bases.console

    def skip_samples(self, known: Known) -> None:
        """Go on behind the samples that the server has: none of them is taken again."""
        self._stream.files[EVENTS].offset = known.events

    async def send(self, client: Client, run: RunInfo, started: int) -> None:
        """Send everything; `started` is when the training began, in Unix nanoseconds."""
        self._make_lines(started)
        await self._stream.send(client, run, self._reject)

    async def beat(self, client: Client, run: RunInfo) -> None:
        """Tell the server that the run lives."""
        await self._stream.beat(client, run)

    def _make_lines(self, started: int) -> None:
        history, first = self.history, self.history.step
        for entry in self._entries:
            if not isinstance(entry, Entry):
                entry(history)
                continue
            line = history.line(entry.values, entry.time, started)
            text = as_line(line)
            if entry.bulky or len(text) > LONGEST_LINE:
                line = {key: value for key, value in line.items() if key.startswith("_")}
            if len(text) > LONGEST_LINE:
                why = f"it has {len(text)} bytes, and W&B takes {LONGEST_LINE}"
                self._reject("a log", why, cause="length", record=text)
                text = as_line(line)
            self._stream.add(HISTORY, text)
            history.summarize({**line, **entry.single})
        if history.step > first:
            self._stream.summary = as_line(history.summary)
        self._entries.clear()

    def state(self) -> dict[str, Any]:
        """Return how far the files have come once everything is sent."""
        return {
            "bases": msgspec.to_builtins(self.history.bases),
            "step": self.history.step,
            "summary": as_line(self.history.summary),
            "offsets": {name: self._stream.files[name].end for name in (HISTORY, CONSOLE)},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        summary = json.loads(state["summary"])
        self.history.begin(msgspec.convert(state["bases"], Bases), summary)
        self.history.step = state["step"]
        for name, offset in state["offsets"].items():
            self._stream.files[name].offset = offset


def bases_after(state: Mapping[str, Any]) -> Bases:
    """Return the place where a run with such a state of its outbox goes on."""
    offsets = state["offsets"]
    return Bases(offsets[HISTORY], offsets[CONSOLE], state["step"])
