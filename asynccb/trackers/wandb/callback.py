"""
Weights & Biases over its own HTTP protocol, without the `wandb` package.

Promises: each log is one line of the run's history, once and in order, however often it was retried
or replayed on the way. A run is created once. Its final state is that of the training.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
import msgspec

from asynccb._ground.events import Event
from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb.delivery.client import Client
from asynccb.trackers.names import SINGLE_VALUES
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.system_metrics import is_live
from asynccb.trackers.shared.utf8 import in_utf8
from asynccb.trackers.wandb.access import has_key, open_client
from asynccb.trackers.wandb.api import RunInfo, WandbServer
from asynccb.trackers.wandb.models import Models, folder_of
from asynccb.trackers.wandb.opening import find_bases, id_of, is_of, open_run
from asynccb.trackers.wandb.outbox import Entry, Outbox, bases_after
from asynccb.trackers.wandb.settings import WandbSettings, resolve
from asynccb.trackers.wandb.stream import as_line
from asynccb.trackers.wandb.training import WandbTraining
from asynccb.trackers.wandb.values import STEP, Bases, config_of, history_key

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_EXIT_CODES: Final[dict[RunStatus, int]] = {"finished": 0, "failed": 1, "killed": 255}
_UPLOADS: Final = {
    "false": (),
    "end": (Event.TRAIN_BEGIN, Event.TRAIN_END),
    "checkpoint": (Event.TRAIN_BEGIN, Event.SAVE, Event.TRAIN_END),
}
_LOOK: Final = 0.05
_BEAT: Final = 15.0
"""Seconds. The vendor's package sends a sign of life every 30; the server waits some minutes."""


