"""
An AzureML tracker's settings, and the parts of a workspace's address.

Facts are from azureml-mlflow 1.62. Promises: an invalid setting raises in the constructor; the
stored settings contain no credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.mlflow import settings as mlflow
from asynccb.trackers.shared.addresses import quoted, split

_WORKSPACE: Final = re.compile(
    r"/mlflow/v\d+(?:\.\d+)?(/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
    r"Microsoft\.MachineLearningServices/workspaces/[^/]+)/?",
    re.IGNORECASE,
)

_VERSION: Final = "v2.0"
"""Version of the workspace's MLflow interface for clients of MLflow 2 and 3. It is used even if the
address names another version."""


@dataclass(frozen=True)
class AzureMLSettings(mlflow.MLflowSettings):
    """An AzureML tracker's settings as plain data; `AzureMLCallback` documents them."""

    host: str
    """Scheme, host and port of the workspace's region."""
    workspace: str
    """Path that names the workspace, from `/subscriptions` on."""
    experiment_id: str | None
    is_job: bool
    """Whether `run_id` is the job that this process runs in; the service sets a job's state."""

    @property
    def history(self) -> str:
        """Path of the workspace's run history."""
        return f"history/v1.0{self.workspace}"

    def run_path(self, run_id: str, experiment_id: str) -> str:
        """Return the path of a run in the history."""
        return f"{self.history}/experimentids/{experiment_id}/runs/{run_id}"


def resolve(given: Mapping[str, Any], environ: Mapping[str, str]) -> AzureMLSettings:
    """Return the settings: the arguments, and for each that is None, its environment variable."""
    host, workspace = _address(given["tracking_uri"], environ)
    address = f"{host}/mlflow/{_VERSION}{workspace}"
    settings = mlflow.resolve({**given, "tracking_uri": address}, environ)
    job = environ.get("AZUREML_RUN_ID", "").strip()
    values = asdict(settings)
    if settings.run_id is None and job:
        values["run_id"] = job
    return AzureMLSettings(
        **values,
        host=host,
        workspace=workspace,
        experiment_id=environ.get("MLFLOW_EXPERIMENT_ID", "").strip()
        or environ.get("AZUREML_EXPERIMENT_ID", "").strip()
        or None,
        is_job=bool(job) and values["run_id"] == job and not settings.nested_run,
    )


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether `MLFLOW_TRACKING_URI` names a workspace."""
    return mlflow.is_azure(environ.get("MLFLOW_TRACKING_URI", "").strip())


def _address(given: object, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return scheme and host, and the workspace's path, of an `azureml://` address."""
    address = given if given is not None else environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not isinstance(address, str) or not mlflow.is_azure(address):
        raise ConfigurationError(
            "AzureML needs the address of a workspace, azureml://REGION.api.azureml.ms/mlflow/v1.0/"
            "subscriptions/…, as tracking_uri= or MLFLOW_TRACKING_URI; "
            "`az ml workspace show --query mlflow_tracking_uri` shows it"
        )
    parts = split(address)
    found = None if parts is None else _WORKSPACE.fullmatch(parts.path)
    if parts is None or found is None or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError(
            f"the AzureML address{quoted(address)} (tracking_uri, or MLFLOW_TRACKING_URI) names no "
            "workspace: it ends in /subscriptions/S/resourceGroups/G/providers/"
            "Microsoft.MachineLearningServices/workspaces/W"
        )
    return f"https://{parts.netloc}", found[1]
