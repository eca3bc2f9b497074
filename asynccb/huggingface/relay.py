"""
The events of another loop, which prepares the control and keeps the history itself.

Promises: hooks receive the loop's own objects; flags that callbacks outside of the relay have set
stay; the run keeps no model alive between trainings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from asynccb._dispatch.dispatcher import dispatcher_of
from asynccb._dispatch.run import Run
from asynccb._ground.events import Event
from asynccb._ring.record import HISTORY_BIT
from asynccb._state.control import FLAGS, TrainerControl

_OWN: Final[tuple[str, ...]] = ("logs", "metrics")
"""Keywords of single events; all others are those of every event."""


class Relay:
    """Send on the events of another loop, with its own state and control."""

    def __init__(self, callbacks: Iterable[Any], **options: Any) -> None:
        """Serve the callbacks; `options` are those of `Run`."""
        # The loop clears flags itself, before its own callbacks set them.
        self.run = Run(callbacks, resets={}, **options)
        self.dispatcher = dispatcher_of(self.run)
        self._emitter = self.run.emitter

    def passes(self, event: Event, state: Any) -> bool:
        """Tell whether nothing is to be done at an event, which then need not be relayed."""
        # `Emitter.emit` begins the same way; a call for both would be one more on the hot path.
        emitter = self._emitter
        route = emitter.routes[event]
        return route is None or (
            route.is_quiet and not emitter.faults and emitter.decisions.pass_by(state)
        )

    def relay_log(self, args: Any, state: Any, control: Any, given: dict[str, Any]) -> Any:
        """Do as `relay` at `on_log`; logs for the companion alone go straight there."""
        emitter = self._emitter
        route = emitter.routes["on_log"]
        if route is None or not route.is_direct:
            return self.relay(Event.LOG, args, state, control, given)
        emitter.args, emitter.state, emitter.control = args, state, control
        logs = given["logs"]
        emitter.write_direct(route, logs, HISTORY_BIT if _is_last(logs, state) else 0)
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
        the objects of every event. `again` means that an interrupted run emitted the event before
        its checkpoint. `checkpoint` is that checkpoint, at the begin of a training; at `on_save` it
        is the checkpoint that was saved.
        """
        emitter = self._emitter
        emitter.args, emitter.state, emitter.control = args, state, control
        if event == Event.TRAIN_BEGIN:  # the loop may begin a training again that raised
            emitter.is_training = False
        extra = {name: given.pop(name) for name in _OWN if name in given}
        emitter.objects.update(given)
        try:
            if event == Event.LOG:
                history = HISTORY_BIT if _is_last(extra["logs"], state) else 0
                returned: Any = emitter.emit(event, extra, history)
            else:
                returned = self._send(event, extra, again, checkpoint)
        finally:
            if not emitter.is_training:  # the loop may be gone before this is
                emitter.objects = dict.fromkeys(emitter.objects)
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
        resume = self.run.resume
        if again:
            returned: Any = resume.emit_again(event, extra)
            if event == Event.TRAIN_BEGIN and checkpoint is not None:
                returned = resume.emit_save_again(checkpoint)
            return returned
        if event == Event.SAVE and checkpoint is not None:
            return resume.emit_save(checkpoint)
        return self._emitter.emit(event, extra)


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
