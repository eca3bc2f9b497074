"""
Comet over its own HTTP protocol, or in the archives that `comet upload` sends; without the
`comet_ml` package.

Promises: each value is sent at its step and time, complete and in order, within the documented
rates. If an answer is lost, or a process dies, the tracker asks the server for the values that it
has, and does not send them again. An archive contains each value once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
import msgspec

from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept, KeptFile
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb.callbacks.tracking import LARGEST_STEP
from asynccb.delivery.client import Client
from asynccb.delivery.rate import Bucket
from asynccb.trackers.base import journaled
from asynccb.trackers.comet_ml.access import DEFAULT_URL, find_key, host_in, open_client
from asynccb.trackers.comet_ml.api import OTHER_RATE, CometServer, Experiment
from asynccb.trackers.comet_ml.archive import CometArchive
from asynccb.trackers.comet_ml.opening import about, archive_name, find, key_of
from asynccb.trackers.comet_ml.outbox import CometOutbox
from asynccb.trackers.comet_ml.settings import CometSettings, is_configured, resolve
from asynccb.trackers.comet_ml.training import GRAPH, CometTraining
from asynccb.trackers.comet_ml.values import ERRORS, Note, metric_name, milliseconds, other
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.utf8 import in_utf8

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_FIRST_BEAT: Final = 10.0
_BEATS: Final = 1.0, 300.0
"""Seconds between two signs of life: the minimum and maximum that a server may ask for."""


class CometCallback(ServerTracker[Client]):
    """
    Log a run to Comet: metrics, parameters, the model's layers, files, and how it ended.

    Each argument left as None is read from its environment variable, named in brackets. Settings
    with a * are also read from `.env` and `.comet.config`, the files of `comet login` and
    `comet_ml`:

    * `project_name` [`COMET_PROJECT_NAME`]*, by default Comet's "Uncategorized Experiments", and
      `workspace` [`COMET_WORKSPACE`]*, by default that of the key.
    * `mode` [`COMET_MODE`]: `"get_or_create"`, the default, continues the experiment with the given
      key, or creates it; `"get"` requires that the experiment exists, `"create"` that it does not.
      Without a key, each run creates a new experiment. Any other word is refused; transformers
      continues without Comet.
    * `experiment_key` [`COMET_EXPERIMENT_KEY`]*: 32 to 50 letters and digits.
    * `name`, else the training arguments' `run_name` [`COMET_EXPERIMENT_NAME`]*; `tags`.
    * `online` [`COMET_START_ONLINE`]*: False writes the archive `<key>.zip` in `offline_directory`
      [`COMET_OFFLINE_DIRECTORY`]*, by default `.cometml-runs`, for `comet upload`, which keeps
      15,000 values of each metric. (`ASYNCCB_OFFLINE` keeps everything for `asynccb sync`.)
    * `log_assets` [`COMET_LOG_ASSETS`]: at the end of training, upload the files below
      `output_dir`.
    * `url` [`COMET_URL_OVERRIDE`]*: the server, else the server that the key names behind its `*`.

    The key is looked up when it is used: `COMET_API_KEY`*.

    Names are those of transformers, `train/…`, `eval/…`, `test/…`, at the global step, with its
    epoch, or with `names="given"` those that were logged. Nested mappings are `a/b`. A name above
    100 characters is cut, and ends in a checksum. Parameters are `args|…`, `config|…` and
    `peft_config|…`. Comet accepts 12,000 values a minute. More than 130 values a second are
    delivered at that pace, after the training if necessary. If somebody asks for a stop on the
    experiment's page, the training stops at the next boundary.

    Raises `ConfigurationError` for a setting that cannot work, and `AccessError` for a settings
    file that cannot be read.
    """

    largest_step = LARGEST_STEP

    name: ClassVar[str] = "comet_ml"
    metrics_taken: ClassVar[str] = "numbers and texts"
    interval: ClassVar[float] = 2.0
    settings_type = CometSettings
    settings: CometSettings

    def __init__(
        self,
        *,
        project_name: str | None = None,
        workspace: str | None = None,
        experiment_key: str | None = None,
        name: str | None = None,
        tags: list[str] | tuple[str, ...] | None = None,
        mode: str | None = None,
        online: bool | None = None,
        log_assets: bool | None = None,
        offline_directory: str | None = None,
        url: str | None = None,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))
        self.training_side = CometTraining()

    def set_up(self, settings: CometSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        self.uploads = (Event.TRAIN_END,) if settings.log_assets else ()
        self.beat = _FIRST_BEAT if settings.online else None
        self._outbox = CometOutbox(self.reject)
        self._curves = CurveNames("Comet", metric_name, reject=self.reject)
        self._server: CometServer | None = None
        self._experiment: Experiment | None = None
        self._archive: CometArchive | None = None
        self._written = 0
        self._earlier: str | None = None
        """Key of the experiment that this training resumes."""
        self._asked = False
        self._stale = False
        self._ended = False
        self._is_last = False
        self._beaten = 0.0

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether there is a key, or runs go into archives."""
        return is_configured(environ)

    def describe(self, run: RunDescription) -> None:
        """Accept the description, and have the parameters sent again."""
        super().describe(run)
        self._stale = True

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Have the experiment created."""
        self._hear()

    on_train_end = journaled

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Queue the model's layers."""
        self._hear()
        self._outbox.notes.extend([Note("graph", {"graph": values[GRAPH]})])

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the folder of the training's output."""
        if (output := getattr(args, "output_dir", None)) is not None:
            return Folder(Path(output), Path(output).absolute().name)
        self.reject("the files of the training", "its arguments have no output_dir")
        return None

    # -- sending -----------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._outbox)

    async def flush(self) -> None:
        """Send the queued records, or write them into the archive."""
        if self.settings.online:
            await super().flush()
        elif self.pending:
            await self._outbox.send(self._opened())

    def connect(self) -> Client:
        """Look up the key and make the clients."""
        key = find_key(os.environ)
        client = open_client(
            self.settings.url or host_in(key) or DEFAULT_URL, key, Bucket(*OTHER_RATE)
        )
        self._server = CometServer(client, key)
        return client

    async def begin(self, client: Client) -> None:
        """Find the experiment, or create it, unless this training already has."""
        assert self._server is not None  # or there is no connection
        if self._experiment is not None:
            self._server.experiment = self._experiment
        else:
            asked, self._asked = self._asked, True
            self._outbox.doubtful = not await find(
                self._server, self.settings, self.run, self._earlier, asked=asked
            )
            self._experiment = self._server.experiment
        assert self._experiment is not None
        self.address = self._experiment.address
        if self.settings.tags:
            try:
                await self._server.add_tags(self.settings.tags)
            except RejectedError as error:
                self.reject("the tags", str(error), cause=error.cause, record=self.settings.tags)
        await self._beat(self._server)
        logger.info("Comet experiment: %s", self.address)

    async def send(self, client: Client) -> None:
        """Send the queued records; at Comet's pace that may take longer than a heartbeat."""
        assert self._server is not None
        await self._outbox.send_to_server(self._server, self._beat_if_due, whole=self._is_last)

    async def heartbeat(self) -> None:
        """Tell the server that the run is alive."""
        if self._experiment is None or self._ended:
            return
        await self.ready()
        assert self._server is not None
        await self._beat(self._server)

    async def finish(self, status: RunStatus) -> None:
        """Report how the run ended, unless nothing ever happened in it."""
        if self._experiment is not None and not self._ended:
            self._hear()  # a process that died may have left the parameters unsent
        self._is_last = True
        await self.flush()
        error, now = ERRORS[status], milliseconds(self.time)
        if not self.settings.online:
            described = about(self.settings, self.run, self._earlier)
            if await self._opened().end(described, now, error):
                logger.info("Comet: send this run with `comet upload %s`", self.address)
        elif self._experiment is not None and not self._ended:
            await self.ready()
            assert self._server is not None
            try:
                await self._server.end(now, error)
            except RejectedError as refusal:
                self.reject("the end of the run", str(refusal), cause=refusal.cause, record=status)
            self._ended = True

    async def upload(self, kept: Kept) -> None:
        """Store the files one by one."""
        if self.settings.online:
            return await super().upload(kept)
        archive, now = self._opened(), milliseconds(self.time)
        key = key_of(self.settings, self.run, self._earlier)
        for file in kept.pending():
            try:
                await archive.store_asset(key, kept, file, now)
            except RejectedError as error:
                self._reject_file(kept, file, error)
            await kept.stored(file)
        return None

    async def upload_file(self, client: Client, kept: Kept, file: KeptFile) -> None:
        """Store one file."""
        assert self._server is not None
        await self._server.store_asset(kept, file)

    async def close(self) -> None:
        """Close the connections."""
        if self._server is not None:
            await self._server.close()
        await super().close()

    def attributes(self) -> dict[str, Any]:
        """Return the experiment, the length of the archive, and the settings that identify them."""
        written = self._written if self._archive is None else self._archive.written
        begun = self._experiment is not None or written > 0
        return {
            "experiment": msgspec.to_builtins(self._experiment),
            "written": written,
            "key": key_of(self.settings, self.run, self._earlier) if begun else None,
            "earlier": self._earlier,
            "place": self.settings.place,
        }

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore them."""
        if attributes["experiment"] is not None:
            self._experiment = msgspec.convert(attributes["experiment"], Experiment)
        self._written = attributes["written"]
        self._earlier = attributes["earlier"]

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the experiment, in a new session or a new archive."""
        if attributes["place"] != self.settings.place:
            logger.warning("Comet: the interrupted training logged elsewhere; this one does not")
            return False
        self._earlier = attributes["key"] or attributes["earlier"]
        return True

    # -- the experiment ----------------------------------------------------------------------------

    def _opened(self) -> CometArchive:
        """Return the archive of this training; the experiment may have further archives."""
        if self._archive is None:
            name = archive_name(self.settings, self.run, self._earlier)
            self._archive = CometArchive(self.settings.offline_directory, name, self._written)
            self.address = str(self._archive.path)
        return self._archive

    async def _beat(self, server: CometServer) -> None:
        """Send a sign of life; read from the answer whether to stop, and when the next is due."""
        try:
            beat = await server.beat(milliseconds(time.time_ns()), alive=True)
            stopped = beat.pending_rpcs and await server.is_stopped()
        except RejectedError as error:
            raise AccessError(f"the Comet experiment {self.address} is gone: {error}") from error
        self.beat = min(max(beat.milliseconds / 1000, _BEATS[0]), _BEATS[1])
        self._beaten = anyio.current_time()
        if stopped:
            self._stop()

    async def _beat_if_due(self) -> None:
        # The other half of the period is left for the next batch, which may wait for its turn.
        if anyio.current_time() - self._beaten >= (self.beat or _FIRST_BEAT) / 2:
            await self.heartbeat()

    def _hear(self) -> None:
        """Queue the run's parameters and facts, once for each description."""
        if self._stale:
            self._stale = False
            self._outbox.describe(self.run, self.settings.name, self.settings.usual_name, self.time)

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue metrics, behind the run's parameters and facts."""
        self._hear()
        given = self._curves.apart(values)
        named = self._curves.of(given, self.names)
        logged = dict(zip(named, given, strict=True))
        for name in self._outbox.add(named, state, self.time):
            self.reject_value(logged[name], named[name])

    def _stop(self) -> None:
        """Ask the training to stop, once, because somebody asked for it on Comet's page."""
        if not self._stopping:
            self._outbox.notes.extend([other("experiment_stopped_by_user", True)])
        self.stop_training("Comet")
