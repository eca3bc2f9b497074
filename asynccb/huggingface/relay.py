"""
The dispatcher of a loop that is not ours: it prepares the control and keeps the history itself.

Promises: hooks get the loop's own objects; flags that callbacks outside of it have set stay; it
lives until it is closed, at the latest at the end of the program, but keeps no model alive.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from asynccb._dispatch.dispatcher import CallbackDispatcher
from asynccb._ground.events import Event
from asynccb._ground.lifetime import at_exit
from asynccb._ring.record import HISTORY_BIT
from asynccb._state.control import FLAGS, TrainerControl

_OWN: Final[tuple[str, ...]] = ("logs", "metrics")
"""Keywords of single events; all others are those of every one."""
_clock = time.time_ns


class Relay(CallbackDispatcher):
    """Send on the events of another loop, with its own state and control."""

    def __init__(self, callbacks: Iterable[Any], **options: Any) -> None:
        """Take what `CallbackDispatcher` takes."""
        super().__init__(callbacks, **options)
        self._roster.resets = {}  # the loop clears flags itself, before its own callbacks set them
        self._update_routes()
        self._forget_exit()
        self._forget_exit = at_exit(self._close_at_exit, keep=True)

    @property
    def is_training(self) -> bool:
        """Whether a training has begun and not ended, be it that an exception ended it."""
        return self._training

    def passes(self, event: Event, state: Any) -> bool:
        """Tell whether nothing is to be done at an event, which then need not be relayed."""
        # What `_emit` begins with; a call for both would be one more on the training thread.
        route = self._routes[event]
        return route is None or (
            route.is_quiet and not self._faults and self._decisions.pass_by(state)
        )

    def relay_log(self, args: Any, state: Any, control: Any, given: dict[str, Any]) -> Any:
        """Do as `relay` at `on_log`; what only the companion is to get goes straight there."""
        route, records = self._routes["on_log"], self._publisher.records
        if route is None or not route.is_direct or records is None:
            return self.relay(Event.LOG, args, state, control, given)
        begin = _clock()
        self.args, self.state, self.control = args, state, control
        logs = given["logs"]
        history = HISTORY_BIT if _is_last(logs, state) else 0
        records.write(route.number, begin, state, control, history, logs)
        self._account(begin)
        return control

    def relay(
        self,
        event: Event,
        args: Any,
        state: Any,
        control: Any,
        given: dict[str, Any],
        *,
        again: bool = False,
        checkpoint: Path | None = None,
    ) -> Any:
        """
        Send an event on and return the loop's control, or what a hook of the loop's kind returned.

        `given` are the keywords of hooks: `logs` and `metrics`, which are this event's alone, and
        the objects of every one. `again` where an interrupted run has come past it before its
        checkpoint. `checkpoint` is that, at the begin of a training, and the one that was saved, at
        `on_save`.
        """
        self.args, self.state, self.control = args, state, control
        extra = {name: given.pop(name) for name in _OWN if name in given}
        self._objects.update(given)
        try:
            if event == Event.LOG:
                history = HISTORY_BIT if _is_last(extra["logs"], state) else 0
                returned: Any = self._emit(event, extra, history)
            else:
                returned = self._send(event, extra, again, checkpoint)
        finally:
            if not self._training:  # the loop may be gone before this is
                self._objects = dict.fromkeys(self._objects)
        if returned is not control and not isinstance(returned, type(control)):
            _copy_flags(returned, control)
            return control
        return returned

    def _send(
        self,
        event: Event,
        extra: dict[str, Any],
        again: bool,
        checkpoint: Path | None,
    ) -> Any:
        if again:
            returned: Any = self.emit_again(event, **extra)
            if event == Event.TRAIN_BEGIN and checkpoint is not None:
                returned = self.emit_save_again(checkpoint)
            return returned
        if event == Event.SAVE and checkpoint is not None:
            return self.emit_save(checkpoint)
        return self.emit(event, **extra)


def _is_last(logs: Mapping[str, Any], state: Any) -> bool:
    """Tell whether the loop has put the logs into its history, with the step, as they are."""
    history = state.log_history
    if not history or "step" in logs:
        return False
    entry = history[-1]
    return "step" in entry and len(entry) == len(logs) + 1


def _copy_flags(source: TrainerControl, target: Any) -> None:
    for flag in FLAGS:
        setattr(target, flag, getattr(source, flag))
