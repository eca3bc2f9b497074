"""
Trackio: your own server, a Space of Hugging Face, or the local dashboard, without the `trackio`
package.

Promises: each row is stored once, at its global step, however often it was retried or replayed on
the way.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

import anyio.to_thread
from msgspec.structs import replace

from asynccb._ground.events import Event
from asynccb._ground.exceptions import RejectedError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept
from asynccb._state.run_description import PlainArguments, RunDescription
from asynccb.callbacks.tracking import LARGEST_STEP
from asynccb.delivery.client import Client
from asynccb.delivery.queue import Queue, json_size
from asynccb.trackers.base import journaled
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.models import model_folder
from asynccb.trackers.shared.nvml import NVML, open_nvml
from asynccb.trackers.shared.utf8 import in_utf8
from asynccb.trackers.trackio.api import ROWS, SIZE, TrackioServer, blob_of
from asynccb.trackers.trackio.inbox import TrackioInbox
from asynccb.trackers.trackio.run import TrackioRun
from asynccb.trackers.trackio.settings import (
    Inbox,
    Server,
    Space,
    TrackioSettings,
    is_configured,
    resolve,
    write_token,
)
from asynccb.trackers.trackio.space import Wanted, find_space, hub_headers
from asynccb.trackers.trackio.values import AlertRow, MetricRow, SystemRow, column, metrics_of

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")
_HINT: Final = "set TRACKIO_WRITE_TOKEN to the token that the server shows when it starts"
_STALE: Final = 120 * 10**9
"""Nanoseconds without an event after which figures of this machine no longer count as the run's."""


