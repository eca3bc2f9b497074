"""
What an MLflow run has still to be told.

Promises: things go out one request at a time, in this order: tags, parameters, metrics, files,
state; each is kept until the server has acknowledged it, so that `send` may be called again after
any failure and sends no more than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from asynccb.trackers._mlflow_artifacts import Reject, Uploads
from asynccb.trackers._mlflow_names import metric_key, metric_value
from asynccb.trackers._mlflow_rest import (
    MLflowServer,
    Pair,
    Point,
    Refusal,
    RunInfo,
    RunState,
    pairs,
)


class _Ending(NamedTuple):
    state: RunState
    end_time: int | None


@dataclass
class Outbox:
    """Gather what is to be sent to one run."""

    _tags: list[Pair] = field(default_factory=list)
    _params: list[Pair] = field(default_factory=list)
    _points: list[Point] = field(default_factory=list)
    _uploads: Uploads = field(default_factory=Uploads)
    _state: _Ending | None = None

    def __bool__(self) -> bool:
        return bool(self._points or self._params or self._tags or self._uploads or self._state)

    def add_metrics(self, values: Mapping[str, float], timestamp: int, step: int) -> None:
        """Add one point for each value; `timestamp` in milliseconds."""
        self._points += [
            Point(metric_key(name), metric_value(value), timestamp, step)
            for name, value in values.items()
        ]

    def add_params(self, values: Mapping[str, str]) -> None:
        """Add parameters, under keys that the server takes."""
        self._params += pairs(values)

    def add_tags(self, values: Mapping[str, str]) -> None:
        """Add tags, under keys that the server takes."""
        self._tags += pairs(values)

    def add_directory(self, directory: Path, name: str) -> None:
        """Add a directory of files, to be stored under that name."""
        self._uploads.add(directory, name)

    def set_state(self, state: RunState, end_time: int | None = None) -> None:
        """Set the run's state, in place of one not sent yet; `end_time` in milliseconds."""
        self._state = _Ending(state, end_time)

    async def send(self, server: MLflowServer, run: RunInfo, reject: Reject) -> None:
        """Send everything; call `reject` for each record that the server does not take."""
        await self._send_pairs(server, run, reject)
        while self._points:
            batch = self._points[: server.limits.metrics]
            # Keys are ASCII by now, so that 1,000 points have at most 350 kB: no bytes to count.
            refused = await server.log_metrics(run.run_id, batch)
            del self._points[: len(batch)]
            _reject_all("the metric", refused, reject)
        if self._uploads:
            await self._uploads.send(server.client, run.artifact_uri, reject)
        if self._state is not None:
            await server.update(run.run_id, self._state.state, self._state.end_time)
            self._state = None

    async def _send_pairs(self, server: MLflowServer, run: RunInfo, reject: Reject) -> None:
        _reject_all("the tag", await server.log_pairs(run.run_id, "tags", self._tags), reject)
        self._tags.clear()
        _reject_all(
            "the parameter", await server.log_pairs(run.run_id, "params", self._params), reject
        )
        self._params.clear()


def _reject_all(what: str, refused: list[Refusal], reject: Reject) -> None:
    for refusal in refused:
        reject(f"{what} {refusal.entity.key!r}", refusal.why)
