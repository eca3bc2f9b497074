"""
MLflow: a server over its REST interface, without the package `mlflow`, or a store of that package.

Promises: each point is there once, with the step, the time and the value of the record,
however often it was retried or replayed on the way. A run is created once. The run ends with the
state that the training ended with.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from asynccb._ground.environment import switch
from asynccb._ground.events import Event
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.trackers.mlflow.access import open_client, transport
from asynccb.trackers.mlflow.address import is_store
from asynccb.trackers.mlflow.api import MLflowApi, MLflowServer, RunInfo
from asynccb.trackers.mlflow.run import MLflowRun
from asynccb.trackers.mlflow.settings import MLflowSettings, is_hosted, resolve
from asynccb.trackers.mlflow.store import MLflowStore
from asynccb.trackers.mlflow.tracker import MLflowTracker
from asynccb.trackers.mlflow.training import MLflowTraining
from asynccb.trackers.shared.utf8 import in_utf8

logger = logging.getLogger("asynccb")


class MLflowCallback(MLflowTracker[MLflowApi]):
    """
    Log a run to MLflow: parameters, tags, metrics, checkpoints and how it ended.

    Each argument left as None is read from its environment variable, named in brackets:

    * `tracking_uri` [`MLFLOW_TRACKING_URI`]: the server's address, `http(s)://host:port/prefix`, or
      a store on this machine: `sqlite:///runs.db`, or a folder as a path or `file://…`. Unset, it
      is what it is for MLflow 3.17: `mlruns` in the working directory if experiments are there,
      else `sqlite:///mlflow.db`. A user and password in the variable's address are used, but not
      stored. In the argument they raise an error.
    * `experiment_name` [`MLFLOW_EXPERIMENT_NAME`], by default `"Default"`; created if missing.
    * `run_id` [`MLFLOW_RUN_ID`]: the run to continue, instead of a new one.
    * `tags` [`MLFLOW_TAGS`, a JSON object].
    * `nested_run` [`MLFLOW_NESTED_RUN`]: make a new run that is a child of `run_id`, else of the
      active run, in the parent's experiment unless `experiment_name` is set. Without either, the
      new run has no parent.
    * `flatten_params` [`MLFLOW_FLATTEN_PARAMS`]: log nested parameters one by one, as `a.b`.
    * `max_log_params` [`MLFLOW_MAX_LOG_PARAMS`]: log at most so many parameters.
    * `log_artifacts` [`HF_MLFLOW_LOG_ARTIFACTS`]: upload each checkpoint as `checkpoint-<step>`.

    If the training's process has imported `mlflow` and has an active run at the same address on the
    training thread when the training begins, that run is logged into, unless `run_id` names
    another one. The process ends it: its status is left alone, even if the training is killed.

    A store on this machine needs the package `mlflow` (extra `mlflow`), whose own client writes it
    on a thread of the companion; the training does not import it. Several runs may share it.
    Its artifacts go to `mlruns` in the training's working directory. MLflow 3.17 refuses folders
    unless `MLFLOW_ALLOW_FILE_STORE=true`. Its reports of use (telemetry) are switched off there,
    unless `MLFLOW_DISABLE_TELEMETRY` says otherwise.

    Metrics keep their names, whatever `names` is; characters other than letters and digits of any
    script and `_ - . space : /` become `_`, and a checksum keeps such a name apart from others.
    Parameters are the training arguments and the model's configuration; if both contain a name, the
    argument wins. A value above 6,000 characters is left out. A training that is resumed from a
    checkpoint continues the run of the interrupted training. The server keeps the first value of
    each parameter, so a changed parameter is rejected.

    Credentials, certificates and the timeout are set by MLflow's own `MLFLOW_TRACKING_USERNAME` and
    `_PASSWORD`, `MLFLOW_TRACKING_TOKEN`, `~/.mlflow/credentials`, `MLFLOW_TRACKING_INSECURE_TLS`,
    `MLFLOW_TRACKING_SERVER_CERT_PATH`, `MLFLOW_TRACKING_CLIENT_CERT_PATH` and
    `MLFLOW_HTTP_REQUEST_TIMEOUT`.

    Raises `ConfigurationError` for a setting that cannot work, such as another database's address,
    or a store without the package.
    """

    name: ClassVar[str] = "mlflow"
    settings_type = MLflowSettings
    settings: MLflowSettings

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
        names: str | None = None,
    ) -> None:
        transport(os.environ)  # raises for a bad certificate or timeout here, and not later
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))

    def set_up(self, settings: MLflowSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        self.local = is_store(settings.tracking_uri)
        self.uploads = (Event.SAVE,) if settings.log_artifacts else ()
        self.training_side = MLflowTraining(settings.tracking_uri)
        self._mlflow = MLflowRun(settings, self.reject, found=self._adopt)

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """
        Return whether there is an address and `DISABLE_MLFLOW_INTEGRATION` is not on.

        Addresses of AzureML and DagsHub do not count: their own trackers do the same and more.
        """
        address = environ.get("MLFLOW_TRACKING_URI", "").strip()
        off = switch(environ, "DISABLE_MLFLOW_INTEGRATION")
        return bool(address) and not off and not is_hosted(address, environ)

    async def upload_file(self, connection: MLflowApi, kept: Kept, file: KeptFile) -> None:
        """Store a file under its checkpoint's name."""
        assert self._mlflow.info is not None  # or the run has not begun
        await connection.store_file(self._mlflow.info, file.path, f"{kept.name}/{file.name}")

    def connect(self) -> MLflowApi:
        """Open the store; for a server, look up the credentials, in variables and in a file."""
        if self.local:
            return MLflowStore(self.settings.tracking_uri, self.settings.folder)
        return MLflowServer(open_client(self.settings.tracking_uri, os.environ))

    async def begin(self, connection: MLflowApi) -> None:
        """Find or create the experiment and the run."""
        await self._mlflow.begin(connection)

    def _adopt(self, run: RunInfo) -> None:
        if self.local:
            self.address = self.settings.tracking_uri
            logger.info(
                "MLflow run: %s in %s; `mlflow ui --backend-store-uri %s` shows it",
                *(run.run_id, self.address, shlex.quote(self.address)),
            )
            return
        self.address = (
            f"{self.settings.tracking_uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
        )
        logger.info("MLflow run: %s", self.address)
