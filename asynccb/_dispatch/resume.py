"""What a loop, or anyone else, does about decisions: requests, the saved state, the trace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from asynccb._decisions.decisions import Decisions
from asynccb._ground.events import Event
from asynccb._journal.tracker_runs import TRACKERS, read_saved_runs
from asynccb._lanes.registry import Roster
from asynccb._lanes.routes import Route
from asynccb._publishing.publisher import Publisher
from asynccb._ring.record import AGAIN_BIT
from asynccb._state.control import Decision, PrivateControl, TrainerControl, write_flags
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks.request import Requesting


class Steering:
    """Save and restore what was decided; the dispatcher is built on it."""

    state: TrainerState
    control: Any
    request: Requesting
    """Asks for flags from outside the callbacks, as a function."""

    _decisions: Decisions
    _emit: Callable[[str, dict[str, Any], int], TrainerControl]
    _publisher: Publisher
    _publish: Callable[[Route, dict[str, Any], int, int], None]
    _roster: Roster
    _resumed: bool

    def emit_again(self, event: str, **extra: Any) -> TrainerControl:
        """
        Emit an event that an interrupted run has emitted already, before its checkpoint.

        Hooks run, but what hooks marked `@decides` want is discarded: the run has it from there. At
        `on_train_begin` the training stops where it was decided that it does at the checkpoint's
        step; look at the control before the first step.
        """
        self._decisions.paused = True
        try:
            self._emit(event, extra, 0)
        finally:
            self._decisions.paused = False
        if event == Event.TRAIN_BEGIN and self._decisions.stopped == self.state.global_step:
            self.control.should_training_stop = True
        return self.control  # type: ignore[no-any-return]

    def emit_save(self, directory: str | os.PathLike[str]) -> TrainerControl:
        """
        Emit `on_save` for a checkpoint that is complete, and keep in it what is decided on that.

        That is in the file `on_save.json`, written when the decisions are in; `emit("on_save")`
        keeps nothing, so that a run that resumes from there goes on without them.
        """
        with self._decisions.keeping(Path(directory), lambda: self.control, again=False):
            return self._emit(Event.SAVE, {}, 0)

    def emit_save_again(self, directory: str | os.PathLike[str]) -> TrainerControl:
        """
        Go on from what was decided on the `on_save` of the checkpoint that a run resumes from.

        Call it after `on_train_begin`. What was kept in the checkpoint holds; hooks that decide,
        and whose decision had not come by then, get the event again; no others do. Raises
        `ConfigurationError` for a file that is damaged.
        """
        with self._decisions.keeping(Path(directory), lambda: self.control, again=True) as note:
            route = self._roster.route_to_deciders(Event.SAVE, note.answers)
            if route is not None:
                own, self.control = self.control, PrivateControl(note.seen or 0)
                try:
                    self._publish(route, {}, AGAIN_BIT, time.time_ns())
                finally:
                    self.control = own
                self._decisions.apply(route, self.state, self.control)
            write_flags(self.control, [Decision(**note.flags)])
        return self.control  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """
        Wait for the decisions that are pending, and return what a resumed run needs.

        Call it where the checkpoint is written, on every rank. All values are plain JSON, and among
        them are the trackers' run ids, as far as they are known. What is decided later, on the
        checkpoint's own `on_save`, `emit_save` keeps.
        """
        step = self.state.global_step
        decisions = self._decisions.state(step, self.control)
        runs = self._publisher.runs.save(step, self.state.log_history)
        return {**decisions, TRACKERS: msgspec.to_builtins(runs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from what `state_dict` returned, before any event; set the state's step before.

        Decisions that were pending are applied at their steps, and trackers go on with the runs
        that they had, leaving out what those have already. Callbacks that decided then and are
        not there now, and the other way round, are a warning. As a context manager the dispatcher
        then emits `on_train_begin` as `emit_again` does; after that call `emit_save_again`. Raises
        `ConfigurationError` for anything else than such a state.
        """
        runs = read_saved_runs(state) if isinstance(state, dict) else None
        self._decisions.load(state, self.state.global_step)
        if runs is not None:
            self._publisher.runs.load(runs)
        self._resumed = True

    def save_trace(self, directory: str | os.PathLike[str]) -> None:
        """Copy the trace so far, `decisions.jsonl`, into a checkpoint, if anything was decided."""
        self._decisions.trace.save(Path(directory))

    def resume_trace(self, directory: str | os.PathLike[str]) -> None:
        """Begin the trace with the one in a checkpoint, if it holds one."""
        self._decisions.trace.resume(Path(directory))