class TrackioCallback(ServerTracker[Client]):
    """
    Log a run to Trackio: configuration, metrics, texts, GPU usage, models, and failed ends.

    A run goes to a Space, else to a server, else to the folder that a local `trackio show` reads:

    * `space_id`, else `trackio_space_id` of the training arguments, else [`TRACKIO_SPACE_ID`], with
      the token of `HF_TOKEN` or of a login. A missing Space is created, with `bucket_id`, else
      `trackio_bucket_id` of the arguments, else [`TRACKIO_BUCKET_ID`], else a new bucket. `private`
      decides whether it is private, else `hub_private_repo` of the arguments, else the Hub's
      default. No static copy is made at the end, as transformers does: `trackio freeze` makes one,
      and a warning says so where the arguments name one (`trackio_static_space_id`).
    * `server_url` [`TRACKIO_SERVER_URL`], with the token of `TRACKIO_WRITE_TOKEN`, or of the
      variable's address. A token in the argument is refused.
    * [`TRACKIO_DIR`], else `trackio` below [`HF_HOME`]: files that Trackio 0.28 or later imports.

    The project is `project`, else `project` of the training arguments, else [`TRACKIO_PROJECT`].
    The run's name is `name`, else a search's trial, else `run_name` of the arguments. With
    `resume="allow"`, as in transformers, a server's run of that name in the project is continued. A
    run without a name, `"never"` and the folder always create a new run. `log_model`
    [`TRACKIO_LOG_MODEL`] stores each checkpoint (`"checkpoint"`), or the best or last one at the
    end (`"end"`), as a version of the artifact `model-<name>`; the folder accepts no artifacts.
    `auto_log_gpu` (on) and `gpu_log_interval` (seconds) work as in `trackio.init`: they log memory,
    power, use and temperature of the GPUs that the training sees.

    `eval_x` is shown as `eval/x`, `test_x` as `test/x`, any other `x` as `train/x`, at the global
    step, and nested mappings as `train/a/b`. The figures of the whole run, which transformers
    drops, are logged at the last step. With `names="given"`, metrics keep the names that were
    logged, but for columns of Trackio's own: `step` is called `__step`, as by its client. A server
    dates rows by their arrival; the folder keeps the time of each. Since Trackio has no run status,
    a run that did not finish receives an alert.
    """

    largest_step = LARGEST_STEP

    name: ClassVar[str] = "trackio"
    metrics_taken: ClassVar[str] = "numbers and texts"
    interval: ClassVar[float] = 0.5
    settings_type = TrackioSettings
    settings: TrackioSettings

    def __init__(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        bucket_id: str | None = None,
        private: bool | None = None,
        server_url: str | None = None,
        resume: str = "allow",
        log_model: str | None = None,
        auto_log_gpu: bool | None = None,
        gpu_log_interval: float = 10.0,
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))

    def set_up(self, settings: TrackioSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        events = {"checkpoint": (Event.SAVE,), "end": (Event.TRAIN_END,), "false": ()}
        self.uploads = events[settings.log_model]
        self.beat = settings.gpu_interval if settings.log_gpu else None
        self._rows = Queue[MetricRow](ROWS, size=SIZE, measure=json_size, repeatable=True)
        self._store: TrackioServer | TrackioInbox | None = None
        self._space: Client | None = None
        self._gpus: NVML | None = None
        self._run = TrackioRun(settings)
        self._curves = CurveNames("Trackio", column, reject=self.reject)

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether a variable names a server, a Space or a folder."""
        return is_configured(environ)

    def describe(self, run: RunDescription) -> None:
        """Accept the description of the run."""
        super().describe(run)
        self._run.describe(run)
        self._destination = self.settings.destination(run.args)

    on_save = on_train_end = journaled

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the checkpoint's folder; at the end, that of the best or last checkpoint."""
        return model_folder(event, args, state, self.reject)

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return bool(self._rows)

    def connect(self) -> Client:
        """Look up the token, and return the client of the server, or of the Hub for a Space."""
        if isinstance(self._destination, Space):
            return Client(self.settings.hub, headers=hub_headers(os.environ), hint="check HF_TOKEN")
        assert isinstance(self._destination, Server)  # a folder has no client
        token = write_token(self._destination.url, os.environ)
        headers = {"X-Trackio-Write-Token": token} if token else {}
        return Client(self._destination.url, headers=headers, hint=_HINT)

    async def begin(self, client: Client) -> None:
        """Find the server and the run to continue; nothing needs to be created."""
        if isinstance(self._destination, Space):
            if self._space is None:
                space = await find_space(client, self._wanted(self._destination.name))
                self._space = Client(
                    space.url, headers=hub_headers(os.environ), hint="check HF_TOKEN"
                )
                self._mention_static_copy(self._destination.name)
            client = self._space
        server = TrackioServer(client)
        await server.check()
        if self._run.id is None:
            self._run.id = await self._find_run(server)
        self._store = server
        self.address = f"{client.base}/?project={quote(self._run.project)}"
        logger.info("Trackio run: %s", self.address)

    async def flush(self) -> None:
        """Send the queued rows."""
        if not self.pending:
            return
        store = await self._opened()

        async def post(rows: Sequence[MetricRow]) -> None:
            first = rows[0].log_id.rpartition("-")[2]
            run = self._run.id or self._run.key
            await store.store([replace(row, run_id=run) for row in rows], f"{int(first):012d}")

        verify = store.check if isinstance(store, TrackioServer) else None
        await self._rows.send(post, self._refuse, verify)

    async def heartbeat(self) -> None:
        """Store the GPUs' usage, while the run is live on this machine."""
        if self._gpus is None:
            self._gpus = await anyio.to_thread.run_sync(open_nvml, os.environ)
        if self._gpus is None:
            self.beat = None
            return
        now = time.time_ns()
        if self._store is None or now - self.time > _STALE:
            return
        row = self._run.gpu_row(await anyio.to_thread.run_sync(self._gpus.read), now)
        await self._store_one(row, f"gpu-{now}")

    async def upload(self, kept: Kept) -> None:
        """Store a folder as a version of the model's artifact, and release it once complete."""
        what = f"the artifact {kept.name}"
        if isinstance(self._destination, Inbox):
            self.reject(what, "Trackio's folder takes no artifacts: give a server or a Space")
            return
        store = await self._opened()
        assert isinstance(store, TrackioServer)
        try:
            blobs = [await blob_of(file.name, file.path) for file in kept.pending()]
            await store.store_artifact(
                self._run.project,
                blobs,
                name=_ODD.sub("-", f"model-{self._run.name}"),
                kind="model",
                metadata={"global_step": kept.step},
                aliases=[kept.name],
                run=self._run.name,
                run_id=self._run.id or self._run.key,
            )
        except OSError as error:
            self.reject(what, str(error), cause=f"errno {error.errno}")
        except RejectedError as error:
            self.reject(what, str(error), cause=error.cause)

    async def finish(self, status: RunStatus) -> None:
        """Store an alert if the run did not finish, unless nothing was ever logged in it."""
        if not self._run.count:
            return
        await self.flush()
        if status != "finished":
            await self._store_one(self._run.end(status, self.time), "end")

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        if self._space is not None:
            await self._space.close()

    def attributes(self) -> dict[str, Any]:
        """Return the run, its number of rows, and the settings that identify it."""
        return {**self._run.attributes(), "place": self.settings.place}

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue the run and its count of rows, unless the settings name another place."""
        if attributes.get("place") != self.settings.place:
            logger.warning(
                "Trackio: the interrupted training logged elsewhere, as the settings were; the "
                "resumed one does not go on there"
            )
            return False
        return super().resume(attributes)

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the run and its rows."""
        self._run.restore(attributes)

    async def _opened(self) -> TrackioServer | TrackioInbox:
        """Return the destination of rows: the server, once it is found, or the folder."""
        if isinstance(self._destination, Inbox):
            if self._store is None:
                self._store = TrackioInbox(self._destination.directory, self._run.key)
                self.address = self._destination.directory
                logger.info(
                    "Trackio run: see it with `trackio show --project %s`", self._run.project
                )
        else:
            await self.ready()
        assert self._store is not None  # or the run has not begun
        return self._store

    async def _store_one(self, row: SystemRow | AlertRow, name: str) -> None:
        """Store a row other than metrics; in the folder, in a file after the existing ones."""
        store = await self._opened()
        try:
            await store.store([row], f"{self._run.count:012d}-{name}")
        except RejectedError as error:
            self.reject(f"the {row.kind} {name}", str(error), cause=error.cause, record=row)

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a row."""
        given = self._curves.apart(values)
        named = self._curves.of(given, self.names)
        logged = dict(zip(named, given, strict=True))
        metrics, dropped = metrics_of(named)
        for name in dropped:
            self.reject_value(logged[name], named[name])
        if not metrics:
            return
        row = self._run.row(metrics, int(state.global_step), self.time, state.trial_name)
        self._rows.extend([row])

    def _refuse(self, row: MetricRow, error: RejectedError) -> None:
        self.reject(f"the row of step {row.step}", str(error), cause=error.cause, record=row)

    def _wanted(self, space: str) -> Wanted:
        private = self.settings.private
        if private is None:
            private = getattr(self.run.args, "hub_private_repo", None)
        return Wanted(space, self.settings.bucket_of(self.run.args), private)

    def _mention_static_copy(self, space: str) -> None:
        """Log a warning if the arguments name a static copy of the Space, which is not made."""
        copy = getattr(self.run.args, "trackio_static_space_id", None)
        if isinstance(copy, str):
            logger.warning(
                "Trackio: the static Space %r is not made; after the training, `trackio freeze "
                "--space-id %s --project %s --new-space-id %s` makes it",
                *(copy, space, shlex.quote(self._run.project), copy),
            )

    async def _find_run(self, server: TrackioServer) -> str:
        """Return the id of the run to continue, or of a new run."""
        if self.settings.resume == "allow" and self._run.named is not None:
            runs = await server.runs(self._run.project)
            named = [run for run in runs if run.name == self._run.named]
            # Our own rows may be there already, sent by a process that has died since.
            if named and self._run.key not in {run.id for run in named}:
                return max(named, key=lambda run: run.created_at or "").id
        return self._run.key
