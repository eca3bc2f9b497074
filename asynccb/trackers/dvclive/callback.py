"""
DVCLive: tables, `metrics.json`, `params.yaml` and `dvc.yaml` for `dvc`, and live updates of DVC
Studio, without the `dvclive` package.

Promises: each row is in its table once, at its global step, whatever died in between; a Studio that
is away, or refuses, holds the files up no more than briefly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from anyio import to_thread

from asynccb._ground.events import Event
from asynccb._ground.exceptions import RejectedError
from asynccb._ground.plain import clean
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Folder, Kept
from asynccb._state.run_description import PlainArguments
from asynccb.delivery.client import Client
from asynccb.trackers.base import journaled
from asynccb.trackers.dvclive import dvc_process as dvc
from asynccb.trackers.dvclive.api import PATIENT, Studio
from asynccb.trackers.dvclive.folder import DVCLiveFolder
from asynccb.trackers.dvclive.outbox import Updates
from asynccb.trackers.dvclive.repository import is_experiment, studio_token
from asynccb.trackers.dvclive.settings import (
    DVCLiveSettings,
    is_configured,
    relative,
    resolve,
)
from asynccb.trackers.dvclive.training import FINAL_MODEL, DVCLiveTraining
from asynccb.trackers.dvclive.values import metrics_of
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.utf8 import in_utf8

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_MODELS: Final = ("best", "last")
"""What a final model is called, where the best one is loaded in the end, and else."""


class DVCLiveCallback(ServerTracker):
    """
    Log a run as DVCLive does: into files that `dvc metrics`, `dvc plots` and `dvc params` read.

    The arguments are those of `dvclive.Live`: `dir`; `resume` [`DVCLIVE_RESUME`], to go on behind
    what the directory holds instead of clearing it; `dvcyaml`, which is added to and not replaced,
    None for none; `save_dvc_exp`, to save an experiment in the end, in a Git repository and outside
    of DVC's pipelines; `exp_name` [`DVC_EXP_NAME`], else made of the run's key; `exp_message`.
    transformers takes them, too, and ignores them. Or give a `Live`: its settings and its directory
    are used, by the companion. It may go on logging other metrics there, and hears of ours when the
    run is closed, so do that first; where it was entered with `with`, its own end saves the
    experiment, else it is ended here, and `live.end()` is not to be called.

    `log_model` [`HF_DVCLIVE_LOG_MODEL`] has DVC track, below `dir/artifacts`, the final model as
    `last`, or `best` (True), or at each save all of `output_dir` as it is then (`"all"`); that and
    experiments need the package `dvc`.

    With a token (`DVC_STUDIO_TOKEN`, or DVC's configuration) and a repository (a Git remote, or
    `DVC_STUDIO_REPO_URL`) Studio gets live updates at `DVC_STUDIO_URL`, unless `DVC_STUDIO_OFFLINE`
    is on. While it is away files are written, and what it lacks is sent when it is back; where it
    refuses, nothing more is sent. `ASYNCCB_OFFLINE` holds back the files, too, of a run that has a
    Studio.

    `train_` and `eval_` in a name become folders, as in transformers; rows have the global step,
    where transformers counts its logs. Texts are in the tables, but not in Studio's plots.
    `DVCLIVE_TEST` switches it off. Raises `ConfigurationError` for what cannot work.
    """

    name: ClassVar[str] = "dvclive"
    settings_type = DVCLiveSettings
    settings: DVCLiveSettings

    def __init__(
        self,
        live: Any = None,
        log_model: Literal["all"] | bool | None = None,
        *,
        dir: str | os.PathLike[str] = "dvclive",
        resume: bool | None = None,
        dvcyaml: str | os.PathLike[str] | bool | None = "dvc.yaml",
        save_dvc_exp: bool = True,
        exp_name: str | None = None,
        exp_message: str | None = None,
    ) -> None:
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))
        if live is not None or self.settings.log_model == "true":
            self.training_side = DVCLiveTraining(self.settings, live)

    def set_up(self, settings: DVCLiveSettings) -> None:
        """Take the settings."""
        super().set_up(settings)
        events = {"all": (Event.SAVE,), "true": (Event.TRAIN_END,), "false": ()}
        self.uploads = events[settings.log_model]
        self.local = settings.studio is None
        self.enabled = settings.enabled
        self._folder = DVCLiveFolder(settings)
        self._studio: Studio | None = None
        self._updates = Updates(self._folder, self._opened_studio, self.reject)
        self._rows: list[tuple[int, int, dict[str, float | str]]] = []
        self._name = settings.exp_name
        self._first: int | None = None  # the step at which the run begins
        self._step = 0
        self._open = self._goes_on = self._dirty = self._has_params = self._saved = False
        self._revision: str | None = None

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Tell whether a variable asks for it, or the directory lies in a DVC repository."""
        return is_configured(environ)

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Have the parameters written."""
        self._has_params = True
        self._note(state)

    on_save = on_train_end = journaled

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return all of the output; at the end, the model that the training process wrote."""
        output = getattr(args, "output_dir", None)
        if output is None:
            self.reject("the model", "the training arguments have no output_dir to find it in")
            return None
        path = Path(self.settings.origin, output)
        if event == Event.SAVE:
            return Folder(path, path.name)
        best, last = _MODELS
        name = best if getattr(args, "load_best_model_at_end", False) else last
        return Folder(path / FINAL_MODEL, name, passing=True)

    @property
    def pending(self) -> bool:
        """Whether anything is queued."""
        return self._dirty or (not self.local and self._updates.due)

    def connect(self) -> Client:
        """Look up the token, and return the client of DVC Studio."""
        assert self.settings.studio is not None
        token = studio_token(self.settings.dvc, os.environ)
        return Client(
            self.settings.studio.rpartition("/")[0],
            headers={"Authorization": f"token {token}"},
            transport=PATIENT,
            hint="check DVC_STUDIO_TOKEN",
        )

    async def begin(self, client: Client) -> None:
        """Tell Studio that the experiment begins; nothing says where to look at it."""
        studio = Studio(client, self.settings, self._name or "")
        if self.settings.opens:
            await studio.start()
        self._studio = studio

    async def flush(self) -> None:
        """Write what is queued, and then tell Studio of it."""
        if self._dirty:
            await self._write()
            self._dirty = False
            self._updates.note()
        if not self.local:
            await self._updates.send(self._step, self._params)

    async def finish(self, status: RunStatus) -> None:
        """
        Save the experiment, unless the training died, and tell Studio that it is over.

        Studio has no word for how a run ended. Nothing is written for a run without a log.
        """
        await self.flush()
        if not self._open:
            return
        if self.settings.log_model == "true":
            await self._folder.add_artifacts(_MODELS)
        if self.settings.save_dvc_exp and status != "crashed" and not self._saved:
            await self._save_experiment()
        if not self.local:
            step, done = self._step, self.settings.ends
            await self._updates.end(step, self._params, self._revision, done=done)

    async def upload(self, kept: Kept) -> None:
        """Copy a folder's files below `artifacts`, and have DVC track them there."""
        what = f"the artifact {kept.name}"
        settings = self.settings
        if settings.git is None and settings.dvc is None:
            self.reject(what, "that needs a Git repository around the working directory")
            return
        # Where that is part of the output, what is kept would be kept again, and again.
        ours = relative(settings.dir, Path(settings.origin, self.run.args.output_dir)) + "/"
        files = [file for file in kept.pending() if not file.name.startswith(ours)]
        try:
            await dvc.keep(settings.origin, files, self._folder.artifact(kept.name))
        except OSError as error:
            self.reject(what, str(error), cause=f"errno {error.errno}")
        except RejectedError as error:
            self.reject(what, str(error))

    def attributes(self) -> dict[str, Any]:
        """Return whose directory it is, and how far the tables and Studio have come."""
        return {
            "dir": self.settings.dir,
            "name": self._name,
            "open": self._open,
            "goes_on": self._goes_on,
            "base": self._folder.base,
            "step": self._step,
            "has_params": self._has_params,
            "summary": dict(self._folder.summary),
            "tables": self._folder.tables.attributes(),
        }

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Go on behind the last acknowledged rows."""
        self._name = attributes["name"]
        self._open = attributes["open"]
        self._goes_on = attributes["goes_on"]
        self._step = attributes["step"]
        self._has_params = attributes["has_params"]
        self._folder.base = attributes["base"]
        self._folder.summary = dict(attributes["summary"])
        self._folder.tables.restore(attributes["tables"])
        if self._open:
            self.address = self.settings.dir
            self._updates.note()  # the cursor does not say whether Studio has it all

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Go on in the directory, and with the experiment, unless the settings name another."""
        if attributes.get("dir") != self.settings.dir:
            logger.warning(
                "DVCLive: the interrupted training logged to %s, as the settings were; the resumed "
                "one does not go on there",
                attributes.get("dir"),
            )
            return False
        if attributes["open"]:
            self.restore({**attributes, "open": False, "goes_on": True})
        return True

    @property
    def _params(self) -> dict[str, Any] | None:
        """The parameters, once a training has begun."""
        if not self._has_params:
            return None
        params: dict[str, Any] = clean(self.run.args.to_dict())
        return params

    def _note(self, state: TrainerState) -> None:
        if self._first is None:
            self._first = int(state.global_step)
        self._dirty = True

    def queue(self, values: Mapping[str, Any], state: TrainerState) -> None:
        """Queue a row for each metric."""
        metrics, dropped = metrics_of(values)
        for name in dropped:
            self.reject(f"the metric {name!r}", "it is neither a number nor a text")
        if metrics:
            self._note(state)
            self._rows.append((int(state.global_step), self.time // 10**6, metrics))

    async def _write(self) -> None:
        if not self._open:
            await self._open_folder()
        await to_thread.run_sync(self._gather)  # thousands of rows take a while
        complaint = self._folder.complaint
        await self._folder.write(self._params, self.run.key)
        if self._folder.complaint not in ("", complaint):
            self.reject("what is new to dvc.yaml", self._folder.complaint)

    def _gather(self) -> None:
        for step, milliseconds, metrics in self._rows:
            self._step = step + self._folder.base
            self._folder.add(self._step, milliseconds, metrics)
        self._rows.clear()

    async def _open_folder(self) -> None:
        settings, run = self.settings, self.run
        name = self._name or f"run-{run.key[:8]}"
        fresh = settings.save_dvc_exp and not settings.keeps and not self._goes_on
        if fresh and is_experiment(settings.git, settings.commit, name):
            name = f"{name}-{run.key[:4]}"
        mark = await self._folder.open(
            run.key, run.training, self._first or 0, name, goes_on=self._goes_on
        )
        self._name = mark.name
        self._open, self._goes_on = True, False
        self.address = settings.dir
        logger.info("DVCLive: %s", settings.dir)

    async def _opened_studio(self) -> Studio:
        await self.ready()
        assert self._studio is not None  # or the run has not begun
        return self._studio

    async def _save_experiment(self) -> None:
        settings = self.settings
        paths = [settings.dir] + ([settings.dvcyaml] if settings.dvcyaml else [])
        try:
            self._revision = await dvc.save_experiment(
                settings.origin,
                name=self._name or "",
                message=settings.exp_message,
                untracked=[relative(path, settings.origin) for path in paths],
            )
        except RejectedError as error:
            self.reject(f"the experiment {self._name}", f"it was not saved: {error}")
        self._saved = True
