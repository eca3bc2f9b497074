"""
The contract of a tracker, written once.

A tracker is a deterministic function from the events of a run to requests. Its lane reads the
journal and, for a group of records at a time, calls

    describe(run)                 once, and again when a run record comes by (a resumed training)
    await on_log(...), ...        for each event: add to the outbox; no input or output here
    await told(what, ...)         for what its `training_side` tells, in order with the events
    await flush()                 send the outbox; return when the server has acknowledged all of it
    await finish(status)          once, after the last record and upload, the outbox empty

and then moves the cursor past the group, with `state()["attributes"]` beside it. After a crash the
same records come again, to a new object with those attributes; a tracker therefore takes every
timestamp, id and offset from the record and its attributes, never from the clock or the dice, and
sends the same bytes again. A training that is resumed from a checkpoint writes a journal of its
own; when everything of the interrupted one is delivered, its end too,

    resume(attributes)            has a new tracker go on with the run of that one

and logs that the server has already are left out, unless the tracker `rewinds`. These calls never
overlap, and with

    await heartbeat()             every `beat` seconds, from the first flush until the end

they do not either. Large files go another way, beside the calls above:

    files(event, args, state)     as soon as an event is in the journal: what it wants uploaded
    await upload(kept)            one folder at a time, until it returns; then the files are let go

What `flush`, `finish` and `upload` raise decides what happens next: `TransientError`, that they are
called again later, for as long as it takes; `AccessError`, that this tracker gives up and its
journal is kept for `asynccb sync`. A record that the server refuses is the tracker's to set aside,
with `reject`. Anything else is a bug and is handled as the callback's `on_error` says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Final, Self

from asynccb._ground.events import Event
from asynccb._ground.types import Placement, Ranks, RunStatus
from asynccb._journal.rejected import Refusal
from asynccb._journal.uploads import Folder, Kept
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb._state.snapshot import StateSnapshot
from asynccb._state.trainer_state import ExportableState
from asynccb.callbacks.base import TrainerCallback
from asynccb.callbacks.training_side import TrainingSide
from asynccb.trackers.names import scalars

logger = logging.getLogger("asynccb")

_CAUSES: Final = 100
"""Distinct causes of a rejection that are said; later ones are only counted."""


def _nowhere(metrics: Mapping[str, float]) -> None:
    """Stand in where there is no run that metrics could be added to."""


async def journaled(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Do nothing: a hook has its event in the journal, where `files` is asked about it."""


