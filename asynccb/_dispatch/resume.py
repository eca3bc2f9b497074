"""The part of a run that a checkpoint stores, and how a resumed run goes on from there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec

from asynccb._decisions.decisions import Decisions
from asynccb._dispatch.emitter import Emitter
from asynccb._ground.events import Event
from asynccb._journal.tracker_runs import TRACKERS, TrackerRuns, read_saved_runs
from asynccb._lanes.registry import Registry
from asynccb._ring.record import AGAIN_BIT
from asynccb._state.control import Decision, PrivateControl, TrainerControl, write_flags


class Resume:
    """Save and restore the decisions, the trackers' runs and the trace of one run."""

    def __init__(
        self, emitter: Emitter, registry: Registry, decisions: Decisions, runs: TrackerRuns
    ) -> None:
        self._emitter = emitter
        self._registry = registry
        self._decisions = decisions
        self._runs = runs
        self.is_resumed = False
        """Whether `load_state_dict` was called."""

    def emit_again(self, event: str, extra: dict[str, Any]) -> TrainerControl:
        """Emit an event that the interrupted run emitted before its checkpoint."""
        emitter = self._emitter
        with self._decisions.paused():
            emitter.emit(event, extra)
        if event == Event.TRAIN_BEGIN and self._decisions.stops_at(emitter.state.global_step):
            emitter.control.should_training_stop = True
        return emitter.control  # type: ignore[no-any-return]

    def emit_save(self, checkpoint: Path) -> TrainerControl:
        """Emit `on_save`, and store the decisions on that event in the checkpoint."""
        with self._decisions.keeping(checkpoint, lambda: self._emitter.control, again=False):
            return self._emitter.emit(Event.SAVE, {})

    def emit_save_again(self, checkpoint: Path) -> TrainerControl:
        """
        Apply the decisions on the `on_save` of the checkpoint that the run resumes from.

        Hooks whose decision is not in the checkpoint receive the event again, with the control as
        it was then.
        """
        emitter = self._emitter
        with self._decisions.keeping(checkpoint, lambda: emitter.control, again=True) as note:
            route = self._registry.route_to_deciders(Event.SAVE, note.answers)
            if route is not None:
                seen = PrivateControl(note.seen or 0)
                emitter.publish(route, {}, AGAIN_BIT, time.time_ns(), seen)
                self._decisions.apply(route, emitter.state, emitter.control)
            write_flags(emitter.control, [Decision(**note.flags)])
        return emitter.control  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """Wait for pending decisions, and return them with the trackers' runs as JSON values."""
        state = self._emitter.state
        decisions = self._decisions.state(state.global_step, self._emitter.control)
        runs = self._runs.save(state.global_step, state.log_history)
        return {**decisions, TRACKERS: msgspec.to_builtins(runs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; raises `ConfigurationError` for anything else."""
        runs = read_saved_runs(state) if isinstance(state, dict) else None
        self._decisions.load(state, self._emitter.state.global_step)
        if runs is not None:
            self._runs.load(runs)
        self.is_resumed = True

    def save_trace(self, directory: str | os.PathLike[str]) -> None:
        """Copy the trace so far into a checkpoint, if anything was decided."""
        self._decisions.trace.save(Path(directory))

    def resume_trace(self, directory: str | os.PathLike[str]) -> None:
        """Begin the trace with the one in a checkpoint, if it contains one."""
        self._decisions.trace.resume(Path(directory))
