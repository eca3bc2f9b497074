"""
The contract of a tracker, written once.

A tracker is a deterministic function from the events of a run to requests. Its lane reads the
journal and, for each group of records, calls

    describe(run)                 once, and again for each further run record (a resumed training)
    await on_log(...), ...        for each event: add to the outbox; no input or output here
    await told(what, ...)         for each message of its `training_side`, in order with the events
    await flush()                 send the outbox; return when the server has acknowledged all of it
    await finish(status)          once, after the last record and upload, with an empty outbox

Then the lane moves the cursor past the group and stores `state()["attributes"]` beside it. After a
crash, a new object with those attributes receives the same records again. A tracker therefore takes
every timestamp, id and offset from the record and its attributes, never from the clock or the dice,
and sends the same bytes again. A training that is resumed from a checkpoint writes its own journal.
When everything of the interrupted training is delivered, its end included,

    resume(attributes)            makes a new tracker continue the run of the interrupted training

and logs that the server already has are left out, unless the tracker `rewinds`. None of these calls
overlap, neither with each other nor with

    await heartbeat()             every `beat` seconds, from the first flush until the end

Large files take another path, beside the calls above:

    files(event, args, state)     as soon as an event is in the journal: return the files to upload
    await upload(kept)            one folder at a time, until it returns; then its copy is deleted

The exception that `flush`, `finish` or `upload` raises decides the next step. After a
`TransientError` the lane calls the method again later, for as long as it takes. After an
`AccessError` this tracker gives up, and its journal is kept for `asynccb sync`. The tracker itself
sets aside a record that the server refuses, with `reject`. Any other exception is a bug, and the
callback's `on_error` decides the consequence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Final, Self

from asynccb._ground.advice import for_value
from asynccb._ground.events import Event
from asynccb._ground.plain import clean
from asynccb._ground.types import Placement, Ranks, RunStatus
from asynccb._journal.rejected import Refusal
from asynccb._journal.uploads import Folder, Kept
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb._state.snapshot import StateSnapshot
from asynccb._state.trainer_state import ExportableState
from asynccb.callbacks.tracking import Tracking
from asynccb.callbacks.training_side import TrainingSide
from asynccb.trackers.names import Names, names_option, quoted, scalars

logger = logging.getLogger("asynccb")

_CAUSES: Final = 100
"""Distinct causes of a rejection that are logged; rejections with later ones are only counted."""


def _nowhere(metrics: Mapping[str, float]) -> None:
    """Discard the metrics, for lack of a run."""


async def journaled(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """
    Do nothing.

    An event is in the journal, and so passed to `files`, only if the tracker has a hook for it.
    """


class Tracker(Tracking, ExportableState):
    """
    Send a run's events to an experiment tracker, from the companion process.

    Constructors accept every setting as a keyword. For None, the environment variable is read in
    the training process when the tracker is made. Credentials are never constructor arguments: the
    tracker looks them up when it uses them, so no state, journal or `repr` can contain one.
    """

    placement: Placement = "process"
    ranks: Ranks = "world_zero"
    needs_history: bool = False
    in_checkpoint: ClassVar[bool] = False

    rewinds: ClassVar[bool] = False
    """Whether its server hides or replaces logs from after a checkpoint, so that a resumed training
    must log those steps again. Other trackers receive only the logs that they do not have."""

    name: ClassVar[str]
    """Name in `report_to`."""

    interval: ClassVar[float] = 1.0
    """Seconds for which events are gathered before the tracker sends them together."""

    group: ClassVar[int] = 2000
    """Maximum number of records that are delivered together."""

    names: Names = "grouped"
    """Names of metrics: `"grouped"` as in transformers' callback for the same service, so that most
    show `loss` as `train/loss`; `"given"` as they were logged. The keyword `names` of a
    constructor sets it for one tracker, the class attribute for all that are made later."""

    metrics_taken: ClassVar[str] = "numbers"
    """What its service takes as metrics, for the message about other values."""

    largest_step: ClassVar[int | None] = None
    """The largest step that its service can store; its lane rejects a log of a larger step, alone.
    None sets no limit."""

    enabled: bool = True
    """Whether it wants any events; if not, it is not served at all."""

    local: bool = False
    """Whether it writes files only, so that `ASYNCCB_OFFLINE` does not hold it back."""

    offline: bool = False
    """Whether it receives nothing until `asynccb sync`, as every tracker does under
    `ASYNCCB_OFFLINE`."""

    beat: float | None = None
    """Seconds between two heartbeats; None for a server without them. May change at any time."""

    training_side: TrainingSide | None = None
    """Its part in the training process, beside the model; that part's messages go to `told`."""

    uploads: Collection[Event] = ()
    """Events that are passed to `files`. Like others, they are in the journal only if the tracker
    has a hook for them, which may be `journaled`."""

    offers: ClassVar[bool] = False
    """Whether it measures metrics for the run itself, and passes them to `offer`."""

    offer: Callable[[Mapping[str, float]], None] = staticmethod(_nowhere)
    """
    Add metrics to the run, from any thread of the companion. Every tracker receives them in its
    `on_log`, at the current step, and they are journaled like the training's own logs. Metrics
    offered before the hook for `on_train_end` returns precede the run's end. Without a companion,
    or in a sync, they are discarded.
    """

    run: RunDescription
    """The run that the events belong to; set before the first hook."""

    time: int = 0
    """Unix time in nanoseconds at which the record that a hook is called for was emitted."""

    address: str | None = None
    """The URL or directory at which a person can look at the run; set when known."""

    rejected: int = 0
    """Number of records that were set aside because they can never be delivered."""

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether `report_to="all"` includes it: its address, key or directory is set."""
        raise NotImplementedError

    def describe(self, run: RunDescription) -> None:
        """Accept the description of the run."""
        self.run = run

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Accept a message that the training side sent at a step; called in order with hooks."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Send the outbox and return when the server acknowledged it; called again if it fails."""
        raise NotImplementedError

    async def heartbeat(self) -> None:
        """Tell the server that the run is alive; after a failure, called at the next beat."""
        raise NotImplementedError

    async def finish(self, status: RunStatus) -> None:
        """Mark the run as ended; may be called again after a failure."""
        raise NotImplementedError

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """
        Return the folder to upload for an event, if any.

        Called ahead of the hooks, which may lag behind during an outage, so it may read only its
        arguments and the settings. The files are linked, or copied, at once.
        """
        raise NotImplementedError

    async def upload(self, kept: Kept) -> None:
        """
        Store a folder's files, and call `kept.stored` for each.

        After a failure, called again for the remaining files. Runs beside `flush`, so metrics do
        not wait for it.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close connections and files; called exactly once, with little time to do it."""

    def state(self) -> dict[str, Any]:
        """Return the settings as `args`, and the state that a new object needs as `attributes`."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker that continues from the state that an earlier tracker returned."""
        tracker = cls(**state["args"])
        tracker.restore(state["attributes"])
        return tracker

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the attributes that `state()` returned."""
        for name, value in attributes.items():
            setattr(self, name, value)

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """
        Continue the run of an interrupted training that this training resumes.

        Called before the first hook, with the attributes that the tracker had there when everything
        was delivered. `describe` follows, with the key of that run. Returns whether the tracker
        continues that run; it does not if its settings name another run or another server.
        """
        self.restore(attributes)
        return True

    def choose_names(self, names: str | None) -> None:
        """Take a constructor's `names`; for None, the class decides."""
        self.names = names_option(self.names if names is None else names)

    def numbers(self, values: Mapping[str, Any] | None) -> dict[str, float]:
        """Return the numbers among logged values, and reject the other values by name."""
        numbers, others = scalars(values or {})
        for name in others:
            self.reject_value(name, (values or {})[name])
        return numbers

    def reject_value(self, name: str, value: Any) -> None:
        """Reject a logged value that its service cannot take, and say what to log instead."""
        kind, instead = for_value(str(clean(name)), value)
        why = f"it is {kind}, and only {self.metrics_taken} are taken there: {instead}"
        self.reject(f"the metric {quoted(name)}", why, cause=f"metric {name}")

    def reject(self, what: str, why: str, *, cause: str | None = None, record: Any = None) -> None:
        """
        Count a record that can never be delivered, and log a warning once per cause.

        Without `cause`, `what` and `why` together are the cause. The lane sets the record aside, as
        it would have been sent, in a file of the run's folder; for None it sets nothing aside.
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
        """Return the refused records that are to be set aside, and forget them."""
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
        """Leave out the training side, which stays in the training process."""
        return {key: value for key, value in vars(self).items() if key != "training_side"}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address or ''}>"
