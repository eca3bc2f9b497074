"""
A tracker whose server is a file.

Promises: the file contains an event's line if, and only if, a real tracker's server would have
acknowledged the event. An event that is delivered again after a crash has another line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import TransientError
from asynccb._ground.types import RunStatus
from asynccb.trackers.base import Tracker


@dataclass(frozen=True)
class Recorded:
    """One delivered event."""

    event: str
    step: int
    """The state's `global_step` at the emission."""
    time: int
    """Unix time of the emission, in nanoseconds."""
    values: dict[str, Any] = field(default_factory=dict)
    """The event's keyword arguments, such as `logs` and `metrics`, as read back from JSON."""


class RecordingTracker(Tracker):
    """
    A tracker that appends every event to a file, once a flush delivers it.

    Use it instead of a real tracker to test a training program or other callbacks. Like a real
    tracker it lives in the companion, collects events between flushes, and is retried, closed and
    synced. `recorded()` and `status()` may be called at any time and in any process that knows the
    path. After `run.flush()` they return everything emitted before.
    """

    name: ClassVar[str] = "recording"
    interval: ClassVar[float] = 0.01

    def __init__(self, path: str | Path) -> None:
        """Store the path of the file, which need not exist."""
        self.path = str(path)
        self._lines: list[str] = []

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return False: `report_to` never selects this tracker."""
        return False

    def recorded(self, event: str | None = None) -> list[Recorded]:
        """Return the events delivered so far, of one kind or of all."""
        found = [Recorded(**line) for line in self._read() if "event" in line]
        return [one for one in found if event is None or one.event == event]

    def status(self) -> RunStatus | None:
        """Return the status with which the run ended, or None until it is delivered."""
        ends: list[RunStatus] = [line["status"] for line in self._read() if "status" in line]
        return ends[-1] if ends else None

    def go_away(self) -> None:
        """Act like an unreachable server until `come_back`; takes effect in every process."""
        self._away.touch()

    def come_back(self) -> None:
        """End the outage; the events emitted meanwhile are then delivered."""
        self._away.unlink(missing_ok=True)

    async def flush(self) -> None:
        """Append the collected events; raise `TransientError` during an outage."""
        if self._away.exists():
            raise TransientError(f"{self.path} has gone away")
        with open(self.path, "a") as file:  # noqa: ASYNC230 - a line or a few, on a local disk
            file.write("".join(self._lines))
        self._lines.clear()

    async def finish(self, status: RunStatus) -> None:
        """Append the status with which the run ended."""
        self._lines.append(json.dumps({"status": status}) + "\n")
        await self.flush()

    def state(self) -> dict[str, Any]:
        """Return the path."""
        return {"args": {"path": self.path}, "attributes": {}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build a tracker for the same file."""
        return cls(**state["args"])

    @property
    def _away(self) -> Path:
        return Path(self.path + ".away")

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


_LIVE = ("model", "processing_class", "optimizer", "lr_scheduler")
_LOADERS = ("train_dataloader", "eval_dataloader")


def _hook(event: Event) -> Any:
    async def hook(
        self: RecordingTracker, args: Any, state: Any, control: Any, **keywords: Any
    ) -> None:
        values = {key: one for key, one in keywords.items() if key not in _LIVE + _LOADERS}
        line = {"event": event, "step": state.global_step, "time": self.time, "values": values}
        self._lines.append(json.dumps(line, default=str) + "\n")

    hook.__doc__ = "Record the event."
    return hook


for _event in EVENTS:
    setattr(RecordingTracker, _event, _hook(_event))
