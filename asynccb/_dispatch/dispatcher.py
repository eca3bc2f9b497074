"""
The dispatcher: what a training loop emits events to.

Promises: `emit` waits for no lane but a full one; an event that nobody listens to costs a look in a
dict; `def` hooks run inline with the semantics of transformers; what an async callback does wrong
stays in its lane unless it asked for `on_error = "raise"`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from asynccb._decisions.decisions import Decisions
from asynccb._dispatch.checks import Given, check_limits, check_mapping, check_timeout, first_state
from asynccb._dispatch.closing import close_publisher
from asynccb._dispatch.emitter import Stepping
from asynccb._dispatch.inline import run_inline
from asynccb._dispatch.membership import Membership
from asynccb._dispatch.resume import Steering
from asynccb._dispatch.statistics import Statistics, StepCount
from asynccb._ground.events import Event, parse_event
from asynccb._ground.exceptions import ClosedError, ForkedError
from asynccb._ground.lifetime import FORKED, at_exit, in_forked_children, status_of
from asynccb._ground.types import Overflow, RunStatus
from asynccb._lanes.containment import raise_oldest
from asynccb._lanes.member import make_callback
from asynccb._lanes.registry import Roster
from asynccb._lanes.routes import Refusing, Route
from asynccb._publishing.publisher import Publisher
from asynccb._state.control import TrainerControl
from asynccb._state.log_history import take_in
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks.request import Requesting

_LOOK_NS: Final = 200_000_000
"""Nanoseconds between two looks at what has come meanwhile, from the companion and from devices."""
_clock = time.time_ns  # one clock for time stamps and for time spent: a call costs 50 ns


class CallbackDispatcher(Membership, Stepping, Steering):
    """
    Send a training loop's events to callbacks, without the loop waiting.

    Where several `def` hooks listen to an event they run first, inline and in order; then the event
    goes, as they left it, to the async hooks. As a context manager it emits `on_train_begin` and
    `on_train_end`, and marks tracker runs as failed when the body raises (killed, for Ctrl-C). It
    is to be closed: of one that is dropped instead, hooks on the thread may miss the last events,
    and trackers call the run crashed. Not for use from several threads at once, nor in a forked
    child (`ForkedError`).
    """

    model = Given()
    processing_class = Given()
    optimizer = Given()
    lr_scheduler = Given()
    train_dataloader = Given()
    eval_dataloader = Given()

    def __init__(
        self,
        callbacks: Iterable[Any],
        *,
        args: Any = None,
        state: TrainerState | None = None,
        max_steps: int = 0,
        model: Any = None,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        eval_dataloader: Any = None,
        directory: str | Path | None = None,
        capacity: int = 10_000,
        overflow: Overflow = "block",
        replay: str | Path | None = None,
    ) -> None:
        """
        Take the callbacks, classes or instances, and what hooks are given.

        `args` defaults to `TrainingArguments()`; ranks wait `args.ddp_timeout` seconds for one
        another to decide. `max_steps` above 0 makes `step` ask for the end of training. Journals go
        below `directory`, by default `<args.output_dir>/asynccb`; a folder is made only if a
        tracker needs one. A mailbox holds `capacity` events. Environment variables that trackers
        read must be set before. `replay` is the `decisions.jsonl` of another run, or a folder that
        holds it: hooks that decide are then not called, and what they decided in that run is
        applied at the same steps. Raises `DefinitionError` for a callback that cannot work,
        `ConfigurationError` for a value out of range, `TraceError` for a trace that cannot be
        replayed; the latter also later, where it turns out to be of another run.
        """
        check_limits(callbacks, max_steps, capacity, overflow)
        made = [make_callback(callback)[0] for callback in callbacks]  # before any is served
        self.args: Any = TrainingArguments() if args is None else args
        self.state = first_state(self.args) if state is None else state
        if max_steps:
            self.state.max_steps = max_steps
        self.control: Any = TrainerControl()
        self._objects: dict[str, Any] = {}
        self.model = model
        self.processing_class = processing_class
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.train_dataloader = train_dataloader
        self.eval_dataloader = eval_dataloader
        self._max_steps = max_steps
        self._steps = StepCount(self.state)
        self._events = 0
        self._busy = 0
        self._next_look = 0
        self._closed = False
        self._training = False
        self._resumed = False
        self._roster = Roster(asks=replay is None)
        folder = Path(self.args.output_dir, "asynccb") if directory is None else Path(directory)
        self._publisher = Publisher(folder.expanduser().absolute(), overflow, capacity)
        self._staging = self._publisher.staging
        self._faults = self._publisher.faults
        self._decisions = Decisions(
            self._publisher.listening.tickets,
            self._publisher.listening.listen,
            self._roster,
            self.args,
            directory=self._publisher.directory,
            replay=None if replay is None else Path(replay).expanduser(),
            owner=self.state.is_world_process_zero,
        )
        self._publisher.on_request = self._decisions.requests.post
        self.request = Requesting(self._decisions.request)
        self._routes: Mapping[str, Route | None] = self._roster.routes
        in_forked_children(self._after_fork)
        self._forget_exit = at_exit(self._close_at_exit)
        try:
            for callback in made:
                self.add_callback(callback)
        except BaseException:
            self.close(0.0, "failed")
            raise

    def emit(self, event: str, **extra: Any) -> TrainerControl:
        """
        Emit an event and return the control as the inline hooks left it.

        `extra` reaches the hooks as keywords: `logs` at `on_log`, `metrics` at `on_evaluate` and
        `on_predict`. Clears the event's flags first. Raises `UnknownEventError`, `DefinitionError`
        for logs or metrics that are no mapping, what an inline hook raises, and `CallbackError` for
        an earlier failure of a callback with `on_error = "raise"`.
        """
        if extra:
            for name in ("logs", "metrics"):
                values = extra.get(name)
                if type(values) is not dict and values is not None:
                    check_mapping(name, values)
        return self._emit(event, extra, 0)

    def _emit(self, event: str, extra: dict[str, Any], history: int) -> TrainerControl:
        """Emit; `history` is the record's bit, or 0."""
        try:
            route = self._routes[event]
        except KeyError:
            parse_event(event)  # raises, naming the nearest one
            raise
        if route is None:
            return self.control  # type: ignore[no-any-return]
        # Most steps of most runs; an error that is to be raised is raised at a boundary even so.
        if route.is_quiet and not self._faults and self._decisions.pass_by(self.state):
            return self.control  # type: ignore[no-any-return]
        begin = _clock()
        for flag in route.resets:
            setattr(self.control, flag, False)
        records = self._publisher.records
        if route.is_direct and records is not None:  # most logs of most runs
            logs = extra.pop("logs", None)
            records.write(route.number, begin, self.state, self.control, history, logs, extra)
        else:
            self._serve(route, event, extra, history, begin)
            if self._closed:  # by a hook
                return self.control  # type: ignore[no-any-return]
        if begin >= self._next_look:
            self._look_around(begin)
        self._events += route.is_heard
        self._busy += _clock() - begin
        if route.applies:
            self._decisions.apply(route, self.state, self.control)
        if self._faults:
            raise_oldest(self._faults)
        return self.control  # type: ignore[no-any-return]

    def _serve(
        self, route: Route, event: str, extra: dict[str, Any], history: int, now: int
    ) -> None:
        """Run the inline hooks, then put the event into the mailboxes."""
        if route.frames_training:
            self._mark_training(event == Event.TRAIN_BEGIN)
        try:
            if route.inline:
                keywords = {**self._objects, **extra}
                self.control = run_inline(
                    route,
                    event,
                    self.args,
                    self.state,
                    self.control,
                    keywords,
                    self._decisions.agree,
                )
        finally:
            # Also where a hook has raised: what was logged up to a crash is what matters then.
            self._publish(route, extra, history, now)

    def _publish(self, route: Route, extra: dict[str, Any], history: int, now: int) -> None:
        if self._closed:  # by a hook, or by a signal while one ran
            return
        publisher = self._publisher
        ticket = self._decisions.open(route, self.state) if route.deciders else 0
        if route.companion:
            assert publisher.records is not None
            others = dict(extra)
            logs = others.pop("logs", None)
            written = publisher.records.write(
                route.number, now, self.state, self.control, history, logs, others, ticket
            )
            if ticket and not written:
                publisher.listening.lose_record()
        if route.lanes:
            copies = {
                key: dict(self._staging.plain(value)) if isinstance(value, Mapping) else value
                for key, value in extra.items()
            }
            publisher.post(
                route, now, self.state, self.control, self.args, self._objects, copies, ticket
            )

    def _look_around(self, now: int) -> None:
        """Take in what has come meanwhile, where it is time to look."""
        self._next_look = now + _LOOK_NS
        self._publisher.poll(at_event=True)
        if self._staging.device is not None:
            self._staging.device.settle()
        if self._publisher.late:
            self._start_late_lanes()

    def _mark_training(self, begins: bool) -> None:
        self._training = begins
        self._steps.mark(self.state)
        if begins:
            self._decisions.begin(self.state.global_step)
            self._publisher.describe(self.args, self.model, begins=True)

    def settle(self) -> None:
        """Wait until the log history holds numbers only; waits for the device, if there is one."""
        self._publisher.finish_staging(float("inf"))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was emitted is delivered; return False after `timeout` seconds."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        return self._publisher.flush(deadline)

    def close(self, timeout: float = 30.0, status: RunStatus = "finished") -> None:
        """
        Deliver what is left, end every lane, and say in one line how it went.

        All of it within `timeout` seconds, or until Ctrl-C; what is not delivered then stays in the
        journal, and the command that delivers it is printed. Later events raise `ClosedError`; a
        second close does nothing. Raises `ConfigurationError` for a `timeout` that is no number.
        """
        check_timeout(timeout)
        if self._closed:
            return
        self._refuse(ClosedError, "this dispatcher was closed; make a new one for another run")
        self._forget_exit()
        self._decisions.close()
        close_publisher(self._publisher, self.statistics, timeout, status)
        if isinstance(self.state, TrainerState):
            take_in(self.state)  # or its entries would keep what has staged them

    def statistics(self) -> Statistics:
        """Return what was counted so far; the companion's counts are up to half a second old."""
        outlet = self._publisher.outlet
        return Statistics(
            events=self._events,
            steps=self._steps.total,
            seconds=self._busy / 1e9,
            dropped=outlet.dropped if outlet else 0,
            blocked=outlet.blocked if outlet else 0.0,
            odd=self._staging.odd,
            callbacks=self._decisions.count(self._publisher.counts()),
        )

    def __enter__(self) -> Self:
        begin = self.emit_again if self._resumed else self.emit
        try:
            begin(Event.TRAIN_BEGIN)
        except BaseException as error:
            self.close(status=status_of(error))
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = status_of(error)
        try:
            if error is None and not self._closed:
                status = "failed"
                self.emit(Event.TRAIN_END)
                status = "finished"
        finally:
            self.close(status=status)

    def _refuse(self, error: type[Exception], message: str) -> None:
        self._closed = True
        self._routes = Refusing(error, message)

    def _close_at_exit(self, error: BaseException | None) -> None:
        status = status_of(error)
        self.close(status="failed" if status == "finished" and self._training else status)

    def _after_fork(self) -> None:
        self._refuse(ForkedError, FORKED)
        self._decisions.abandon()
        self._publisher.abandon()
        self._forget_exit()