class Tracker(TrainerCallback, ExportableState):
    """
    Send a run's events to an experiment tracker, from the companion process.

    Constructors take every setting as a keyword; None takes the environment variable, read in the
    training process when the tracker is made. Credentials are never constructor arguments: they are
    looked up where they are used, so that no state, journal or `repr` can hold one.
    """

    placement: Placement = "process"
    ranks: Ranks = "world_zero"
    needs_history: bool = False
    in_checkpoint: ClassVar[bool] = False

    rewinds: ClassVar[bool] = False
    """Whether its server hides or replaces what it got after a checkpoint, so that a resumed
    training is to log that again; others get only the logs that they do not have."""

    name: ClassVar[str]
    """Name in `report_to`."""

    interval: ClassVar[float] = 1.0
    """Seconds for which events are gathered before they are sent together."""

    group: ClassVar[int] = 2000
    """Most records that are delivered together."""

    enabled: bool = True
    """Whether it wants any events; where not, it is not served at all."""

    local: bool = False
    """Whether it only writes files, so that `ASYNCCB_OFFLINE` need not hold it back."""

    offline: bool = False
    """Whether it gets nothing until `asynccb sync`, as all do under `ASYNCCB_OFFLINE`."""

    beat: float | None = None
    """Seconds between two heartbeats; None where the server wants none. May change at any time."""

    training_side: TrainingSide | None = None
    """What it does in the training process, where the model is; what that tells comes to `told`."""

    uploads: Collection[Event] = ()
    """Events that `files` is asked for; as others, they are in the journal if they have a hook."""

    offers: ClassVar[bool] = False
    """Whether it has metrics of its own for the run, which it gives to `offer`."""

    offer: Callable[[Mapping[str, float]], None] = staticmethod(_nowhere)
    """
    Add metrics to the run, from any thread of the companion: every tracker gets them in its
    `on_log`, at the step of the moment, and they are journaled like the training's own logs. Those
    offered before the hook for `on_train_end` returns come before the run's end. Without a
    companion, or in a sync, they go nowhere.
    """

    run: RunDescription
    """The run whose events come; set before the first hook."""

    time: int = 0
    """When the record that a hook is called for was emitted: Unix time in nanoseconds."""

    address: str | None = None
    """Where a person looks at the run, a URL or a directory; set when known."""

    rejected: int = 0
    """Records that were set aside because they can never be delivered."""

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Tell whether `report_to="all"` includes it: its address, key or directory is there."""
        raise NotImplementedError

    def describe(self, run: RunDescription) -> None:
        """Take the description of the run."""
        self.run = run

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Take what the training side has told at a step; like a hook, in order with those."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Send the outbox and return when it is acknowledged; called again after a failure."""
        raise NotImplementedError

    async def heartbeat(self) -> None:
        """Tell the server that the run lives; after a failure, called at the next beat."""
        raise NotImplementedError

    async def finish(self, status: RunStatus) -> None:
        """Mark the run as ended; may be called again after a failure."""
        raise NotImplementedError

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """
        Return the folder that an event wants uploaded, if any.

        Called ahead of the hooks, which may lag behind an outage, so it may look at nothing but its
        arguments and the settings. The files are linked, or copied, at once.
        """
        raise NotImplementedError

    async def upload(self, kept: Kept) -> None:
        """
        Store a folder's files and tell `kept` of each; called again for the rest after a failure.

        Runs beside `flush`, so that metrics do not wait for it.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of connections and files; called once, in every case, with little time."""

    def state(self) -> dict[str, Any]:
        """Return the settings as `args`, and as `attributes` what a new object needs to go on."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker that goes on where the one that gave the state had come."""
        tracker = cls(**state["args"])
        tracker.restore(state["attributes"])
        return tracker

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take back the attributes that `state()` gave."""
        for name, value in attributes.items():
            setattr(self, name, value)

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """
        Go on with the run of a training that was interrupted, and that this one resumes.

        Called before the first hook with the attributes that the tracker had there when all was
        delivered; `describe` follows, with the key of that run. Returns whether it goes on there: a
        tracker that was given another run, or another server, by its settings does not.
        """
        self.restore(attributes)
        return True

    def numbers(self, values: Mapping[str, Any] | None) -> dict[str, float]:
        """Return the numbers among logged values; the others are rejected, by name."""
        numbers, others = scalars(values or {})
        for name in others:
            self.reject(f"the metric {name!r}", "it is no number")
        return numbers

    def reject(self, what: str, why: str, *, cause: str | None = None, record: Any = None) -> None:
        """
        Count a record that can never be delivered, and say so once per cause.

        The cause is `what` with `why`, unless it is named. The record, as it would have been sent,
        is set aside in a file of the run's folder by the lane; None sets nothing aside.
        """
        self.rejected += 1
        if record is not None:
            self._refusals.append(Refusal(type(self).__name__, what, why, self.time, record))
        told = cause if cause is not None else f"{what}: {why}"
        if told in self._told or len(self._told) >= _CAUSES:
            return
        self._told.add(told)
        logger.warning(
            "%s cannot deliver %s: %s (said once; statistics() counts it)",
            type(self).__name__,
            what,
            why,
        )

    def take_refusals(self) -> Iterable[Refusal]:
        """Return what is to be set aside, and forget it."""
        taken = tuple(self._refusals)
        self._refusals.clear()
        return taken

    @cached_property
    def _refusals(self) -> list[Refusal]:
        return []

    @cached_property
    def _told(self) -> set[str]:
        return set()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what stays in the training process."""
        return {key: value for key, value in vars(self).items() if key != "training_side"}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address or ''}>"
