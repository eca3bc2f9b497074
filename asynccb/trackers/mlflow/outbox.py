"""
Queue an MLflow run's data and send it.

Promises: data is sent one request at a time, in this order: tags, parameters, metrics, state. An
item is kept until the server has acknowledged it. `send` may therefore be called again after any
failure and sends only the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

from asynccb._ground.exceptions import FaultError, RejectedError
from asynccb.delivery.queue import PATIENCE, Queue, json_size
from asynccb.trackers.mlflow.api import (
    Entity,
    Kind,
    Limits,
    MLflowApi,
    Pair,
    Point,
    RunInfo,
    RunState,
    pairs,
)
from asynccb.trackers.mlflow.values import metric_key, metric_value
from asynccb.trackers.shared.answers import Reject
from asynccb.trackers.shared.curve_names import CurveNames

E = TypeVar("E", Point, Pair)

_BULK: Final = 120
"""Bytes of a point without its key: 39 of names and signs, and three numbers of up to 24."""


class _Ending(NamedTuple):
    state: RunState
    end_time: int | None


class Outbox:
    """The data to send to one run."""

    def __init__(self, limits: Limits) -> None:
        self._tags = self._of_pairs(limits)
        self._params = self._of_pairs(limits)
        self._points = Queue[Point](
            limits.metrics, size=limits.size, measure=size_of, repeatable=True
        )
        self._curves = CurveNames("MLflow", metric_key)
        self._state: _Ending | None = None
        self._failures = 0  # consecutive server failures while sending the state

    @staticmethod
    def _of_pairs(limits: Limits) -> Queue[Pair]:
        return Queue(limits.pairs, size=limits.size, measure=json_size, repeatable=True)

    def __bool__(self) -> bool:
        return bool(self._points or self._params or self._tags or self._state)

    def add_metrics(self, values: Mapping[str, float], timestamp: int, step: int) -> None:
        """Add one point for each value; `timestamp` is in milliseconds."""
        self._points.extend(
            Point(key, metric_value(value), timestamp, step)
            for key, value in self._curves.of(values, "given").items()
        )

    def add_params(self, values: Mapping[str, str]) -> None:
        """Add parameters; their keys must be valid for the server."""
        self._params.extend(pairs(values))

    def add_tags(self, values: Mapping[str, str]) -> None:
        """Add tags; their keys must be valid for the server."""
        self._tags.extend(pairs(values))

    def set_state(self, state: RunState, end_time: int | None = None) -> None:
        """Set the run's state, replacing an unsent one; `end_time` is in milliseconds."""
        self._state = _Ending(state, end_time)

    async def send(self, server: MLflowApi, run: RunInfo, reject: Reject) -> None:
        """Send everything; call `reject` for each record that the server refuses."""
        # Each kind apart: one refused parameter makes the server refuse its whole request.
        await _send(self._tags, "tags", server, run, partial(_reject, reject, "tag"))
        await _send(self._params, "params", server, run, partial(_reject, reject, "parameter"))
        await _send(self._points, "metrics", server, run, partial(_reject, reject, "metric"))
        if self._state is not None:
            await self._send_state(self._state, server, run, reject)
            self._state = None

    async def _send_state(
        self, ending: _Ending, server: MLflowApi, run: RunInfo, reject: Reject
    ) -> None:
        try:
            await server.update(run.run_id, ending.state, ending.end_time)
        except FaultError as error:
            self._failures += 1
            if ending.state != "RUNNING" or self._failures < PATIENCE:
                raise
            # The end of a run is never given up, but RUNNING is not worth a delay.
            record = Pair("status", ending.state)
            reject("the state RUNNING", str(error), cause=f"state {error.cause}", record=record)
        self._failures = 0


class _Refuse(Protocol):
    def __call__(self, entity: Point | Pair, error: RejectedError, /) -> None: ...


async def _send(
    queue: Queue[E], kind: Kind, server: MLflowApi, run: RunInfo, refuse: _Refuse
) -> None:
    async def post(batch: Sequence[E]) -> None:
        await server.log(run.run_id, kind, batch)

    # If the run is gone, every record is refused: check that before searching for a bad record.
    await queue.send(post, refuse, verify=partial(server.run, run.run_id))


def _reject(reject: Reject, what: str, entity: Entity, error: RejectedError) -> None:
    reject(f"the {what} {entity.key!r}", str(error), cause=f"{what} {error.cause}", record=entity)


def size_of(point: Point) -> int:
    """Return an upper bound of a point's bytes in JSON, in a tenth of the time of encoding it."""
    return _BULK + len(point.key) * (1 if point.key.isascii() else 4)
