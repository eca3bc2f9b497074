"""
One run of SwanLab, on our side: its name, its id and its description.

Promises: the same events give the same description, in any process that takes over `attributes`.
Names of the configuration follow transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asynccb._ground.plain import clean
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.names import run_config
from asynccb.trackers.swanlab.api import State
from asynccb.trackers.swanlab.settings import SwanLabSettings
from asynccb.trackers.swanlab.values import moment

STATES: Final[dict[RunStatus, State]] = {
    "finished": "FINISHED",
    "failed": "CRASHED",
    "killed": "ABORTED",
    "crashed": "CRASHED",
}
_FRAMEWORK: Final = "\N{HUGGING FACE}transformers"
_COLORS: Final = ("#2f6fed", "#d2542b", "#3a9d5d", "#8a4fbf", "#c29a1f", "#2a9db0", "#c2457f")
_ID: Final = 16
_NAME: Final = 512


class SwanLabRun:
    """The description of a run."""

    def __init__(self, settings: SwanLabSettings) -> None:
        self._settings = settings
        self._description: RunDescription | None = None
        self._trial: str | None = None
        self.begun = False
        """Whether anything was logged, since which the run's name stays."""
        self.step: int | None = None
        """The last step that was logged as a value."""

    def describe(self, run: RunDescription) -> None:
        """Take the description."""
        self._description = run

    def begin(self, trial: str | None) -> None:
        """Take the name of a search's trial, which is known from the first log."""
        self.begun, self._trial = True, trial

    @property
    def description(self) -> RunDescription:
        """The companion's description of the run."""
        assert self._description is not None  # or no event has come
        return self._description

    @property
    def id(self) -> str:
        """The given id, or an id that every process of this run makes alike."""
        return self._settings.run_id or self.description.key[:_ID]

    @property
    def name(self) -> str:
        """The run's name: given, of arguments and trial, or made up."""
        if self._settings.name is not None:
            return self._settings.name[:_NAME]
        named = getattr(self.description.args, "run_name", None) or self._settings.usual_name
        parts = [str(clean(str(part))) for part in (named, self._trial) if part]
        return "-".join(parts)[:_NAME] or f"run-{self.description.key[:8]}"

    @property
    def color(self) -> str:
        """The color of its curves."""
        return _COLORS[int(self.description.key, 16) % len(_COLORS)]

    def about(self) -> dict[str, Any]:
        """Return the fields that make the run on a server, without empty ones."""
        settings = self._settings
        told = {
            "name": self.name,
            "description": settings.description,
            "createdAt": moment(self.description.started),
            "colors": [self.color, self.color],
            "labels": [{"name": tag} for tag in settings.tags],
            "job": settings.job_type,
            "cluster": settings.group,
            "cuid": self.id,
        }
        return {key: value for key, value in told.items() if value}

    def config(self) -> dict[str, dict[str, Any]]:
        """Return the whole configuration as SwanLab has it, each value with its place."""
        run = self.description
        config = {"FRAMEWORK": _FRAMEWORK, **run_config(run)}
        if run.model is not None:
            config["model_num_parameters"] = run.model.parameters
            if run.model.peft_config is not None:
                config["peft_model_trainable_params"] = run.model.trainable
                config["peft_model_all_param"] = run.model.parameters
        return {
            key: {"value": value, "sort": place, "desc": ""}
            for place, (key, value) in enumerate(config.items())
        }

    def metadata(self) -> dict[str, Any]:
        """Return the facts of the process that trains."""
        run = self.description
        about = {"hostname": run.host, "pid": run.pid or None, "command": run.script}
        return {"_version": 2, "runtime": {key: value for key, value in about.items() if value}}

    def ending(self, status: RunStatus) -> str | None:
        """Return the line with the reason of a bad end; None for a run that ended well."""
        return None if status == "finished" else f"The training ended as {status}."

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that a new object needs to continue."""
        return {"trial": self._trial, "begun": self.begun, "step": self.step}

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take it back."""
        self._trial, self.begun = attributes["trial"], attributes["begun"]
        self.step = attributes["step"]