class WandbCallback(ServerTracker[Client]):
    """
    Log a run to Weights & Biases: configuration, history, summary, and how it ended.

    Each argument left as None is read from its environment variable, named in brackets. A * marks
    settings that are also read from W&B's settings files:

    * `project` [`WANDB_PROJECT`]*, by default `"huggingface"`; `entity` [`WANDB_ENTITY`]*, by
      default that of the key.
    * `name`, else the training arguments' `run_name` [`WANDB_NAME`]; `notes` [`WANDB_NOTES`];
      `tags` [`WANDB_TAGS`, separated by commas]; `group` [`WANDB_RUN_GROUP`]; `job_type`
      [`WANDB_JOB_TYPE`].
    * `run_id` [`WANDB_RUN_ID`] and `resume` [`WANDB_RESUME`]: the run to continue. The tracker
      gives up if the run does not exist (`"must"`), or if it exists (`"never"`). `"allow"` and None
      continue the run, or create it. (`"auto"` is refused: name the run.)
    * `mode` [`WANDB_MODE`]: `"offline"` keeps everything for `asynccb sync`; `"disabled"` does
      nothing at all.
    * `log_model` [`WANDB_LOG_MODEL`]: `"checkpoint"` makes every checkpoint and the final model a
      version of the artifact `model-<run>`. `"end"` does so for the final model alone, which is
      written to disk at the end of the training for this purpose. `"false"` is the default.
    * `watch` [`WANDB_WATCH`]: histograms of `"gradients"`, `"parameters"` or `"all"`, every 100
      steps, or every `logging_steps` if that is more. They are counted on the model's device before
      the optimizer's step, so gradients are already clipped; in a loop without an event there, they
      are counted after the step.
    * `console` [`WANDB_CONSOLE`]: True, or any accepted word except `off`, sends the lines that
      Python prints; off by default.
    * `system_metrics` [`WANDB_X_STATS_SAMPLING_INTERVAL`, off by `WANDB_X_DISABLE_STATS`]: seconds
      between two samples of CPU, memory and GPUs; 15 by default.
    * `base_url` [`WANDB_BASE_URL`]*; `directory` [`WANDB_DIR`]: the folder with the project's
      settings file, `wandb/settings`. The dispatcher decides where journals go.

    The key is looked up when it is used: `WANDB_API_KEY`, or the key that `wandb login` has saved.

    Names are those of transformers: `train/…`, `eval/…`, `test/…`, all over `train/global_step`.
    The figures of the whole run are in the summary alone. With `names="given"`, everything is in
    the history, under the names that were logged. A name that W&B uses itself, such as `_step` or
    `train/global_step`, ends in a checksum. Each log is a separate line, so steps
    that repeat or go back are all kept. Values of any kind are sent: texts, lists, NaN. If a
    training dies, its run is left to the server, which shows it as crashed some minutes after the
    last sign of life, as it does for the vendor's own package.

    Raises `ConfigurationError` for a setting that cannot work.
    """

    name: ClassVar[str] = "wandb"
    interval: ClassVar[float] = 2.0
    group: ClassVar[int] = 10_000
    settings_type = WandbSettings
    settings: WandbSettings

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        run_id: str | None = None,
        resume: str | None = None,
        mode: str | None = None,
        tags: list[str] | tuple[str, ...] | None = None,
        notes: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        log_model: str | None = None,
        watch: str | None = None,
        console: bool | None = None,
        system_metrics: float | None = None,
        base_url: str | None = None,
        directory: str | None = None,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))
        self.training_side = WandbTraining(self.settings)

    def set_up(self, settings: WandbSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        self.enabled = settings.mode != "disabled"
        self.offline = settings.mode == "offline"
        self.beat = settings.system_metrics or _BEAT
        self.uploads = _UPLOADS[settings.log_model]
        self._outbox = Outbox(partial(self.stop_training, "W&B"), self.reject)
        watched = settings.watch != "false"
        self._curves = CurveNames("W&B", partial(history_key, watched=watched))
        self._models = Models(settings)
        self._server: WandbServer | None = None
        self._run: RunInfo | None = None
        self._earlier: Bases | None = None
        self._others: dict[str, Any] = {}
        self._heard = False
        self._stale = False
        self._ended = False

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether a key exists and neither `WANDB_MODE` nor `WANDB_DISABLED` forbids it."""
        return has_key(environ)

    def describe(self, run: RunDescription) -> None:
        """Accept the description, and have the configuration sent again."""
        super().describe(run)
        self._stale = True

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Have the run created."""
        self._heard = True
        if self.uploads:
            self._outbox.add(lambda history: self._models.begin(self.run))

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a line; the figures of the whole run go into the summary instead."""
        line = dict(values)
        alone = SINGLE_VALUES if self.names == "grouped" else ()
        single = {key: line.pop(key) for key in values if key in alone}
        self._add(line, state, single)

    def queue_prediction(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a line with a prediction's metrics, as `test/…`."""
        self._add(values, state, {})

    async def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Record the run's current history and state, for the checkpoint's version."""
        if Event.SAVE in self.uploads:
            self._outbox.add(lambda history: self._models.save(self.run, history, state))

    async def on_train_end(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Record them for the final model; the server still accepts later logs."""
        if self.uploads:
            self._outbox.add(lambda history: self._models.end(self.run, history, state))

    async def told(self, what: str, values: Mapping[str, Any], step: int) -> None:
        """Queue histograms and lines of the console."""
        self._heard = True
        self._outbox.add_told(what, values, self.time)

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the checkpoint or the final model; at the beginning, the model's architecture."""
        folder = folder_of(event, getattr(args, "output_dir", None), state.global_step)
        if isinstance(folder, str):
            self.reject("a model", folder)
            return None
        return folder

    async def upload(self, kept: Kept) -> None:
        """Store a version of the model."""
        while not self._models.know(kept):
            await anyio.sleep(_LOOK)  # earlier logs are still being sent
        await self.ready()
        assert self._server is not None
        assert self._run is not None
        try:
            await self._models.store(self._server, self._run, self.run, kept)
        except (OSError, RejectedError) as error:
            self.reject(f"the artifact {kept.name}", str(error), cause="artifact")
        for file in kept.pending():
            await kept.stored(file)

    async def close(self) -> None:
        """Close the connections."""
        await self._models.close()
        await super().close()

    def connect(self) -> Client:
        """Look up the key and make the client."""
        return open_client(self.settings.base_url)

    async def begin(self, client: Client) -> None:
        """Find the run, or create it."""
        server = self._server = WandbServer(client)
        run_id = self._run.run_id if self._run else id_of(self.settings, self.run)
        known = await server.known(*self._place, run_id)
        self._others = {} if known is None else known.config
        if self._run is None:
            bases = find_bases(self.settings, self.run, known, self._earlier)
            if known is not None:
                self._outbox.continue_from(bases, known)
            self._adopt(await open_run(server, self.settings, self.run, known, self._config))
            self._stale = False
        elif known is None:
            raise AccessError(f"the W&B run {self.address} is gone")
        if known is not None:
            self._outbox.skip_samples(known)

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._outbox) or (self._heard and self._stale)

    async def send(self, client: Client) -> None:
        """Send the queued records."""
        assert self._server is not None
        assert self._run is not None  # or the run has not begun
        if self._stale:
            await self._server.upsert(
                self._run.run_id,
                self._run.project,
                entity=self._run.entity,
                config=self._config,
            )
            self._stale = False
        await self._outbox.send(client, self._run, self.run.started)

    async def heartbeat(self) -> None:
        """Tell the server that the run is alive, and send a sample of its machine."""
        if self._run is None:
            return
        client = await self.ready()
        if self.settings.system_metrics and is_live(self.run):
            await self._outbox.sample(self.run)
            await self.send(client)
        else:
            await self._outbox.beat(client, self._run)

    async def finish(self, status: RunStatus) -> None:
        """End the run, unless nothing ever happened in it; leave a crashed run as it is."""
        if self._ended or (self._run is None and not self.pending):
            return
        if status in _EXIT_CODES:
            self._outbox.end(_EXIT_CODES[status])
        await self.flush()
        self._ended = True

    def attributes(self) -> dict[str, Any]:
        """Return the run, and the offsets of its files."""
        return {
            "run_info": None if self._run is None else msgspec.to_builtins(self._run),
            **self._outbox.state(),
            "models": self._models.described,
            "base_url": self.settings.base_url,
        }

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the run of an interrupted training, unless the settings name another run."""
        if attributes["run_info"] is None:
            return True
        if not is_of(attributes["run_info"], attributes["base_url"], self.settings):
            return False
        self._earlier = bases_after(attributes)
        return True

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore them."""
        run = attributes.get("run_info")
        if run is None:
            return
        self._heard = True
        self._adopt(msgspec.convert(run, RunInfo))
        self._outbox.restore(attributes)
        self._models.described = dict(attributes["models"])

    def _add(self, values: Mapping[str, Any], state: TrainerState, single: dict[str, Any]) -> None:
        self._heard = True
        line = {**self._curves.of(values, self.names), STEP: state.global_step}
        self._outbox.add(Entry(self.time, line, single))

    # -- the run -----------------------------------------------------------------------------------

    @property
    def _place(self) -> tuple[str, str | None]:
        """The run's project and entity."""
        if self._run is not None:
            return self._run.project, self._run.entity
        return self.settings.project, self.settings.entity

    @property
    def _config(self) -> str:
        return as_line(config_of(self.run, self._outbox.history.bases, self._others))

    def _adopt(self, run: RunInfo) -> None:
        self._run = run
        self.address = f"{self.settings.app_url}/{run.entity}/{run.project}/runs/{run.run_id}"
        logger.info("W&B run %s: %s", run.name, self.address)
