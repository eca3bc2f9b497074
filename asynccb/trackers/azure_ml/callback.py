"""
AzureML: a workspace's MLflow interface and its artifact store, without packages.

Promises: the same as the MLflow tracker, within the limits of a workspace. A job is never ended
from inside: the service sets its state. AzureML does not document whether it stores a point once if
it is sent twice; each point has a fixed time and step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from asynccb._ground.events import Event
from asynccb._ground.exceptions import ConfigurationError
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.delivery.client import Client
from asynccb.trackers.azure_ml.access import MARGIN, identity_token, job_token
from asynccb.trackers.azure_ml.files import put_blob
from asynccb.trackers.azure_ml.settings import AzureMLSettings, is_configured, resolve
from asynccb.trackers.mlflow.access import transport
from asynccb.trackers.mlflow.api import Limits, MLflowServer, RunInfo
from asynccb.trackers.mlflow.run import MLflowRun
from asynccb.trackers.mlflow.tracker import MLflowTracker
from asynccb.trackers.shared.token import Keeper
from asynccb.trackers.shared.utf8 import in_utf8

logger = logging.getLogger("asynccb")

_LIMITS: Final = Limits(metrics=200, pairs=50, params=200)
"""A request takes 250 values of a metric (200 on old back ends), a run 200 parameters."""
_STUDIO: Final = "https://ml.azure.com/runs"
_HINT: Final = "see that the identity may write to the workspace"


class AzureMLCallback(MLflowTracker[Client]):
    """
    Log a run to an AzureML workspace, like `MLflowCallback`, within the workspace's limits.

    `tracking_uri` [`MLFLOW_TRACKING_URI`] is the workspace's address, `azureml://…`. Instead of it
    and of `run_id`, `azureml_run` accepts a live `Run` of azureml-core. `experiment_name`,
    `run_id`, `tags`, `nested_run`, `flatten_params`, `max_log_params` and `log_artifacts`, which
    stores each checkpoint with the run, work as in `MLflowCallback`, with its variables.

    In a job, variables name the run [`MLFLOW_RUN_ID`, `AZUREML_RUN_ID`]. The run is then that job:
    metrics are added to it, and its state is left alone. A run that `mlflow.start_run` has begun is
    not looked at. Metrics keep their names, whatever `names` is, and are logged at the global step,
    which transformers leaves out. At most 200 parameters are logged; further ones are rejected with
    a warning.

    The token is `MLFLOW_TRACKING_TOKEN` or `AZUREML_RUN_TOKEN`, which the service renews before it
    expires; else that of a service principal (`AZURE_TENANT_ID`, `AZURE_CLIENT_ID`,
    `AZURE_CLIENT_SECRET`); else a token that the package azure-identity finds, if it is installed.
    Raises `ConfigurationError` for a setting that cannot work.
    """

    name: ClassVar[str] = "azure_ml"
    interval: ClassVar[float] = 2.0
    beat = 30.0
    settings_type = AzureMLSettings
    settings: AzureMLSettings

    def __init__(
        self,
        azureml_run: Any = None,
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
        if azureml_run is not None:
            if tracking_uri is not None or run_id is not None:
                raise ConfigurationError("give azureml_run, or tracking_uri and run_id, not both")
            tracking_uri, run_id = _place_of(azureml_run)
        transport(os.environ)  # raises for a bad certificate or timeout here, and not later
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))

    def set_up(self, settings: AzureMLSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        self.uploads = (Event.SAVE,) if settings.log_artifacts else ()
        self._mlflow = MLflowRun(
            settings, self.reject, limits=_LIMITS, ends=not settings.is_job, found=self._adopt
        )
        self._region: Client | None = None
        self._keeper: Keeper | None = None

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether `MLFLOW_TRACKING_URI` names a workspace."""
        return is_configured(environ)

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store a file under its checkpoint's name."""
        assert self._region is not None
        run = self._mlflow.info
        assert run is not None  # or the run has not begun
        await self._renew()
        path = self.settings.run_path(run.run_id, run.experiment_id)
        await put_blob(self._region, path, file.path, f"{kept.name}/{file.name}")

    def connect(self) -> Client:
        """Find the source of tokens; the first one is requested when the run begins."""
        settings, reach = self.settings, transport(os.environ)
        path = None
        if settings.run_id is not None and settings.experiment_id is not None:
            path = settings.run_path(settings.run_id, settings.experiment_id)
        source = job_token(os.environ, settings.host, path, reach)
        self._keeper = Keeper(source or identity_token(os.environ, reach), MARGIN)
        return Client(settings.host, transport=reach)

    async def begin(self, client: Client) -> None:
        """Request a token, then find or create the experiment and the run."""
        assert self._keeper is not None  # or there is no connection
        if self._region is None:
            self._workspace = await self._open(self.settings.tracking_uri, self._keeper)
            self._region = await self._open(self.settings.host, self._keeper)
        await self._renew()  # the server may have been out of reach for long
        await self._mlflow.begin(MLflowServer(self._workspace))

    async def send(self, client: Client) -> None:
        """Send the queued records."""
        await self._renew()
        await super().send(client)

    async def heartbeat(self) -> None:
        """Renew the token when that is due, even if nothing is logged."""
        await self._renew()

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        if self._region is not None:
            await self._region.close()
            await self._workspace.close()

    async def _open(self, address: str, keeper: Keeper) -> Client:
        return Client(
            address,
            headers=await keeper.headers(),
            transport=transport(os.environ),
            hint=_HINT,
            renew=keeper.renewed,
        )

    async def _renew(self) -> None:
        """Renew the token if it is about to expire: an expired one could not request the next."""
        if self._keeper is not None and self._keeper.is_ending and self._region is not None:
            await self._workspace.renew()
            await self._region.renew()

    def _adopt(self, run: RunInfo) -> None:
        workspace = self.settings.workspace
        self.address = f"{_STUDIO}/{run.run_id}?wsid={workspace}"
        logger.info("AzureML run: %s", self.address)


def _place_of(run: Any) -> tuple[str, str]:
    """Return the workspace's address and the id of a live run."""
    try:
        return run.experiment.workspace.get_mlflow_tracking_uri(), run.id
    except AttributeError as error:
        raise ConfigurationError(
            f"azureml_run is {run!r}, which is no Run of azureml-core in a workspace ({error})"
        ) from None
