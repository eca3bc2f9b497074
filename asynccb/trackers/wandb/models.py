"""
Turn the models of a run into versions of its artifact.

Names, aliases and metadata follow transformers 5.23. Promises: a version describes the run as
it was when its event was emitted, however late the version is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from asynccb._ground.events import Event
from asynccb._journal.uploads import MOST, Folder, Kept
from asynccb._state.run_description import RunDescription
from asynccb.trackers.wandb.access import open_storage
from asynccb.trackers.wandb.api import RunInfo, WandbServer
from asynccb.trackers.wandb.files import Artifacts, Version, artifact_name
from asynccb.trackers.wandb.opening import display_name
from asynccb.trackers.wandb.settings import WandbSettings
from asynccb.trackers.wandb.training import ARCHITECTURE, FINAL_MODEL
from asynccb.trackers.wandb.values import History

_FIRST: Final = "model_architecture"
_LAST: Final = "final_model"
_REMEMBERED: Final = 2 * MOST
"""Versions whose description is kept: more than can wait."""


def folder_of(event: Event, output_dir: str | None, step: int) -> Folder | str:
    """Return the folder that is uploaded at an event, or the reason for none."""
    if output_dir is None:
        return "the training arguments have no output_dir to find it in"
    root = Path(output_dir)
    if event == Event.SAVE:
        return Folder(root / f"checkpoint-{step}", f"checkpoint-{step}")
    path, name = (ARCHITECTURE, _FIRST) if event == Event.TRAIN_BEGIN else (FINAL_MODEL, _LAST)
    if not (root / path).exists():
        return f"the {name} was not written; the dispatcher needs the model for that"
    return Folder(root / path, name, passing=True)


class Models:
    """The descriptions of versions that are to be stored."""

    def __init__(self, settings: WandbSettings) -> None:
        self._settings = settings
        self._artifacts: Artifacts | None = None
        self.described: dict[str, dict[str, Any]] = {}
        """By name of the folder: aliases, metadata and history step."""

    def begin(self, run: RunDescription) -> None:
        """Describe the version that holds the architecture."""
        model = run.model
        metadata = {
            "model_config": None if model is None else model.config,
            "num_parameters": None if model is None else model.parameters,
            "initial_model": True,
        }
        self._note(_FIRST, ["base_model"], metadata, 0)

    def save(self, run: RunDescription, history: History, state: Any) -> None:
        """Describe a checkpoint."""
        aliases = [f"epoch_{round(state.epoch or 0, 2)}"]
        aliases.append(f"checkpoint_global_step_{state.global_step}")
        metadata = {**_finite(history.numbers()), **_size(run)}
        self._note(f"checkpoint-{state.global_step}", aliases, metadata, history.step)

    def end(self, run: RunDescription, history: History, state: Any) -> None:
        """Describe the final model, with the best model's figures if that was loaded."""
        args = run.args
        if getattr(args, "load_best_model_at_end", False) and state.best_metric is not None:
            name = str(getattr(args, "metric_for_best_model", None) or "loss")
            metadata: dict[str, Any] = {
                f"eval/{name.removeprefix('eval_')}": state.best_metric,
            }
            if state.total_flos:  # 0 means unknown
                metadata["train/total_floss"] = state.total_flos
        else:
            metadata = _finite(history.numbers())
        metadata |= {**_size(run), "final_model": True}
        self._note(_LAST, ["final_model"], metadata, history.step)

    def know(self, kept: Kept) -> bool:
        """Tell whether the event of a folder has been reached, so that it can be stored."""
        return kept.name in self.described

    async def store(
        self, server: WandbServer, info: RunInfo, run: RunDescription, kept: Kept
    ) -> None:
        """Store a folder as a version; raise `RejectedError` if the server refuses it."""
        if self._artifacts is None:
            self._artifacts = Artifacts(server, open_storage(self._settings.base_url))
        about = self.described[kept.name]
        name = display_name(self._settings, run)
        if name is None or name == getattr(run.args, "output_dir", None):
            name = info.run_id
        version = Version(
            artifact_name(f"model-{name}"),
            tuple(artifact_name(alias) for alias in about["aliases"]),
            about["metadata"],
            about["step"],
            f"{run.key}/{kept.name}/{kept.step}",
        )
        await self._artifacts.store(info, version, kept.pending())

    async def close(self) -> None:
        """Close the connections to the storage."""
        if self._artifacts is not None:
            await self._artifacts.close()

    def _note(
        self, folder: str, aliases: list[str], metadata: Mapping[str, Any], step: int
    ) -> None:
        self.described.pop(folder, None)
        self.described[folder] = {"aliases": aliases, "metadata": dict(metadata), "step": step}
        while len(self.described) > _REMEMBERED:
            del self.described[next(iter(self.described))]


def _size(run: RunDescription) -> dict[str, Any]:
    return {} if run.model is None else {"model/num_parameters": run.model.parameters}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
