"""
The W&B tracker's part in the training process: watch the model, save it, capture the console.

Promises: only saving the model's files at the very end waits for the device, as the vendor's own
callback does. With all of it switched off, no hook is called.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from asynccb._ground.events import Event
from asynccb.trackers.shared.console import ConsoleSide
from asynccb.trackers.shared.models import write_final_model
from asynccb.trackers.wandb.settings import WandbSettings

logger = logging.getLogger("asynccb")

ARCHITECTURE: Final = ".wandb-architecture"
FINAL_MODEL: Final = ".wandb-final-model"
"""Below `output_dir`, until the companion has taken them."""
_LEAST_FREQUENCY: Final = 100
_AT_ONCE: Final = 15
"""Histograms that are told at a step: each takes 66 slots of the 4,096 on the device."""


class WandbTraining(ConsoleSide):
    """Tell the tracker of histograms and of lines, and write the files that it uploads."""

    def __init__(self, settings: WandbSettings) -> None:
        super().__init__(settings.console)
        self._watch = settings.watch
        self._rows: deque[tuple[int, str, Any]] = deque()
        self._sees_optimizer = False
        if settings.watch != "false":
            self._listen(Event.PRE_OPTIMIZER_STEP, self._before_update)
            self._listen(Event.STEP_END, self._after_step)
        if settings.log_model != "false":
            self._listen(Event.TRAIN_BEGIN, self._write_architecture)
            self._listen(Event.TRAIN_END, self._write_model)

    def _listen(self, event: Event, hook: Callable[..., None]) -> None:
        setattr(self, event, hook)  # on the instance: an unwanted hook costs no event anything

    def drain(self, *, whole: bool) -> None:
        """Send the lines so far; with `whole`, also the remaining histograms."""
        super().drain(whole=whole)
        while whole and self._rows:
            self._tell_rows()

    def close(self) -> None:
        """Restore the console, and drop the rest."""
        super().close()
        self._rows.clear()

    # -- histograms --------------------------------------------------------------------------------

    def _before_update(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look while the gradients are there; the step is not counted yet."""
        self._sees_optimizer = True
        self._look(args, state.global_step + 1, kwargs.get("model"))

    def _after_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send a few of the last histograms; look here if a loop has no event before updates."""
        if self._rows:
            self._tell_rows()
        if not self._sees_optimizer:
            self._look(args, state.global_step, kwargs.get("model"))

    def _look(self, args: Any, step: int, model: Any) -> None:
        frequency = max(_LEAST_FREQUENCY, int(getattr(args, "logging_steps", 0) or 0))
        if self.tell is None or model is None or step % frequency:
            return
        from asynccb._staging.histograms import can_count, histograms
        from asynccb.checkpoint.model_files import bare

        if not can_count():
            return
        watch = self._watch
        found = histograms(
            bare(model),
            gradients=watch in ("gradients", "all"),
            parameters=watch in ("parameters", "all"),
        )
        self._rows.extend((step, name, row) for name, row in found)

    def _tell_rows(self) -> None:
        step = self._rows[0][0]
        some = list(islice((row for row in self._rows if row[0] == step), _AT_ONCE))
        for _ in some:
            self._rows.popleft()
        self._tell("histograms", {"step": step, **{name: row for _, name, row in some}})

    # -- files -------------------------------------------------------------------------------------

    def _write_architecture(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs.get("model")
        if self.tell is None or model is None or args.output_dir is None:
            return
        file = Path(args.output_dir, ARCHITECTURE, "model_architecture.txt")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(model), "utf-8", "backslashreplace")
        except OSError as error:
            logger.warning("the model's architecture is not logged: %s", error)

    def _write_model(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the model as it is in the end, on the rank that serves the tracker."""
        if self.tell is None or kwargs.get("model") is None or args.output_dir is None:
            return
        instead = "log checkpoints with WANDB_LOG_MODEL=checkpoint"
        write_final_model(Path(args.output_dir, FINAL_MODEL), kwargs, instead)

    def _tell(self, what: str, values: Mapping[str, Any]) -> None:
        if self.tell is not None:
            self.tell(what, values)
