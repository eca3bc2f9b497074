"""What a loop, or anyone else, does about decisions: requests, the saved state, the trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asynccb._control import TrainerControl
from asynccb._decisions import Decisions
from asynccb._requesting import Requesting
from asynccb._state import TrainerState


class Steering:
    """Save and restore what was decided; the dispatcher is built on it."""

    state: TrainerState
    request: Requesting
    """Asks for flags from outside the callbacks, as a function."""

    _decisions: Decisions
    _emit: Callable[[str, dict[str, Any], int], TrainerControl]
    _resumed: bool

    def emit_again(self, event: str, **extra: Any) -> TrainerControl:
        """
        Emit an event that an interrupted run has emitted already, before its checkpoint.

        Hooks run, but what hooks marked `@decides` want is discarded: the run has it from there.
        """
        self._decisions.paused = True
        try:
            return self._emit(event, extra, 0)
        finally:
            self._decisions.paused = False

    def state_dict(self) -> dict[str, Any]:
        """
        Wait for the decisions that are pending, and return what a resumed run needs.

        Call it where the checkpoint is written, on every rank. All values are plain JSON.
        """
        return self._decisions.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from what `state_dict` returned, before any event; set the state's step before.

        Decisions that were pending are applied at their steps. Callbacks that decided then and are
        not there now, and the other way round, are a warning. As a context manager the dispatcher
        then emits `on_train_begin` as `emit_again` does. Raises `ConfigurationError` for anything
        else than such a state.
        """
        self._decisions.load(state, self.state.global_step)
        self._resumed = True

    def save_trace(self, directory: str | os.PathLike[str]) -> None:
        """Copy the trace so far, `decisions.jsonl`, into a checkpoint, if anything was decided."""
        self._decisions.trace.save(Path(directory))

    def resume_trace(self, directory: str | os.PathLike[str]) -> None:
        """Begin the trace with the one in a checkpoint, if it holds one."""
        self._decisions.trace.resume(Path(directory))
