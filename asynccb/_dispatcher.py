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
from typing import Any, Self

from asynccb._callback import Overflow
from asynccb._control import TrainerControl
from asynccb._events import Event, parse_event
from asynccb._exceptions import (
    ClosedError,
    ForkedError,
)
from asynccb._given import Given, check_limits, check_mapping, first_state, is_for_rank
from asynccb._inline import run_inline
from asynccb._lifetime import at_exit, in_forked_children
from asynccb._publisher import Publisher
from asynccb._record import HISTORY_BIT
from asynccb._roster import Refusing, Roster, Route
from asynccb._run import RunStatus
from asynccb._staged_logs import StagedLogs
from asynccb._state import TrainerState
from asynccb._statistics import Statistics
from asynccb.arguments import TrainingArguments

_clock = time.time_ns  # one clock for time stamps and for time spent: a call costs 50 ns


class CallbackDispatcher:
    """
    Send a training loop's events to callbacks, without the loop waiting.

    Where several `def` hooks listen to an event they run first, inline and in order; then the event
    goes, as they left it, to the async hooks. As a context manager it emits `on_train_begin` and
    `on_train_end`, and marks tracker runs as failed when the body raises (killed, for
    KeyboardInterrupt). Not for use from several threads at once, nor in a forked child
    (`ForkedError`).
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
    ) -> None:
        """
        Take the callbacks, classes or instances, and what hooks are given.

        `args` defaults to `TrainingArguments()`. `max_steps` above 0 makes `step` ask for the end
        of training. Journals go below `directory`, by default `<args.output_dir>/asynccb`; a folder
        is made only if a tracker needs one. A mailbox holds `capacity` events. Environment
        variables that trackers read must be set before. Raises `DefinitionError` for a callback
        that cannot work, `ConfigurationError` for a value out of range.
        """
        check_limits(callbacks, max_steps, capacity, overflow)
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
        self._events = 0
        self._busy = 0
        self._closed = False
        self._training = False
        self._roster = Roster()
        folder = Path(self.args.output_dir, "asynccb") if directory is None else Path(directory)
        self._publisher = Publisher(folder.expanduser().absolute(), overflow, capacity)
        self._staging = self._publisher.staging
        self._faults = self._publisher.faults
        self._routes: Mapping[str, Route | None] = self._roster.routes
        in_forked_children(self._after_fork)
        self._forget_exit = at_exit(self._close_at_exit)
        for callback in callbacks:
            self.add_callback(callback)

    # -- events ------------------------------------------------------------------------------------

    def emit(self, event: str, **extra: Any) -> TrainerControl:
        """
        Emit an event and return the control as the inline hooks left it.

        `extra` reaches the hooks as keywords: `logs` at `on_log`, `metrics` at `on_evaluate` and
        `on_predict`. Clears the event's flags first. Raises `UnknownEventError`, what an inline
        hook raises, and `CallbackError` for an earlier failure of a callback with `on_error =
        "raise"`.
        """
        return self._emit(event, extra, 0)

    def log(self, logs: Mapping[str, Any]) -> TrainerControl:
        """Append the logs, with the step, to the state's log history, and emit `on_log`."""
        check_mapping("logs", logs)
        staging = self._staging
        plain = staging.plain(logs)
        entry = {**plain, "step": self.state.global_step}
        if type(plain) is StagedLogs and staging.device is not None:
            staging.device.watch(entry)  # puts the numbers in when they land
        self.state.log_history.append(entry)
        return self._emit("on_log", {"logs": plain}, HISTORY_BIT)

    def step(
        self, logs: Mapping[str, Any] | None = None, metrics: Mapping[str, Any] | None = None
    ) -> TrainerControl:
        """
        Count an update step of a hand-written loop, and return what the callbacks want next.

        Clears the flags of the step before, adds 1 to `global_step`, emits `on_step_end`, then
        `on_log` for `logs`, and `on_log` and `on_evaluate` for `metrics`. At `max_steps` it sets
        `should_training_stop`. Saving and evaluating is the loop's own: emit `on_save` when a
        checkpoint is there. `on_step_begin` and the epoch events are emitted by the loop, if
        wanted.
        """
        for name, values in (("logs", logs), ("metrics", metrics)):
            if values is not None:
                check_mapping(name, values)
        control = self.control
        control._new_step()
        self.state.global_step += 1
        if self._max_steps and self.state.global_step >= self._max_steps:
            control.should_training_stop = True
        self._emit("on_step_end", {}, 0)
        if logs is not None:
            self.log(logs)
        if metrics is not None:
            self.log(metrics)
            self._emit("on_evaluate", {"metrics": metrics}, 0)
        return self.control  # type: ignore[no-any-return]

    def _emit(self, event: str, extra: dict[str, Any], history: int) -> TrainerControl:
        """Emit; `history` is the record's bit, or 0."""
        try:
            route = self._routes[event]
        except KeyError:
            parse_event(event)  # raises, naming the nearest one
            raise
        if route is None:
            return self.control  # type: ignore[no-any-return]
        begin = _clock()
        if route.frames_training:
            self._mark_training(event == Event.TRAIN_BEGIN)
        for flag in route.resets:
            setattr(self.control, flag, False)
        try:
            if route.inline:
                keywords = {**self._objects, **extra}
                self.control = run_inline(
                    route, event, self.args, self.state, self.control, keywords
                )
        finally:
            # Also where a hook has raised: what was logged up to a crash is what matters then.
            self._publish(route, extra, history, begin)
        self._events += 1
        self._busy += _clock() - begin
        if self._faults:
            self._publisher.raise_fault()
        return self.control  # type: ignore[no-any-return]

    def _publish(self, route: Route, extra: dict[str, Any], history: int, now: int) -> None:
        publisher = self._publisher
        if route.companion:
            publisher.write(route.number, now, self.state, self.control, history, extra)
        if route.lanes:
            copies = {
                key: dict(self._staging.plain(value)) if isinstance(value, Mapping) else value
                for key, value in extra.items()
            }
            publisher.post(route, now, self.state, self.control, self.args, self._objects, copies)
        if self._staging.device is not None:
            self._staging.device.tick(now)
        if publisher.late:
            self._start_late_lanes()

    def _mark_training(self, begins: bool) -> None:
        self._training = begins
        if begins:
            self._publisher.describe(self.args, self.model)

    def _start_late_lanes(self) -> None:
        for member in list(self._publisher.late):
            self._publisher.start_lane(member, self.args, self.model)
        self._update_routes()

    def settle(self) -> None:
        """Wait until the log history holds numbers only; waits for the device, if there is one."""
        if self._staging.device is not None:
            self._staging.device.finish(float("inf"))

    # -- callbacks ---------------------------------------------------------------------------------

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks, in order."""
        return [member.callback for member in self._roster.members]

    @property
    def callback_list(self) -> str:
        """The callbacks' class names, one a line."""
        return "\n".join(type(callback).__name__ for callback in self.callbacks)

    def add_callback(self, callback: Any) -> None:
        """
        Add a callback, a class or an instance, after all others.

        A second one of a class is added with a warning. Added during an event, it takes part from
        the next one on.
        """
        if self._closed:
            self._routes["on_init_end"]  # raises what every event raises now
        member = self._roster.prepare(callback)
        if member.hooks.asynchronous and is_for_rank(member.options.ranks, self.state):
            self._publisher.start_lane(member, self.args, self.model)
        self._roster.add(member)
        self._update_routes()

    def pop_callback(self, callback: Any) -> Any:
        """Remove a callback, the first of a class or an instance, and return it, or None."""
        member = self._roster.find(callback)
        if member is None:
            return None
        self._roster.remove(member)
        self._publisher.end_lane(member)
        self._update_routes()
        return member.callback

    def remove_callback(self, callback: Any) -> None:
        """
        Remove a callback: the first of a class, if there is one, or an instance.

        What its lane has got already is delivered. Raises ValueError for an instance that is none
        of the callbacks.
        """
        if self.pop_callback(callback) is None and not isinstance(callback, type):
            raise ValueError(f"{callback!r} is none of the callbacks: {', '.join(self._names())}")

    def _names(self) -> list[str]:
        return [member.name for member in self._roster.members]

    def _update_routes(self) -> None:
        self._roster.update()
        if not isinstance(self._routes, Refusing):
            self._routes = self._roster.routes

    # -- the end -----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was emitted is delivered; return False after `timeout` seconds."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        return self._publisher.flush(deadline)

    def close(self, timeout: float = 30.0, status: RunStatus = "finished") -> None:
        """
        Deliver what is left, end every lane, and say in one line how it went.

        All of it within `timeout` seconds, or until Ctrl-C; what is not delivered then stays in the
        journal, and the command that delivers it is printed. Later events raise `ClosedError`; a
        second close does nothing.
        """
        if self._closed:
            return
        from asynccb._closing import close_publisher

        self._refuse(ClosedError, "this dispatcher was closed; make a new one for another run")
        self._forget_exit()
        close_publisher(self._publisher, self.statistics, timeout, status)

    def statistics(self) -> Statistics:
        """Return what was counted so far; the companion's counts are up to half a second old."""
        outlet = self._publisher.outlet
        return Statistics(
            events=self._events,
            steps=self.state.global_step,
            seconds=self._busy / 1e9,
            dropped=outlet.dropped if outlet else 0,
            blocked=outlet.blocked if outlet else 0.0,
            odd=self._staging.odd,
            callbacks=self._publisher.counts(),
        )

    def __enter__(self) -> Self:
        self.emit(Event.TRAIN_BEGIN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status: RunStatus = "finished"
        if error is not None:
            status = "killed" if isinstance(error, KeyboardInterrupt) else "failed"
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

    def _close_at_exit(self, failed: bool) -> None:
        self.close(status="failed" if failed or self._training else "finished")

    def _after_fork(self) -> None:
        self._refuse(
            ForkedError,
            "this dispatcher belongs to the parent process: a forked child (a DataLoader worker, "
            "say) must not emit events; return the values to the parent, or make a dispatcher here",
        )
        self._publisher.abandon()
        self._forget_exit()
