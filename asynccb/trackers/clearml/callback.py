"""
ClearML over its own REST API, without the `clearml` package.

Promises: each value is at its title, series and iteration, however often it was retried or replayed
on the way. A run is one task, and ends with the training's status.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from asynccb._ground.events import Event
from asynccb._ground.exceptions import RejectedError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept, KeptFile
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb.callbacks.tracking import LARGEST_STEP
from asynccb.delivery.client import Client
from asynccb.trackers.base import journaled
from asynccb.trackers.clearml.access import is_configured, open_api, open_files, open_keeper
from asynccb.trackers.clearml.api import ClearMLServer
from asynccb.trackers.clearml.files import ARTIFACTS, Owner, TaskFiles
from asynccb.trackers.clearml.opening import Known, check_open, describe_task, open_task
from asynccb.trackers.clearml.outbox import Outbox
from asynccb.trackers.clearml.run import ending_of
from asynccb.trackers.clearml.settings import ClearMLSettings, resolve
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.console import ConsoleSide
from asynccb.trackers.shared.models import model_folder
from asynccb.trackers.shared.system_metrics import is_live
from asynccb.trackers.shared.token import Keeper
from asynccb.trackers.shared.utf8 import in_utf8

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")


class ClearMLCallback(ServerTracker[Client]):
    """
    Log a run to ClearML: hyper-parameters, configuration, scalars, models, and how it ended.

    Each argument left as None is read from its environment variable, named in brackets:

    * `project` [`CLEARML_PROJECT`], by default `"HuggingFace Transformers"`, and `task`
      [`CLEARML_TASK`], by default `"Trainer"`: names of three characters or more; `a/b` is a
      project within another. `tags` are those of a new task.
    * `task_id`: the task to continue. Without it, if an agent runs a task or `Task.init` has opened
      one in this process, the tracker logs to that task and does not end it. If several trainings
      run in one process, the titles and sections of the second one end in `_2`, and so on.
    * `log_model` [`CLEARML_LOG_MODEL`]: make each checkpoint a model, as one file, and keep at most
      `save_total_limit` of them. Off by default, as transformers documents it.
    * `artifacts`: a folder, or a file. When the training ends, its files become artifacts of the
      task, each under its path in the folder.
    * `console`: True sends the lines that Python prints; off by default. If the answer to a line is
      lost, the server stores that line twice.
    * `system_metrics`: seconds between two samples of CPU, memory and GPUs, under the titles
      `:monitor:machine` and `:monitor:gpu`; 30 by default, False for none.

    Addresses are `CLEARML_API_HOST`, `CLEARML_WEB_HOST` and `CLEARML_FILES_HOST`, else those of the
    configuration file (`CLEARML_CONFIG_FILE`, by default `~/clearml.conf`), else ClearML's own.
    Credentials are looked up when they are used: `CLEARML_API_ACCESS_KEY` and
    `CLEARML_API_SECRET_KEY`, or `CLEARML_AUTH_TOKEN`, or those of the file.
    `CLEARML_API_HOST_VERIFY_CERT` and `CLEARML_API_EXTRA_RETRY_CODES` work as in the vendor's
    package; requests are always POST. `CLEARML_OFFLINE_MODE` keeps everything for `asynccb sync`.

    `eval_x` is the series `x` of the title `eval`, `test_x` of `test`, any other `x` of `train`, at
    the global step. The figures of the whole run, and the epoch, are single values. With
    `names="given"`, each metric is the only series of a title, both under its name. ClearML keeps
    one value for each series and step: a later value replaces it, also if a training is resumed
    from a checkpoint. NaN and infinity, for which the vendor's package reports 0.0, become lines of
    the task's console, and so do values that single precision cannot represent.

    If somebody aborts, ends or resets the task on the server's pages, the training stops at the
    next step, and the tracker leaves the task's status as it is.

    Raises `ConfigurationError` for a setting that cannot work.
    """

    largest_step = LARGEST_STEP

    name: ClassVar[str] = "clearml"
    rewinds: ClassVar[bool] = True
    interval: ClassVar[float] = 2.0
    group: ClassVar[int] = 10_000
    settings_type = ClearMLSettings
    settings: ClearMLSettings

    def __init__(
        self,
        *,
        project: str | None = None,
        task: str | None = None,
        task_id: str | None = None,
        tags: list[str] | tuple[str, ...] | None = None,
        log_model: bool | None = None,
        artifacts: str | os.PathLike[str] | None = None,
        console: bool | None = None,
        system_metrics: float | None = None,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))
        self.training_side = ConsoleSide(self.settings.console)

    def set_up(self, settings: ClearMLSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        self.offline = settings.offline
        self.beat = settings.report
        wanted = {Event.SAVE: settings.log_model, Event.TRAIN_END: settings.artifacts is not None}
        self.uploads = tuple(event for event, wants in wanted.items() if wants)
        self._outbox = Outbox(self.reject)
        self._keeper: Keeper | None = None
        self._server: ClearMLServer | None = None
        self._files: TaskFiles | None = None
        self._known: Known | None = None
        self._owner: Owner | None = None
        self._heard = False
        self._stale = False
        self._ended = False
        self._ran = False
        self._pinged = float("-inf")
        self._sampled: float | None = None

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether there are credentials, in variables or in the configuration file."""
        return is_configured(environ)

    def describe(self, run: RunDescription) -> None:
        """Accept the description, and have hyper-parameters and configuration sent again."""
        super().describe(run)
        self._stale = True

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Have the task created."""
        self._heard = True

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue the values."""
        self._heard = True
        numbers = self.numbers(values)
        self._outbox.add_numbers(numbers, int(state.global_step), self.time, self.names)

    on_save = on_train_end = journaled

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Queue lines of the console."""
        self._heard = True
        self._outbox.add_lines(values["lines"])

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the checkpoint, or at the end, the artifacts."""
        if event == Event.SAVE:
            return model_folder(event, args, state, self.reject)
        assert self.settings.artifacts is not None  # or the event would not be asked for
        path = Path(self.settings.artifacts)
        if not path.exists():
            self.reject("the artifacts", f"there is no {path} when the training ends")
            return None
        return Folder(path, ARTIFACTS)

    async def upload(self, kept: Kept) -> None:
        """Store a checkpoint as a model, or artifacts one by one."""
        client = await self.ready()
        if self._files is None:
            assert self._keeper is not None
            self._files = TaskFiles(
                ClearMLServer(client), await open_files(self.settings, self._keeper)
            )
        if kept.name == ARTIFACTS:
            await super().upload(kept)
            return
        limit = getattr(self.run.args, "save_total_limit", None)
        try:
            await self._files.store_model(self._opened[1], kept, limit)
        except (OSError, RejectedError) as error:
            self.reject(f"the model {kept.name}", str(error), cause="model")
        for file in kept.pending():
            await kept.stored(file)

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store an artifact."""
        assert self._files is not None
        await self._files.store_artifact(self._opened[1], file)

    def connect(self) -> Client:
        """Look up the credentials; the first token is requested when the run begins."""
        self._keeper = open_keeper(self.settings, os.environ)
        return open_api(self.settings, self._keeper)

    async def begin(self, client: Client) -> None:
        """Request a token, then find the task, or create it."""
        await client.renew()
        server = self._server = ClearMLServer(client)
        owner = self._owner = await open_task(server, self.settings, self.run, self._known)
        self._known = Known(owner.task, owner.suffix, self.run.training)
        place = f"projects/{owner.project or '*'}/experiments/{owner.task}/output/log"
        self.address = f"{self.settings.web}/{place}"
        logger.info("ClearML task: %s", self.address)

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._outbox) or (self._heard and self._stale)

    async def send(self, client: Client) -> None:
        """Send the queued records."""
        await self._renew(client)
        server, owner = self._opened
        if self._stale:
            await describe_task(server, owner, self.run, self.reject)
            self._stale = False
        await self._outbox.send(server, owner, self.run.host or "asynccb")

    async def heartbeat(self) -> None:
        """Tell the server that the run is alive, and ask whether somebody wants it to stop."""
        if self._owner is None or self._ended or not is_live(self.run):
            return
        client = await self.ready()
        await self._renew(client)
        server, owner = self._opened
        task = await server.task(owner.task)
        if task is None:
            return  # the next events raise
        if not task.wants_stop:
            self._ran = True
        elif self._ran and self.settings.heeds_stop:  # it had not ended before we began
            self.stop_training("ClearML")
        if task.is_abandoned and not self.settings.external:
            await server.start_task(task.id)
        if time.monotonic() - self._pinged >= self.settings.ping:
            await server.ping(task.id)
            self._pinged = time.monotonic()
        await self._sample(client)

    async def finish(self, status: RunStatus) -> None:
        """End the task, unless somebody else owns it or has ended it."""
        if self._ended or (self._known is None and not self.pending):
            return
        await self.flush()
        client = await self.ready()
        await self._renew(client)
        if not self.settings.external:
            server, owner = self._opened
            task = check_open(await server.task(owner.task), owner.task)
            if task.is_open:
                await server.end_task(task.id, ending_of(status, asked=task.wants_stop))
        self._ended = True

    async def close(self) -> None:
        """Close the connections."""
        if self._files is not None:
            await self._files.close()
        await super().close()

    def attributes(self) -> dict[str, Any]:
        """Return the task, and the settings that identify it."""
        return {"known": None if self._known is None else list(self._known), "place": self._place}

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the task of an interrupted training, unless the settings name another task."""
        if attributes["known"] is not None and attributes["place"] != self._place:
            logger.warning(
                "ClearML: the interrupted training logged elsewhere, as the settings were; the "
                "resumed one does not go on there"
            )
            return False
        return super().resume(attributes)

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the task."""
        known = attributes.get("known")
        if known is not None:
            self._known = Known(*known)
            self._heard = True

    @property
    def _opened(self) -> tuple[ClearMLServer, Owner]:
        assert self._server is not None  # or the run has not begun
        assert self._owner is not None
        return self._server, self._owner

    @property
    def _place(self) -> list[str | None]:
        """The settings that determine which task a run is."""
        settings = self.settings
        return [settings.api, settings.project, settings.task, settings.task_id]

    async def _sample(self, client: Client) -> None:
        """Send a sample of the machine if one is due; the first after one whole period."""
        period, now = self.settings.system_metrics, time.monotonic()
        if self._sampled is None:
            self._sampled = now
        elif period and now - self._sampled >= period:
            self._sampled = now
            await self._outbox.sample(self.run)
            await self.send(client)

    async def _renew(self, client: Client) -> None:
        """Renew the token if it is about to expire."""
        if self._keeper is not None and self._keeper.is_ending:
            await client.renew()
