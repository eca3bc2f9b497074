"""
The values on their way to Comet, in order: facts, then metrics, then parameters.

Promises: a value that was sent is not sent again, whatever failed in between. A refused value is
set aside alone. Metrics do not wait for parameters, of which a model may have tens of thousands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from asynccb._ground.exceptions import RejectedError
from asynccb._state.run_description import RunDescription
from asynccb.delivery.queue import Queue, Verify
from asynccb.trackers.comet_ml.api import BATCH, CometServer
from asynccb.trackers.comet_ml.values import (
    Metric,
    Note,
    Parameter,
    metrics_of,
    notes_of,
    parameters_of,
    stored_before,
)
from asynccb.trackers.shared.answers import Reject

if TYPE_CHECKING:
    from asynccb._state.trainer_state import TrainerState

T = TypeVar("T")
_StoreAll: TypeAlias = Callable[[Sequence[T]], Awaitable[None]]


class Store(Protocol):
    """What takes values: a server, or an archive."""

    async def store_note(self, note: Note) -> None:
        """Take a fact."""

    async def store_parameters(self, values: Sequence[Parameter]) -> None:
        """Take parameters."""

    async def store_metrics(self, values: Sequence[Metric]) -> None:
        """Take metrics."""


class CometOutbox:
    """Gather values, and send them."""

    def __init__(self, reject: Reject) -> None:
        self.notes = Queue[Note](1, repeatable=True)
        self.parameters = Queue[Parameter](BATCH, repeatable=True)
        self.metrics = Queue[Metric](BATCH)
        self._later: list[Parameter] = []
        """Parameters whose turn has not come."""
        self.doubtful = True
        """Whether metrics may be stored though their answer was lost, or a process with it."""
        self._reject = reject

    def __bool__(self) -> bool:
        return bool(self.notes or self.parameters or self.metrics or self._later)

    def describe(
        self, run: RunDescription, name: str | None, usual_name: str | None, time: int
    ) -> None:
        """Add the facts of a run: its parameters, its program, its machine and its name."""
        named = name or getattr(run.args, "run_name", None) or usual_name
        self.notes.extend(notes_of(run, named))
        self._later.extend(parameters_of(run, time))

    def add(self, named: Mapping[str, Any], state: TrainerState, time: int) -> list[str]:
        """Add values by their names at Comet, and return the names of those that are no metrics."""
        metrics, dropped = metrics_of(named, int(state.global_step), state.epoch, time)
        self.metrics.extend(metrics)
        return dropped

    async def send_to_server(
        self, server: CometServer, before_each: Callable[[], Awaitable[None]], *, whole: bool
    ) -> None:
        """
        Send everything except metrics that the server turns out to have; see `send`.

        Unless `whole`, parameters beyond their rate are left for later.
        """
        if self.doubtful and self.metrics:
            self.metrics.forget(stored_before(await server.latest()))
        self.doubtful = True  # until all is acknowledged
        most = None if whole else server.spare_parameters
        await self.send(server, server.check, before_each, most)
        self.doubtful = False

    async def send(
        self,
        store: Store,
        verify: Verify | None = None,
        before_each: Callable[[], Awaitable[None]] | None = None,
        most: int | None = None,
    ) -> None:
        """
        Send all, but at most so many parameters.

        `verify` is that of `Queue.send`, `before_each` goes before each batch.
        """

        async def note(notes: Sequence[Note]) -> None:
            await store.store_note(notes[0])

        def batch(store_all: _StoreAll[T]) -> _StoreAll[T]:
            async def store_next(values: Sequence[T]) -> None:
                if before_each is not None:
                    await before_each()
                await store_all(values)

            return store_next

        await self.notes.send(note, self._refuse_note, verify)
        await self.metrics.send(batch(store.store_metrics), self._refuse_metric, verify)
        self._admit(most)
        parameters = batch(store.store_parameters)
        await self.parameters.send(parameters, self._refuse_parameter, verify)

    def _admit(self, most: int | None) -> None:
        """Queue the next parameters: all of them, or up to so many in the queue."""
        count = None if most is None else max(0, most - len(self.parameters))
        self.parameters.extend(self._later[:count])
        del self._later[:count]

    def _refuse_note(self, note: Note, error: RejectedError) -> None:
        name = note.fields.get("key", note.endpoint)
        self._reject(f"the fact {name!r}", str(error), cause=error.cause, record=note)

    def _refuse_parameter(self, value: Parameter, error: RejectedError) -> None:
        name = value.parameter_name
        self._reject(f"the parameter {name!r}", str(error), cause=error.cause, record=value)

    def _refuse_metric(self, value: Metric, error: RejectedError) -> None:
        name = value.metric_name
        self._reject(f"the metric {name!r}", str(error), cause=error.cause, record=value)
