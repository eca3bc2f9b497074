"""
Report one run to a server with MLflow's protocol, for every tracker with such a server.

A tracker owns one `MLflowRun` and passes the arguments of its hooks to it. Promises: a run is
created once. Each point is sent with the step, time and value of its record, also after retries and
replays. Nothing that the server would refuse is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from asynccb._ground.plain import flatten
from asynccb._ground.types import RunStatus
from asynccb._state.run_description import RunDescription
from asynccb.trackers.mlflow.api import Limits, MLflowApi, RunInfo, RunState
from asynccb.trackers.mlflow.outbox import Outbox
from asynccb.trackers.mlflow.settings import MLflowSettings
from asynccb.trackers.mlflow.values import KEY_LENGTH, PARAMETER_LENGTH, entity_key, text_value
from asynccb.trackers.names import marked, run_config
from asynccb.trackers.shared.answers import Reject

logger = logging.getLogger("asynccb")

_STATES: Final[dict[RunStatus, RunState]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "crashed": "FAILED",
    "killed": "KILLED",
}
_EXPERIMENT: Final = "Default"
"""The experiment that exists on every MLflow server from its start."""


class MLflowRun:
    """
    The reporter of one run, which gathers data and sends it to the server.

    The run's state is set only if `ends` is true, and never that of the run that the training's
    own process began. `found` is called once the run is known.
    """

    def __init__(
        self,
        settings: MLflowSettings,
        reject: Reject,
        *,
        limits: Limits | None = None,
        ends: bool = True,
        found: Callable[[RunInfo], None],
    ) -> None:
        self._settings = settings
        self._reject = reject
        self._limits = limits or Limits()
        self._ends = ends
        self._found = found
        self._outbox = Outbox(self._limits)
        self._server: MLflowApi | None = None
        self._description: RunDescription | None = None
        self._introduced = False
        self._active: str | None = None
        self.info: RunInfo | None = None
        """The server's description of the run; None until the run is found or created."""

    def describe(self, run: RunDescription) -> None:
        """Set the description of the run."""
        self._description = run

    def join(self, run_id: str) -> None:
        """
        Log into the run that is active in the training's process, or below it if nested.

        As in transformers, unless the settings name another run.
        """
        self._active = run_id
        if self.info is not None and self._given not in (None, self.info.run_id):
            logger.warning(
                "MLflow: the run %s is active, but this callback has begun the run %s and goes on "
                "there",
                *(run_id, self.info.run_id),
            )

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._outbox)

    def begin_training(self) -> None:
        """Queue parameters, tags and the state; a continued run becomes "running" again."""
        self._introduce()
        self._set_state("RUNNING")

    def end_training(self, time: int) -> None:
        """Queue the end of the run; the server still accepts later logs."""
        self._set_state("FINISHED", time)

    def add(self, numbers: Mapping[str, float], step: int, time: int) -> None:
        """Queue a point for each number; `time` is in nanoseconds."""
        if not self._introduced:
            self._introduce()
        self._outbox.add_metrics(numbers, time // 1_000_000, int(step))

    async def begin(self, server: MLflowApi) -> None:
        """Find or create the experiment and the run."""
        self._server = server
        if self.info is None:
            self._adopt(await self._find(server))

    async def send(self) -> None:
        """Send the queued data; `begin` must have returned."""
        assert self._server is not None
        assert self.info is not None
        await self._outbox.send(self._server, self.info, self._reject)

    def finish(self, status: RunStatus, time: int) -> None:
        """Queue the run's final state, unless the run was never used."""
        if self.info is not None or self._outbox:
            self._set_state(_STATES[status], time)

    def attributes(self) -> dict[str, Any]:
        """Return the run, or None until the server has created it, and the server's address."""
        run = None if self.info is None else msgspec.to_builtins(self.info)
        return {"run_info": run, "tracking_uri": self._settings.tracking_uri}

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the run and return True, unless the settings name another run or server."""
        settings, run = self._settings, attributes.get("run_info") or {}
        same_server = attributes.get("tracking_uri") == settings.tracking_uri
        if same_server and self._given in (None, run.get("run_id")):
            self.restore(attributes)
            return True
        logger.warning(
            "MLflow: the interrupted training logged elsewhere (%s, run %s), and the settings, or "
            "the active run, have changed; the resumed training does not continue that run",
            *(attributes.get("tracking_uri"), run.get("run_id")),
        )
        return False

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the run that `attributes` has returned."""
        info = attributes.get("run_info")
        if info is not None:
            self._introduced = True
            self._adopt(msgspec.convert(info, RunInfo))

    @property
    def _run(self) -> RunDescription:
        assert self._description is not None  # or no hook has been called
        return self._description

    def _adopt(self, info: RunInfo) -> None:
        self.info = info
        self._found(info)

    @property
    def _given(self) -> str | None:
        """The run to log into, as the settings or the training's process name it."""
        if self._settings.nested_run:
            return None
        return self._settings.run_id or self._active

    @property
    def _is_ours(self) -> bool:
        """Whether the state of the run is for us to set."""
        run = self._given if self.info is None else self.info.run_id
        return self._ends and (self._active is None or run != self._active)

    def _set_state(self, state: RunState, time: int | None = None) -> None:
        if self._is_ours:
            self._outbox.set_state(state, None if time is None else time // 1_000_000)

    def _introduce(self) -> None:
        """Queue the run's tags and parameters."""
        self._introduced = True
        self._outbox.add_tags(self._settings.tags)
        self._outbox.add_params(self._params())

    def _params(self) -> dict[str, str]:
        config = run_config(self._run)
        if self._settings.flatten_params:
            config = flatten(config)
        params: dict[str, str] = {}
        for name, value in config.items():
            key, text = entity_key(name), text_value(value)
            if len(text) > PARAMETER_LENGTH:
                self._leave_out(
                    name,
                    f"its value has {len(text)} characters, MLflow accepts {PARAMETER_LENGTH}; if "
                    "it is nested, set flatten_params=True or MLFLOW_FLATTEN_PARAMS=1",
                )
            else:
                params[marked(key, name, KEY_LENGTH) if key in params else key] = text
        return self._as_many_as_allowed(params)

    def _as_many_as_allowed(self, params: dict[str, str]) -> dict[str, str]:
        """Leave out parameters beyond the number in the settings and the server's limit."""
        wanted = list(params.items())[: self._settings.max_log_params]
        most = self._limits.params
        for name, _ in wanted[most:] if most is not None else ():
            self._leave_out(name, f"the server accepts {most} parameters a run")
        return dict(wanted[:most])

    def _leave_out(self, name: str, why: str) -> None:
        self._reject(f"the parameter {name!r}", why, cause=f"parameter: {why}", record=None)

    async def _find(self, server: MLflowApi) -> RunInfo:
        if self._given is not None:
            return await server.run(self._given)
        settings, tags = self._settings, self._source_tags()
        experiment = settings.experiment_name
        parent = (settings.run_id or self._active) if settings.nested_run else None
        if parent is not None:
            found = await server.run(parent)
            tags["mlflow.parentRunId"] = found.run_id
            if experiment is None:
                return await self._make(server, found.experiment_id, tags)
        elif settings.nested_run:
            logger.info("MLflow: no run is active for a nested run to be below; it has no parent")
        experiment_id = await server.experiment(experiment or _EXPERIMENT)
        return await self._make(server, experiment_id, tags)

    async def _make(
        self, server: MLflowApi, experiment_id: str, tags: Mapping[str, str]
    ) -> RunInfo:
        return await server.run_with_key(
            self._run.key,
            experiment_id,
            start_time=self._run.started // 1_000_000,
            name=getattr(self._run.args, "run_name", None),
            tags=tags,
        )

    def _source_tags(self) -> dict[str, str]:
        """Return the tags that MLflow's own pages display."""
        tags = {"mlflow.user": self._run.user, "mlflow.source.name": self._run.script}
        return {"mlflow.source.type": "LOCAL", **{key: tag for key, tag in tags.items() if tag}}
