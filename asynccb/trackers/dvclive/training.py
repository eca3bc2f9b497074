"""
The DVCLive tracker's part in the training process: write the final model, update a given `Live`.

Promises: only writing the model's files, at the very end, waits for the device, as in the vendor's
own callback. A `Live` is updated once everything is delivered, so that its own end summarizes the
whole training.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from asynccb._ground.events import Event
from asynccb._ground.plain import clean
from asynccb.callbacks.training_side import TrainingSide
from asynccb.trackers.dvclive.folder import flat, nested
from asynccb.trackers.dvclive.settings import DVCLiveSettings
from asynccb.trackers.shared.models import write_final_model

FINAL_MODEL: Final = ".dvclive-final-model"
"""Folder below `output_dir` that holds the model until the companion has fetched it."""


class DVCLiveTraining(TrainingSide):
    """The training side that writes the final model for the upload and updates a `Live`."""

    def __init__(self, settings: DVCLiveSettings, live: Any) -> None:
        self._live = live
        self._summary = Path(settings.dir, "metrics.json")
        self._params: dict[str, Any] = {}
        if live is not None:
            self._listen(Event.TRAIN_BEGIN, self._keep_params)
        if settings.log_model == "true":
            self._listen(Event.TRAIN_END, self._write_model)

    def _listen(self, event: Event, hook: Callable[..., None]) -> None:
        setattr(self, event, hook)  # on the instance, so that an unused hook costs nothing

    def close(self) -> None:
        """Bring the `Live` into the state in which its own logging would have left it."""
        if self._live is None or self.tell is None:
            return
        try:
            summary = json.loads(self._summary.read_bytes())
        except (OSError, ValueError):
            return  # nothing was logged
        self._live.summary = nested({**flat(self._live.summary), **flat(summary)})
        self._live.step = summary.get("step", self._live.step)
        if self._params:
            self._live.log_params(self._params)

    def _keep_params(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._params = clean(args.to_dict())

    def _write_model(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the final model, on the rank that serves the tracker."""
        if self.tell is None or kwargs.get("model") is None or args.output_dir is None:
            return
        instead = "log checkpoints with HF_DVCLIVE_LOG_MODEL=all"
        write_final_model(Path(args.output_dir, FINAL_MODEL), kwargs, instead)
