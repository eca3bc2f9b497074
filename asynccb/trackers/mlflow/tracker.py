"""
The common part of trackers of MLflow's runs: events go to an `MLflowRun`.

Promises: the same as `MLflowRun`. Each tracker itself decides on the place of the run, the
credentials, and the destination of files; its `begin` passes the place to the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from asynccb._ground.events import Event
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb.callbacks.tracking import LARGEST_STEP
from asynccb.trackers.base import journaled
from asynccb.trackers.mlflow.run import MLflowRun
from asynccb.trackers.mlflow.training import ACTIVE_RUN
from asynccb.trackers.server import Connection, ServerTracker
from asynccb.trackers.shared.models import model_folder

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState


C = TypeVar("C", bound=Connection)


class MLflowTracker(ServerTracker[C]):
    """Log to one run of MLflow's protocol, `_mlflow`; a subclass makes it in `set_up`."""

    largest_step = LARGEST_STEP

    _mlflow: MLflowRun

    def describe(self, run: RunDescription) -> None:
        """Accept the description of the run."""
        super().describe(run)
        self._mlflow.describe(run)

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Accept the run that is active in the training process."""
        self._mlflow.join(values[ACTIVE_RUN])

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Queue parameters and tags, and set a continued run to running again."""
        self._mlflow.begin_training()

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue the numbers."""
        self._mlflow.add(self.numbers(values), state.global_step, self.time)

    on_save = journaled

    async def on_train_end(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Queue the end of the run."""
        self._mlflow.end_training(self.time)

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the checkpoint's folder."""
        return model_folder(event, args, state, self.reject)

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return self._mlflow.pending

    async def send(self, connection: C) -> None:
        """Send the queued records."""
        await self._mlflow.send()

    async def finish(self, status: RunStatus) -> None:
        """Set the run's final state, unless nothing ever happened in it."""
        self._mlflow.finish(status, self.time)
        await self.flush()

    def attributes(self) -> dict[str, Any]:
        """Return the run, once the server has made it, and the server's address."""
        return self._mlflow.attributes()

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the run, unless the settings name another run or another server."""
        return self._mlflow.resume(attributes)

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the run."""
        self._mlflow.restore(attributes)
