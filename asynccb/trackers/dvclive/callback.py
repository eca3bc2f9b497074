"""
DVCLive: tables, `metrics.json`, `params.yaml` and `dvc.yaml` for `dvc`, and live updates of DVC
Studio, without the `dvclive` package.

Promises: each row is in its table once, at its global step, whichever process died in between. A
Studio that is out of reach, or refuses, delays the files only briefly.
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
from asynccb.trackers.dvclive.values import folded, metric_name, metrics_of, split
from asynccb.trackers.server import ServerTracker
from asynccb.trackers.shared.curve_names import CurveNames
from asynccb.trackers.shared.utf8 import in_utf8

if TYPE_CHECKING:
    from asynccb._state.snapshot import StateSnapshot
    from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_MODELS: Final = ("best", "last")
"""The name of a final model if the best model is loaded at the end, and its name otherwise."""


class DVCLiveCallback(ServerTracker[Client]):
    """
    Log a run as DVCLive does: in files that `dvc metrics`, `dvc plots` and `dvc params` read.

    The arguments are those of `dvclive.Live`, which transformers accepts, too, but ignores:

    * `dir`; `resume` [`DVCLIVE_RESUME`], to append to the directory's content instead of clearing
      it; `dvcyaml`, a file that is extended and not replaced, or None for no file.
    * `save_dvc_exp`: save an experiment at the end, in a Git repository and outside of DVC's
      pipelines. `exp_name` [`DVC_EXP_NAME`], else a name made of the run's key; `exp_message`.
    * `live`: a `Live` instead of these. The companion uses its settings and its directory. The
      `Live` may continue to log other metrics there; it sees ours only after the run is closed, so
      close the run first. If the `Live` was entered with `with`, its own end saves the experiment.
      Otherwise the experiment is ended here; do not call `live.end()`.

    `log_model` [`HF_DVCLIVE_LOG_MODEL`] makes DVC track files below `dir/artifacts`: True the final
    model, as `last` or `best`; `"all"` the whole `output_dir` at each save, as it is then. That and
    experiments need the package `dvc`.

    With a token (`DVC_STUDIO_TOKEN`, or DVC's configuration) and a repository (a Git remote, or
    `DVC_STUDIO_REPO_URL`), Studio receives live updates at `DVC_STUDIO_URL`, unless
    `DVC_STUDIO_OFFLINE` is on. While Studio is out of reach, files are written, and the missing
    updates are sent when it is back. If Studio refuses, nothing more is sent. If a run has a
    Studio, `ASYNCCB_OFFLINE` holds back its files, too.

    `train_` and `eval_` in a name become folders, as in transformers; with `names="given"` they do
    not. Of names that `dvc metrics` shows as one (`a.b` and `a/b`), or that are one file on macOS
    (`Loss` and `loss`), the first keeps its name, and the others end in a checksum. Rows carry the
    global step; transformers counts its logs instead. Texts are in the tables, but not in Studio's
    plots. `DVCLIVE_TEST` switches the tracker off. Raises `ConfigurationError` for a setting that
    cannot work.
    """

    name: ClassVar[str] = "dvclive"
    metrics_taken: ClassVar[str] = "numbers and texts"
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
        names: str | None = None,
    ) -> None:
        self.choose_names(names)
        self.set_up(in_utf8(resolve(locals(), os.environ), os.environ))
        if live is not None or self.settings.log_model == "true":
            self.training_side = DVCLiveTraining(self.settings, live)

    def set_up(self, settings: DVCLiveSettings) -> None:
        """Accept the settings."""
        super().set_up(settings)
        events = {"all": (Event.SAVE,), "true": (Event.TRAIN_END,), "false": ()}
        self.uploads = events[settings.log_model]
        self.local = settings.studio is None
        self.enabled = settings.enabled
        self._folder = DVCLiveFolder(settings)
        self._studio: Studio | None = None
        self._updates = Updates(self._folder, self._opened_studio, self.reject)
        self._rows: list[tuple[int, int, dict[str, float | str]]] = []
        self._curves = CurveNames("DVCLive", metric_name, grouping=split, folded=folded)
        self._name = settings.exp_name
        self._first: int | None = None  # the step at which the run begins
        self._step = 0
        self._open = self._goes_on = self._dirty = self._has_params = self._saved = False
        self._revision: str | None = None

    @classmethod
    def is_configured(cls, environ: Mapping[str, str]) -> bool:
        """Return whether a variable asks for it, or the directory lies in a DVC repository."""
        return is_configured(environ)

    async def on_train_begin(
        self, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Have the parameters written."""
        self._has_params = True
        self._note(state)

    on_save = on_train_end = journaled

    def files(self, event: Event, args: PlainArguments, state: StateSnapshot) -> Folder | None:
        """Return the whole output; at the end, the model that the training process wrote."""
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
        """Tell Studio that the experiment begins; its answer contains no address to look at."""
        studio = Studio(client, self.settings, self._name or "")
        if self.settings.opens:
            await studio.start()
        self._studio = studio

    async def flush(self) -> None:
        """Write the queued rows, and then send them to Studio."""
        if self._dirty:
            await self._write()
            self._dirty = False
            self._updates.note()
        if not self.local:
            await self._updates.send(self._step, self._params)

    async def finish(self, status: RunStatus) -> None:
        """
        Save the experiment, unless the training died, and tell Studio that it is over.

        Studio has no status for the end of a run. Nothing is written for a run without a log.
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
        # If our directory is part of the output, its artifacts would be copied into themselves.
        ours = relative(settings.dir, Path(settings.origin, self.run.args.output_dir)) + "/"
        files = [file for file in kept.pending() if not file.name.startswith(ours)]
        try:
            await dvc.keep(settings.origin, files, self._folder.artifact(kept.name))
        except OSError as error:
            self.reject(what, str(error), cause=f"errno {error.errno}")
        except RejectedError as error:
            self.reject(what, str(error))

    def attributes(self) -> dict[str, Any]:
        """Return the directory's owner, and the positions of the tables and of Studio."""
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
            "names": self._curves.attributes(),
        }

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Continue behind the last acknowledged rows."""
        self._name = attributes["name"]
        self._open = attributes["open"]
        self._goes_on = attributes["goes_on"]
        self._step = attributes["step"]
        self._has_params = attributes["has_params"]
        self._folder.base = attributes["base"]
        self._folder.summary = dict(attributes["summary"])
        self._folder.tables.restore(attributes["tables"])
        if "names" in attributes:  # earlier versions let two names share a curve
            self._curves.restore(attributes["names"], attributes["tables"])
        if self._open:
            self.address = self.settings.dir
            self._updates.note()  # the cursor does not record whether Studio has everything

    def resume(self, attributes: Mapping[str, Any]) -> bool:
        """Continue in the directory and the experiment, unless the settings name another one."""
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
            self.reject_value(name, values[name])
        if metrics:
            self._note(state)
            named = self._curves.of(metrics, self.names)
            self._rows.append((int(state.global_step), self.time // 10**6, named))

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
