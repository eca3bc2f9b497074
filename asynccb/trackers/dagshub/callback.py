"""
DagsHub: the MLflow server of a repository, and the repository itself for files, without packages.

Promises: the same as the MLflow tracker. If the same files are uploaded again, no second commit is
made. DagsHub does not document whether it stores a point once if it is sent twice; each point has a
fixed time and step.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asynccb._ground.events import Event
from asynccb._ground.exceptions import RejectedError
from asynccb._journal.uploads import Folder, Kept, KeptFile
from asynccb._state.run_description import PlainArguments
from asynccb.delivery.client import Client
from asynccb.trackers.dagshub.api import DagsHubRepository, commits
from asynccb.trackers.dagshub.settings import (
    DagsHubSettings,
    find_credentials,
    is_configured,
    resolve,
)
from asynccb.trackers.mlflow.access import basic, transport
from asynccb.trackers.mlflow.api import MLflowServer, RunInfo
from asynccb.trackers.mlflow.run import MLflowRun
from asynccb.trackers.mlflow.tracker import MLflowTracker
from asynccb.trackers.mlflow.training import MLflowTraining
from asynccb.trackers.shared.utf8 import in_utf8

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot

logger = logging.getLogger("asynccb")

_OUTPUT: Final = "artifacts"
"""Directory of the repository for the output, as in transformers."""
_HINT: Final = "set DAGSHUB_USER_TOKEN to a token that may write to the repository"


class DagsHubCallback(MLflowTracker[Client]):
    """
    Log a run to a DagsHub repository, like `MLflowCallback`, and commit files.

    `repo_owner` and `repo_name` name the repository, else `MLFLOW_TRACKING_URI` does, as
    `https://dagshub.com/OWNER/NAME.mlflow`; the host is `DAGSHUB_CLIENT_HOST`. The repository must
    exist. `experiment_name`, `run_id`, `tags`, `nested_run`, `flatten_params`, `max_log_params` and
    `log_artifacts`, which stores each checkpoint with the run, and `names` work as in
    `MLflowCallback`, with its variables.

    `log_output` [`HF_DAGSHUB_LOG_ARTIFACTS`] commits the whole `output_dir` as `artifacts/` to
    `branch` [`BRANCH`, by default `"main"`] when the training ends, without journals. Only the
    first rank commits.

    Credentials are `DAGSHUB_USER_TOKEN`, else `DAGSHUB_USERNAME` and `DAGSHUB_PASSWORD`, else the
    token that `dagshub login` has saved, else `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`. Raises
    `ConfigurationError` for a setting that cannot work, such as a missing repository.
    """

    name: ClassVar[str] = "dagshub"
    settings_type = DagsHubSettings
    settings: DagsHubSettings

    def __init__(
        self,
        *,
        repo_owner: str | None = None,
        repo_name: str | None = None,
        branch: str | None = None,
        experiment_name: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        nested_run: bool | None = None,
        flatten_params: bool | None = None,
        max_log_params: int | None = None,
        log_artifacts: bool | None = None,
        log_output: bool | None = None,
        names: str | None = None,
    ) -> None:
        transport(os.environ)  # raises for a bad certificate or timeout here, and not later
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))

    def set_up(self, settings: DagsHubSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        wanted = {Event.SAVE: settings.log_artifacts, Event.TRAIN_END: settings.log_output}
        self.uploads = [event for event, is_wanted in wanted.items() if is_wanted]
        self.training_side = MLflowTraining(settings.tracking_uri)
        self._mlflow = MLflowRun(settings, self.reject, found=self._adopt)
        self._server: MLflowServer | None = None

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether `MLFLOW_TRACKING_URI` names a DagsHub repository."""
        return is_configured(environ)

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return a save's checkpoint; at the end of training, the output."""
        output = getattr(args, "output_dir", None)
        if event != Event.TRAIN_END or output is None:
            return super().files(event, args, state)
        return Folder(Path(output), _OUTPUT)

    async def upload(self, kept: Kept) -> None:
        """Store a checkpoint with the run, and commit the output."""
        if kept.name != _OUTPUT:
            await super().upload(kept)
            return
        repository = self._repository(await self.ready())
        for group in commits(kept.pending()):
            names = ", ".join(file.name for file in group)
            try:
                await repository.put(_OUTPUT, group, f"Output of step {kept.step}: {names}")
            except (OSError, RejectedError) as error:
                cause = error.cause if isinstance(error, RejectedError) else f"errno {error.errno}"
                self.reject(f"the files {names} of the output", str(error), cause=cause)
            for file in group:
                await kept.stored(file)

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store a file under its checkpoint's name."""
        assert self._server is not None
        assert self._mlflow.info is not None  # or the run has not begun
        await self._server.store_file(self._mlflow.info, file.path, f"{kept.name}/{file.name}")

    def connect(self) -> Client:
        """Look up the credentials, and return the client of DagsHub's own interface."""
        self._credentials = find_credentials(self.settings.host, os.environ)
        user, secret = self._credentials.user, self._credentials.secret
        headers = basic(user, secret) if user else {"Authorization": f"Bearer {secret}"}
        return Client(
            self.settings.host, headers=headers, transport=transport(os.environ), hint=_HINT
        )

    async def begin(self, client: Client) -> None:
        """Find the repository, then find or create the experiment and the run."""
        if self._server is None:
            repository = self._repository(client)
            user = self._credentials.user or await repository.user()
            await repository.check()
            self._server = MLflowServer(
                Client(
                    self.settings.tracking_uri,
                    headers=basic(user, self._credentials.secret),
                    transport=transport(os.environ),
                    hint=_HINT,
                )
            )
        await self._mlflow.begin(self._server)

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        if self._server is not None:
            await self._server.close()

    def _repository(self, client: Client) -> DagsHubRepository:
        return DagsHubRepository(client, self.settings.repository, self.settings.branch)

    def _adopt(self, run: RunInfo) -> None:
        self.address = (
            f"{self.settings.tracking_uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
        )
        logger.info("DagsHub run: %s", self.address)
