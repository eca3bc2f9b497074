"""
What a hand-written loop calls: count a step, log.

Promises: tensors of a device that only the companion is to get go there by the fewest calls there
are; whichever way a log goes, hooks, the history and the companion get the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from asynccb._dispatch.checks import check_mapping
from asynccb._lanes.containment import Faults, raise_oldest
from asynccb._lanes.routes import Route
from asynccb._publishing.publisher import Publisher
from asynccb._ring.record import HISTORY_BIT
from asynccb._staging.staged_logs import StagedLogs
from asynccb._staging.staging import Staging
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState

_clock = time.time_ns


class Stepping:
    """Count steps and log; the dispatcher is built on it."""

    state: TrainerState
    control: Any

    _busy: int
    _emit: Callable[[str, dict[str, Any], int], TrainerControl]
    _events: int
    _faults: Faults
    _look_around: Callable[[int], None]
    _max_steps: int
    _next_look: int
    _publisher: Publisher
    _routes: Mapping[str, Route | None]
    _staging: Staging

    def log(self, logs: Mapping[str, Any]) -> TrainerControl:
        """Append the logs, with the step, to the state's log history, and emit `on_log`."""
        if type(logs) is not dict:
            check_mapping("logs", logs)
        self._log(logs)
        return self.control  # type: ignore[no-any-return]

    def step(
        self,
        logs: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> TrainerControl:
        """
        Count an update step of a hand-written loop, and return what the callbacks want next.

        Clears the flags of the step before, adds 1 to `global_step`, emits `on_step_end`, then
        `on_log` for `logs`, and `on_log` and `on_evaluate` for `metrics`. At `max_steps` it sets
        `should_training_stop`, whatever hooks say. All else (`emit_save`, say) is for the loop.
        """
        if logs is not None and type(logs) is not dict:
            check_mapping("logs", logs)
        if metrics is not None:
            check_mapping("metrics", metrics)
        control = self.control
        control._new_step()
        self.state.global_step = step = self.state.global_step + 1
        last = 0 < self._max_steps <= step
        if last:
            control.should_training_stop = True
        try:
            self._emit("on_step_end", {}, 0)
        finally:  # what a step has logged is not lost with an error of a callback
            if last:  # a hook that says `control.should_training_stop = await ask()` has cleared it
                self.control.should_training_stop = True
            if logs is not None:
                self._log(logs)
        if metrics is not None:
            self._log(metrics)
            self._emit("on_evaluate", {"metrics": metrics}, 0)
        return self.control  # type: ignore[no-any-return]

    def _log(self, logs: Mapping[str, Any]) -> None:
        """Log; the short way if only the companion listens, and the shortest for a device."""
        begin = _clock()
        route, records = self._routes["on_log"], self._publisher.records
        if route is None or not route.is_direct or records is None:
            plain = self._append(logs)
            self._busy += _clock() - begin
            self._emit("on_log", {"logs": plain}, HISTORY_BIT)
            return
        state, control = self.state, self.control
        for flag in route.resets:
            setattr(control, flag, False)
        if not (
            isinstance(state, TrainerState)  # that of transformers holds a plain list
            and records.write_log(begin, state, control, logs)
        ):
            plain = self._append(logs)
            records.write(route.number, begin, state, control, HISTORY_BIT, plain)
        self._account(begin)

    def _append(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Append logs to the history, and return them as plain values."""
        plain = self._staging.plain(logs)
        entry = {**plain, "step": self.state.global_step}
        if type(plain) is StagedLogs:
            plain.log.watch(entry)
        self.state.log_history.append(entry)
        return plain

    def _account(self, begin: int) -> None:
        """Do what is to be done after an event that went straight to the companion."""
        if begin >= self._next_look:
            self._look_around(begin)
        self._events += 1
        self._busy += _clock() - begin
        if self._faults:
            raise_oldest(self._faults)
