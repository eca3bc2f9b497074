"""
One run of Trackio, on our side: its names and ids, and the rows that tell of it.

Promises: the same events make the same rows with the same ids, in any process that takes
`attributes` over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asynccb._ground.plain import clean
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.names import run_config
from asynccb.trackers.shared.nvml import GPU
from asynccb.trackers.trackio.settings import TrackioSettings
from asynccb.trackers.trackio.values import AlertRow, MetricRow, SystemRow, gpu_metrics, moment


class TrackioRun:
    """The rows of a run: their numbers, and the fields that they share."""

    def __init__(self, settings: TrackioSettings) -> None:
        self._settings = settings
        self._description: RunDescription | None = None
        self.project = ""
        self.id: str | None = None
        """Id on the server, once it is known: ours, or that of a run that goes on."""
        self.named: str | None = None
        """The name that somebody has given."""
        self.count = 0
        """Rows so far."""
        self.step = 0
        """Global step of the last row."""

    def describe(self, run: RunDescription) -> None:
        """Take the description, which settles project and name."""
        self._description = run
        self.project = self._settings.project_of(run.args)
        if self.named is None:
            self._take_name(self._settings.run_name or getattr(run.args, "run_name", None))

    @property
    def key(self) -> str:
        """Our own name for the run, which is its id unless an older one goes on."""
        assert self._description is not None
        return self._description.key

    @property
    def name(self) -> str:
        """The run's name; a made-up name tells runs apart."""
        return self.named or f"run-{self.key[:8]}"

    def row(self, metrics: dict[str, Any], step: int, time: int, trial: str | None) -> MetricRow:
        """Return the next row; a search's trial gives the name, unless one was given to us."""
        if trial is not None and not self.count and self._settings.run_name is None:
            self._take_name(trial)
        self.step = step
        self.count += 1
        return MetricRow(
            project=self.project,
            run=self.name,
            run_id="",  # known when it is sent
            metrics=metrics,
            step=step,
            config=self._config() if self.count == 1 else None,
            log_id=f"{self.key}-{self.count - 1}",
            timestamp=moment(time),
        )

    def gpu_row(self, gpus: Iterable[GPU], time: int) -> SystemRow:
        """Return a row of the machine's figures."""
        return SystemRow(
            project=self.project,
            run=self.name,
            run_id=self.id or self.key,
            metrics=gpu_metrics(gpus),
            timestamp=moment(time),
            log_id=f"{self.key}-gpu-{time}",
        )

    def end(self, status: RunStatus, time: int) -> AlertRow:
        """Return what says that the run did not finish."""
        return AlertRow(
            project=self.project,
            run=self.name,
            run_id=self.id or self.key,
            title=f"Run {status}",
            text=f"The training ended as {status}, at step {self.step}.",
            level="error",
            step=self.step,
            timestamp=moment(time),
            alert_id=f"{self.key}-end",
        )

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that a new object needs to continue."""
        return {"id": self.id, "named": self.named, "count": self.count, "step": self.step}

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take them back."""
        self.id, self.named = attributes["id"], attributes["named"]
        self.count, self.step = attributes["count"], attributes["step"]

    def _take_name(self, name: object) -> None:
        self.named = None if name is None else str(clean(str(name)))

    def _config(self) -> dict[str, Any]:
        assert self._description is not None
        run = self._description
        config = run_config(run)
        if run.model is not None:
            config["model/num_parameters"] = run.model.parameters
        shown = {"_Username": run.user, "_Created": moment(run.started)}
        return {**config, **shown, "_Group": self._settings.group}
