"""
MLflow over its REST interface, without the `mlflow` package.

Promises: each point is on the server once, with the step, the time and the value of the record,
whatever was retried or replayed on the way; a run is created once; the run ends with the state that
the training ended with.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from asynccb._events import Event
from asynccb._run import PlainArguments, RunStatus
from asynccb.delivery.client import Client
from asynccb.delivery.uploads import Folder, Kept, KeptFile
from asynccb.trackers._environment import switch
from asynccb.trackers._mlflow_access import open_client, transport
from asynccb.trackers._mlflow_artifacts import find_store
from asynccb.trackers._mlflow_names import PARAMETER_LENGTH, entity_key, text_value
from asynccb.trackers._mlflow_outbox import Outbox
from asynccb.trackers._mlflow_rest import Limits, MLflowServer, RunInfo, RunState
from asynccb.trackers._mlflow_settings import MLflowSettings, resolve
from asynccb.trackers._models import model_folder
from asynccb.trackers.payload import flatten, run_config
from asynccb.trackers.server import ServerTracker

if TYPE_CHECKING:
    from asynccb._state import StateSnapshot, TrainerState

logger = logging.getLogger("asynccb")

_STATES: Final[dict[RunStatus, RunState]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "crashed": "FAILED",
    "killed": "KILLED",
}
_EXPERIMENT: Final = "Default"
"""The experiment that every MLflow server starts with."""


class MLflowCallback(ServerTracker):
    """
    Log a run to an MLflow server: parameters, tags, metrics, checkpoints and how it ended.

    Every argument left as None takes its environment variable, named in brackets:

    * `tracking_uri` [`MLFLOW_TRACKING_URI`]: the server's address, `http(s)://host:port/prefix`.
      A user and password in the variable's address are used, but not kept; in the argument they
      are refused.
    * `experiment_name` [`MLFLOW_EXPERIMENT_NAME`], by default `"Default"`: created if missing.
    * `run_id` [`MLFLOW_RUN_ID`]: the run to continue, instead of a new one.
    * `tags` [`MLFLOW_TAGS`, a JSON object].
    * `nested_run` [`MLFLOW_NESTED_RUN`]: make a new run that is a child of `run_id`, in its
      experiment unless one is named. (transformers takes the process's active run as the parent.)
    * `flatten_params` [`MLFLOW_FLATTEN_PARAMS`]: log nested parameters one by one, as `a.b`.
    * `max_log_params` [`MLFLOW_MAX_LOG_PARAMS`]: log only so many parameters.
    * `log_artifacts` [`HF_MLFLOW_LOG_ARTIFACTS`]: upload each checkpoint as `checkpoint-<step>`.

    Metrics keep their names; characters other than ASCII letters, digits and `_ - . space : /`
    become `_`. Parameters are the model's configuration under the training arguments; a value above
    6,000 characters is left out. A training that is resumed from a checkpoint goes on with the run
    of the interrupted one; the server keeps the first value that a parameter got, so that those
    that have changed are rejected. Credentials, certificates and the time-out are
    MLflow's own: `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`, `MLFLOW_TRACKING_TOKEN`,
    `~/.mlflow/credentials`, `MLFLOW_TRACKING_INSECURE_TLS`, `MLFLOW_TRACKING_SERVER_CERT_PATH`,
    `MLFLOW_TRACKING_CLIENT_CERT_PATH`, `MLFLOW_HTTP_REQUEST_TIMEOUT`.

    Raises `ConfigurationError` for a setting that cannot work, such as a database's address.
    """

    name: ClassVar[str] = "mlflow"
    settings_type = MLflowSettings
    settings: MLflowSettings
    limits: ClassVar[Limits] = Limits()

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        nested_run: bool | None = None,
        flatten_params: bool | None = None,
        max_log_params: int | None = None,
        log_artifacts: bool | None = None,
    ) -> None:
        given = {
            "tracking_uri": tracking_uri,
            "experiment_name": experiment_name,
            "run_id": run_id,
            "tags": tags,
            "nested_run": nested_run,
            "flatten_params": flatten_params,
            "max_log_params": max_log_params,
            "log_artifacts": log_artifacts,
        }
        transport(os.environ)  # A bad certificate or time-out is to be refused here, not later.
        self.set_up(resolve(given, os.environ))

    def set_up(self, settings: MLflowSettings) -> None:
        """Take the settings."""
        super().set_up(settings)
        self.uploads = (Event.SAVE,) if settings.log_artifacts else ()
        self._outbox = Outbox(self.limits)
        self._server: MLflowServer | None = None
        self._run: RunInfo | None = None
        self._introduced = False

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Tell whether there is an address and `DISABLE_MLFLOW_INTEGRATION` is not on."""
        address = environ.get("MLFLOW_TRACKING_URI", "").strip()
        return bool(address) and not switch(environ, "DISABLE_MLFLOW_INTEGRATION")

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Queue parameters and tags; a run that is continued runs again."""
        self._introduce()
        self._outbox.set_state("RUNNING")

    async def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue the numbers."""
        self._queue_metrics(logs, state.global_step)

    async def on_predict(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Queue the numbers of a prediction, which come as `test_*`."""
        self._queue_metrics(metrics, state.global_step)

    async def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Have the event in the journal; `files` says what is uploaded."""

    async def on_train_end(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Queue the end of the run; the server takes what is logged after it all the same."""
        self._outbox.set_state("FINISHED", _milliseconds(self.time))

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the checkpoint's folder."""
        return model_folder(event, args, state, self.reject)

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store a file below its checkpoint's name."""
        assert self._run is not None  # or the run has not begun
        store = find_store(client, self._run.artifact_uri)
        await store.put(file.path, f"{kept.name}/{file.name}")

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._outbox)

    def connect(self) -> Client:
        """Look up the credentials, which may be in a file, and make the client."""
        return open_client(self.settings.tracking_uri, os.environ)

    async def begin(self, client: Client) -> None:
        """Find or create the experiment and the run."""
        self._server = MLflowServer(client)
        if self._run is None:
            self._adopt(await self._find_run(self._server))

    async def send(self, client: Client) -> None:
        """Send what is queued."""
        assert self._server is not None
        assert self._run is not None  # or the run has not begun
        await self._outbox.send(self._server, self._run, self.reject)

    async def finish(self, status: RunStatus) -> None:
        """Set the run's final state, unless nothing ever happened in it."""
        if self._run is None and not self._outbox:
            return
        self._outbox.set_state(_STATES[status], _milliseconds(self.time))
        await self.flush()

    def attributes(self) -> dict[str, Any]:
        """Return the run, once the server has made it, and where that is."""
        run = None if self._run is None else msgspec.to_builtins(self._run)
        return {"run_info": run, "tracking_uri": self.settings.tracking_uri}

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Go on with the run, unless the settings name another one, or another server."""
        settings, run = self.settings, attributes.get("run_info") or {}
        given = None if settings.nested_run else settings.run_id
        same_server = attributes.get("tracking_uri") == settings.tracking_uri
        if same_server and given in (None, run.get("run_id")):
            return super().resume(attributes)
        logger.warning(
            "MLflow: the interrupted training logged elsewhere (%s, run %s), as the settings were; "
            "the resumed one does not go on there",
            *(attributes.get("tracking_uri"), run.get("run_id")),
        )
        return False

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Take back the run."""
        run = attributes.get("run_info")
        if run is not None:
            self._introduced = True
            self._adopt(msgspec.convert(run, RunInfo))

    def _introduce(self) -> None:
        """Queue what describes the run."""
        self._introduced = True
        self._outbox.add_tags(self.settings.tags)
        self._outbox.add_params(self._params())

    def _params(self) -> dict[str, str]:
        config = run_config(self.run)
        if self.settings.flatten_params:
            config = flatten(config)
        params: dict[str, str] = {}
        for name, value in config.items():
            key, text = entity_key(name), text_value(value)
            if len(text) > PARAMETER_LENGTH:
                self.reject(
                    f"the parameter {name!r}",
                    f"its value has {len(text)} characters, and MLflow takes {PARAMETER_LENGTH}; "
                    "set flatten_params=True or MLFLOW_FLATTEN_PARAMS=1 if it is nested",
                )
            else:
                params.setdefault(key, text)
        return dict(list(params.items())[: self.settings.max_log_params])

    def _queue_metrics(self, values: Mapping[str, Any] | None, step: int) -> None:
        if not self._introduced:
            self._introduce()
        self._outbox.add_metrics(self.numbers(values), _milliseconds(self.time), int(step))

    async def _find_run(self, server: MLflowServer) -> RunInfo:
        settings, tags = self.settings, self._source_tags()
        experiment = settings.experiment_name
        if settings.run_id is not None:
            given = await server.run(settings.run_id)
            if not settings.nested_run:
                return given
            tags["mlflow.parentRunId"] = given.run_id
            if experiment is None:
                return await self._make_run(server, given.experiment_id, tags)
        experiment_id = await server.experiment(experiment or _EXPERIMENT)
        return await self._make_run(server, experiment_id, tags)

    async def _make_run(
        self, server: MLflowServer, experiment_id: str, tags: Mapping[str, str]
    ) -> RunInfo:
        return await server.run_with_key(
            self.run.key,
            experiment_id,
            start_time=_milliseconds(self.run.started),
            name=getattr(self.run.args, "run_name", None),
            tags=tags,
        )

    def _source_tags(self) -> dict[str, str]:
        """Return the tags that MLflow's own pages show."""
        tags = {"mlflow.user": self.run.user, "mlflow.source.name": self.run.script}
        return {"mlflow.source.type": "LOCAL", **{key: tag for key, tag in tags.items() if tag}}

    def _adopt(self, run: RunInfo) -> None:
        self._run = run
        self.address = (
            f"{self.settings.tracking_uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
        )
        logger.info("MLflow run: %s", self.address)


def _milliseconds(nanoseconds: int) -> int:
    return nanoseconds // 1_000_000
