"""
The hot path: from an event to the hooks, the ring and the mailboxes.

The way of one loss: `CallbackDispatcher.step` → `KnownLogs.step`, which does everything for a log
of a known form. Otherwise `Emitter.step` → `Emitter._log` → `RecordWriter.write` → `Outlet.put` →
`FrameWriter.write`.

Promises: `emit` waits only for a full lane; an event that nobody listens to costs a look in a dict;
whichever way a log takes, hooks, the history and the companion receive the same values.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from asynccb._compiled.shared import Shared
from asynccb._decisions.decisions import Decisions
from asynccb._dispatch.checks import check_mapping
from asynccb._dispatch.inline import run_inline
from asynccb._dispatch.statistics import StepCount
from asynccb._dispatch.untraced import keep_out, untraced
from asynccb._ground.events import EVENTS, Event, parse_event
from asynccb._lanes.containment import raise_oldest
from asynccb._lanes.mailbox import Letter, weigh
from asynccb._lanes.registry import Registry
from asynccb._lanes.routes import Refusing, Route
from asynccb._publishing.known_logs import KnownLogs
from asynccb._publishing.log_forms import LogForms
from asynccb._publishing.publisher import Publisher
from asynccb._ring.record import HISTORY_BIT
from asynccb._staging.staged_logs import StagedLogs
from asynccb._state.control import TrainerControl, pack_flags
from asynccb._state.snapshot import snapshot
from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")

_LOOK_NS: Final = 200_000_000
"""Nanoseconds between two looks at the companion and at devices."""
_clock = time.time_ns  # one clock for time stamps and for time spent: a call costs 50 ns


@untraced
class Emitter:
    """Emit a run's events; the only owner of its control, its routes and its counters."""

    def __init__(
        self,
        registry: Registry,
        publisher: Publisher,
        decisions: Decisions,
        *,
        args: Any,
        state: TrainerState,
        objects: dict[str, Any],
        max_steps: int,
        shared: Shared,
    ) -> None:
        """
        Begin with a fresh control.

        `objects` are the keywords that every hook receives. `max_steps` above 0 makes `step` ask
        for the end of training. `shared` are the fields that compiled code uses too.
        """
        keep_out()
        self.args = args
        self.state = state
        self.control: Any = TrainerControl()
        self.objects = objects
        self.routes: Mapping[str, Route | None] = registry.routes
        self.faults = publisher.faults
        self.decisions = decisions
        self.steps = StepCount(state)
        self.shared = shared
        self.is_training = False
        """Whether a training has begun and not ended; an exception may have ended it."""
        self.began_unasked = False
        """Whether `step` began the training, of a loop that does not emit `on_train_begin`."""
        self.is_closed = False
        self._awaits_begin = True
        self._registry = registry
        self._publisher = publisher
        self._staging = publisher.staging
        self._max_steps = max_steps
        self._forms: LogForms | None = None
        self.known: KnownLogs | None = None
        """The short way; there as soon as the companion serves a callback."""

    # -- called by the loop ------------------------------------------------------------------------

    def emit(self, event: str, extra: dict[str, Any], history: int = 0) -> TrainerControl:
        """Emit an event; `history` is `HISTORY_BIT` if its logs are in the history already."""
        try:
            route = self.routes[event]
        except KeyError:
            parse_event(event)  # raises, naming the nearest one
            raise
        if route is None:
            return self.control  # type: ignore[no-any-return]
        # Most steps of most runs; an error that is to be raised is raised at a boundary even so.
        if route.is_quiet and not self.faults and self.decisions.pass_by(self.state):
            return self.control  # type: ignore[no-any-return]
        begin = _clock()
        for flag in route.resets:
            setattr(self.control, flag, False)
        if route.is_direct:
            logs = extra.pop("logs", None)
            self._publisher.records.write(
                route.number, begin, self.state, self.control, history, logs, extra
            )
            if event == "on_log":
                self._learn(logs)
        else:
            self._serve(route, event, extra, history, begin)
            if self.is_closed:  # by a hook
                return self.control  # type: ignore[no-any-return]
        if begin >= self.shared.next_look:
            self._look_around(begin)
        self.shared.events += route.is_heard
        self.shared.busy += _clock() - begin
        if route.applies:
            self.decisions.apply(route, self.state, self.control)
        if self.faults:
            raise_oldest(self.faults)
        return self.control  # type: ignore[no-any-return]

    def log(self, logs: Mapping[str, Any]) -> None:
        """Append logs to the history and emit `on_log`."""
        if type(logs) is not dict:
            check_mapping("logs", logs)
        self._log(logs)

    def step(
        self, logs: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None
    ) -> TrainerControl:
        """Count a step of a hand-written loop; see `CallbackDispatcher.step`."""
        if logs is not None and type(logs) is not dict:
            check_mapping("logs", logs)
        if metrics is not None:
            check_mapping("metrics", metrics)
        if self._awaits_begin:
            self._begin_unasked()
        control = self.control
        control._new_step()
        self.state.global_step = step = self.state.global_step + 1
        last = 0 < self._max_steps <= step
        if last:
            control.should_training_stop = True
        try:
            self.emit("on_step_end", {})
        finally:  # an error of a callback must not lose the logs of the step
            if last:  # a hook that says `control.should_training_stop = await ask()` has cleared it
                self.control.should_training_stop = True
            if logs is not None:
                self._log(logs)
        if metrics is not None:
            self._log(metrics)
            self.emit("on_evaluate", {"metrics": metrics})
        return self.control  # type: ignore[no-any-return]

    def write_direct(self, route: Route, logs: Any, history: int) -> None:
        """Send logs that only the companion receives, on a route that `is_direct`."""
        begin = _clock()
        records = self._publisher.records
        records.write(route.number, begin, self.state, self.control, history, logs)
        self._account(begin)

    # -- called by collaborators -------------------------------------------------------------------

    def publish(
        self, route: Route, extra: dict[str, Any], history: int, now: int, control: Any
    ) -> None:
        """Ask the callbacks that decide, and hand the event to the lanes; they see `control`."""
        if self.is_closed:  # by a hook, or by a signal while one ran
            return
        ticket = self.decisions.open(route, self.state, control) if route.deciders else 0
        publisher = self._publisher
        if route.companion:
            others = dict(extra)
            logs = others.pop("logs", None)
            written = publisher.records.write(
                route.number, now, self.state, control, history, logs, others, ticket
            )
            if ticket and not written:
                publisher.answers.lose_record()
        if route.lanes:
            plain = {
                key: dict(self._staging.plain(value)) if isinstance(value, Mapping) else value
                for key, value in extra.items()
            }
            letter = Letter(
                EVENTS[route.number],
                self.args,
                snapshot(self.state),
                pack_flags(control),
                {**self.objects, **plain},
                now,
                weigh(plain),
            )
            publisher.thread.post(route.lanes, letter, ticket)

    def update_routes(self) -> None:
        """Follow a change of the callbacks; events that are refused stay refused."""
        self._registry.update()
        if not isinstance(self.routes, Refusing):
            self.routes = self._registry.routes

    def refuse(self, error: type[Exception], message: str) -> None:
        """Have every later event raise the error."""
        self.is_closed = True
        if self._forms is not None:
            self._forms.close()
            self.known = None
        self.routes = Refusing(error, message)

    # -- inside ------------------------------------------------------------------------------------

    def _serve(
        self, route: Route, event: str, extra: dict[str, Any], history: int, now: int
    ) -> None:
        """Run the inline hooks, then hand the event to the lanes."""
        if route.frames_training:
            self._mark_training(event == Event.TRAIN_BEGIN)
        try:
            if route.inline:
                self.control = run_inline(
                    route,
                    event,
                    self.args,
                    self.state,
                    self.control,
                    {**self.objects, **extra},
                    self.decisions.agree,
                )
        finally:
            # Also if a hook has raised: after a crash, the last logs matter most.
            self.publish(route, extra, history, now, self.control)

    def _log(self, logs: Mapping[str, Any]) -> None:
        """Log; the short way if only the companion listens and has seen such a log before."""
        if self.known is not None and self.known.log(logs):
            return
        begin = _clock()
        route = self.routes["on_log"]
        plain = self._append(logs)
        if route is None or not route.is_direct:
            self.shared.busy += _clock() - begin
            self.emit("on_log", {"logs": plain}, HISTORY_BIT)
            return
        for flag in route.resets:
            setattr(self.control, flag, False)
        records = self._publisher.records
        records.write(route.number, begin, self.state, self.control, HISTORY_BIT, plain)
        self._account(begin)
        self._learn(logs)

    def _learn(self, logs: Any) -> None:
        """Know logs like these from now on, where they go straight to the companion."""
        if self._forms is None:
            self._forms = self._publisher.make_forms(self.__dict__)
            self.known = self._forms.known
        step, log = self.routes["on_step_end"], self.routes["on_log"]
        is_quiet = step is not None and step.is_quiet and not step.resets
        # The short way clears `should_log` alone.
        if log is not None and log.is_direct and log.resets == ("should_log",):
            self._forms.known.learn_routes(step if is_quiet else None, log)
            self._forms.learn(logs)

    def _append(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Append logs to the history, and return them as plain values."""
        plain = self._staging.plain(logs)
        entry = {**plain, "step": self.state.global_step}
        if type(plain) is StagedLogs:
            plain.log.watch(entry)
        self.state.log_history.append(entry)
        return plain

    def _account(self, begin: int) -> None:
        """Count an event that went straight to the companion, and look around if it is time."""
        if begin >= self.shared.next_look:
            self._look_around(begin)
        self.shared.events += 1
        self.shared.busy += _clock() - begin
        if self.faults:
            raise_oldest(self.faults)

    def _look_around(self, now: int) -> None:
        """Take in messages of the companion, and values of devices, since the last look."""
        self.shared.next_look = now + _LOOK_NS
        self._publisher.poll(at_event=True)
        if self._staging.device is not None:
            self._staging.device.settle()
        if self._publisher.start_late_lanes(self.args, self.objects["model"]):
            self.update_routes()

    def _begin_unasked(self) -> None:
        logger.warning(
            "step() was called before the training began, so on_train_begin is emitted now; use "
            "the dispatcher in a `with` block, or emit on_train_begin and on_train_end yourself"
        )
        self.emit(Event.TRAIN_BEGIN, {})
        self.began_unasked = True

    def _mark_training(self, begins: bool) -> None:
        if begins and self.is_training:
            logger.warning(
                "on_train_begin was emitted again at step %s without an on_train_end; emit "
                "on_train_end when a training is over",
                self.state.global_step,
            )
        self.is_training, self.began_unasked, self._awaits_begin = begins, False, not begins
        self.steps.mark(self.state)
        if begins:
            self.decisions.begin(self.state.global_step)
            self._publisher.describe(self.args, self.objects["model"], begins=True)
