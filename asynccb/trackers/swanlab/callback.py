"""
SwanLab over its own HTTP protocol, or in files that `swanlab sync` reads, without the `swanlab`
package.

Promises: each number is stored once under its key and step, however often it was retried or
replayed on the way. A run is created once. Its final state is that of the training.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asynccb._ground.events import Event
from asynccb._ground.exceptions import RejectedError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept, KeptFile
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb.callbacks.tracking import LARGEST_STEP
from asynccb.delivery.client import Client
from asynccb.trackers.base import journaled
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.console import ConsoleSide
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.models import model_folder
from asynccb.trackers.shared.system_metrics import is_live
from asynccb.trackers.shared.utf8 import in_utf8
from asynccb.trackers.swanlab.files import Storage
from asynccb.trackers.swanlab.outbox import BEAT, Cloud
from asynccb.trackers.swanlab.run import SwanLabRun
from asynccb.trackers.swanlab.run_file import RunFile
from asynccb.trackers.swanlab.settings import SwanLabSettings, is_configured, resolve
from asynccb.trackers.swanlab.values import STEP, Row, key_of, named, row

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_UPLOADS: Final = {"checkpoint": (Event.SAVE,), "end": (Event.TRAIN_END,), "false": ()}


class SwanLabCallback(ServerTracker[Client]):
    """
    Log a run to SwanLab: configuration, metrics, models, and how it ended.

    Each argument left as None is read from its environment variable, named in brackets (for project
    and run, the vendor's newer names such as `SWANLAB_PROJECT_NAME` work, too):

    * `mode` [`SWANLAB_MODE`]: `"cloud"` (the default, also called `"online"`) sends to a server.
      `"local"` and `"offline"` write a folder that `swanlab sync` uploads, below `log_dir`
      [`SWANLAB_LOG_DIR`], by default `swanlog`. The vendor's `local` also starts a dashboard; this
      tracker does not. `"disabled"` does nothing at all.
    * `project` [`SWANLAB_PROJECT`, `SWANLAB_PROJ_NAME`], by default the name of the working
      directory; `workspace` [`SWANLAB_WORKSPACE`], by default that of the key; `public`
      [`SWANLAB_PUBLIC`], whether a newly created project is public.
    * `name`, else the training arguments' `run_name` [`SWANLAB_EXP_NAME`], with the trial of a
      search; `description` [`SWANLAB_DESCRIPTION`]; `tags` [`SWANLAB_TAGS`, separated by commas];
      `group` [`SWANLAB_GROUP`]; `job_type` [`SWANLAB_JOB_TYPE`].
    * `run_id` [`SWANLAB_RUN_ID`] and `resume` [`SWANLAB_RESUME`]: the run to continue. With
      `"must"` the tracker gives up if the run does not exist; `"allow"` and None continue the run,
      or create it. `"never"` creates a new run, and so accepts no id.
    * `log_model` [`SWANLAB_LOG_MODEL`]: `"checkpoint"` stores each checkpoint among the run's
      files, `"end"` the best or last one at the end; `"false"` is the default. (transformers only
      logs a warning.)
    * `console` [`SWANLAB_TERMINAL_PROXY_TYPE`]: True, or any accepted word except `none`, sends the
      lines that Python prints; off by default.
    * `system_metrics` [`SWANLAB_PROBE_MONITOR_INTERVAL`, off by `SWANLAB_PROBE_MONITOR=false`]:
      seconds between two samples of CPU, memory and GPUs of the training process; 10 by default.
      Local mode takes no samples.
    * `api_host` [`SWANLAB_API_HOST`] and `web_host` [`SWANLAB_WEB_HOST`]: your own server, else
      that of the last `swanlab login`, else swanlab.cn.

    The key is looked up when it is used: `SWANLAB_API_KEY`, or the key that `swanlab login` has
    saved.

    Names are those of transformers: `train/…`, `eval/…`, `test/…` at the global step; the figures
    of the whole run are `single_value/…`, nested mappings `train/a/b`. With `names="given"`, all
    are under the names that were logged. A key that SwanLab does not take, or uses itself, is
    changed, and ends in a checksum. The server keeps one number
    for each key and step, the last that was logged, so that a second training of a run replaces
    what the first logged at its steps; a warning says so. It stores NaN and infinity both as NaN.
    Values other than numbers are rejected.

    Raises `ConfigurationError` for a setting that cannot work.
    """

    largest_step = LARGEST_STEP

    name: ClassVar[str] = "swanlab"
    interval: ClassVar[float] = 1.5
    group: ClassVar[int] = 10_000
    settings_type = SwanLabSettings
    settings: SwanLabSettings

    def __init__(
        self,
        *,
        project: str | None = None,
        workspace: str | None = None,
        name: str | None = None,
        run_id: str | None = None,
        resume: str | bool | None = None,
        mode: str | None = None,
        description: str | None = None,
        tags: list[str] | tuple[str, ...] | None = None,
        group: str | None = None,
        job_type: str | None = None,
        public: bool | None = None,
        log_model: str | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        console: bool | None = None,
        system_metrics: float | None = None,
        api_host: str | None = None,
        web_host: str | None = None,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))
        if self.settings.console:
            self.training_side = ConsoleSide(True)

    def set_up(self, settings: SwanLabSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        self.enabled = settings.mode != "disabled"
        self.uploads = _UPLOADS[settings.log_model]
        self._run = SwanLabRun(settings)
        self._file = RunFile(settings, self._run) if settings.mode == "local" else None
        self._cloud = Cloud(settings, self._run)
        self.local = self._file is not None
        self._storage: Storage | None = None
        self.beat = None if self._file is not None else settings.system_metrics or BEAT
        self._curves = CurveNames("SwanLab", key_of, reject=self.reject)
        self._ended = False
        self._goes_on = False
        self._steps: dict[str, int] = {}
        self._replaces = False

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether there is a key, or a mode that needs none, and it is not disabled."""
        return is_configured(environ)

    def describe(self, run: RunDescription) -> None:
        """Accept the description, and have the configuration sent again."""
        super().describe(run)
        self._run.describe(run)
        self._cloud.describe()
        if self._file is not None:
            self._file.describe()

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Use the name of a search's trial, unless something was logged before."""
        if not self._run.begun:
            self._run.begin(state.trial_name)

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a log's numbers, and with the first log of a step, the global step."""
        numbers = self._named(values)
        if self._run.step != state.global_step:
            self._run.step = state.global_step
            numbers[STEP] = float(state.global_step)
        self._add(numbers, state)

    def queue_prediction(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a prediction's metrics, as `test/…`."""
        self._add(self._named(values), state)

    on_save = on_train_end = journaled

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the checkpoint's folder; at the end, that of the best or last checkpoint."""
        return model_folder(event, args, state, self.reject)

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Queue lines of the console."""
        if self._file is not None:
            self._file.say(self.time, values["lines"])
        else:
            self._cloud.say(values["lines"])

    # -- delivery ----------------------------------------------------------------------------------

    def connect(self) -> Client:
        """Look up the key and make the client."""
        return self._cloud.connect()

    async def begin(self, client: Client) -> None:
        """Find the run, or create it."""
        place = await self._cloud.begin(client)
        # A project's path on the web begins with an @, which the server leaves out.
        self.address = f"{self.settings.web_host}/@{place.path.lstrip('/')}"
        logger.info("SwanLab run %s: %s", self._run.name, self.address)

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._cloud) or bool(self._file)

    async def send(self, client: Client) -> None:
        """Send the queued records."""
        await self._cloud.send(client, self._refuse, self.reject)

    async def flush(self) -> None:
        """Send the queued records, or write them to the file."""
        if self._file is None:
            await super().flush()
        elif self._file:
            await self._file.flush()
            if self.address is None:
                self.address = str(self._file.folder)
                logger.info("SwanLab run: upload it with `swanlab sync %s`", self.address)

    async def heartbeat(self) -> None:
        """Tell the server that the run is alive, once it exists, and sample its machine."""
        if self._cloud.place is None:
            return
        client = await self.ready()
        if self.settings.system_metrics and is_live(self.run):
            await self._cloud.sample(self.run.pid)
            await self.send(client)
        await self._cloud.beat(client)

    async def upload(self, kept: Kept) -> None:
        """Store a model's files on the server, or in the run's folder."""
        if self._file is None:
            await super().upload(kept)
            return
        for file in kept.pending():
            try:
                await self._file.keep(kept, file)
            except OSError as error:
                self._reject_file(kept, file, error)
            await kept.stored(file)

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store a file under its folder's name."""
        server, place = await self._cloud.reached(client)
        if self._storage is None:
            self._storage = Storage(self.settings.api_host)
        await self._storage.store(server, place, f"{kept.name}/{file.name}", file.path)

    async def finish(self, status: RunStatus) -> None:
        """End the run, unless nothing was ever logged in it."""
        in_file = self._file is not None and self._file.begun
        if self._ended or not (self.pending or self._cloud.known or self._goes_on or in_file):
            return
        await self.flush()
        if self._file is not None:
            await self._file.finish(status, self.time)
        else:
            await self._cloud.finish(await self.ready(), status, self.time, self.reject)
        self._ended = True

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        await self._cloud.close()
        if self._storage is not None:
            await self._storage.close()

    # -- continuing --------------------------------------------------------------------------------

    def attributes(self) -> dict[str, Any]:
        """Return the run, and the position up to which it is delivered."""
        return {
            "place": self.settings.place,
            "run": self._run.attributes(),
            "cloud": self._cloud.attributes(),
            "file": None if self._file is None else self._file.attributes(),
        }

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the run of an interrupted training, unless the settings name another run."""
        if attributes["place"] != self.settings.place:
            logger.warning(
                "SwanLab: the interrupted training logged elsewhere, as the settings were; the "
                "resumed one does not go on there"
            )
            return False
        self.restore(attributes)
        # If somebody has deleted the run since, it is created again.
        self._goes_on, self._cloud.known = self._cloud.known, False
        return True

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore them."""
        self._run.restore(attributes["run"])
        self._cloud.restore(attributes["cloud"])
        if self._file is not None:
            self._file.restore(attributes["file"])
            if self._file.begun:
                self.address = str(self._file.folder)

    def _named(self, values: Mapping[str, Any]) -> dict[str, float]:
        return named(self.numbers(self._curves.apart(values)), self._curves, self.names)

    def _add(self, numbers: Mapping[str, float], state: TrainerState) -> None:
        if not self._run.begun:
            self._run.begin(state.trial_name)
        step = int(state.global_step)
        self._note(numbers, step)
        if self._file is not None:
            self._file.add(self.time, step, numbers)
        else:
            self._cloud.add(row(key, step, value, self.time) for key, value in numbers.items())

    def _note(self, keys: Iterable[str], step: int) -> None:
        """Warn, once, that a number replaces an earlier one."""
        for key in keys:
            if step <= self._steps.get(key, -1) and not self._replaces:
                self._replaces = True
                logger.warning(
                    "SwanLab keeps only the last logged value of %s for step %d; the same applies "
                    "to other keys whose steps repeat or go back, as in a second training of one "
                    "run (logged once)",
                    *(key, step),
                )
            self._steps[key] = step

    def _refuse(self, refused: Row, error: RejectedError) -> None:
        what = f"the value of {refused.key!r} at step {refused.index}"
        self.reject(what, str(error), cause=error.cause, record=refused)
