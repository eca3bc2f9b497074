"""
`CallbackDispatcher`: the object that a training loop emits events to.

The work is in `emitter.py` (the hot path), `resume.py` (checkpoints) and `run.py` (callbacks and
the end). Promises: `emit` waits only for a full lane; an event that nobody listens to costs a look
in a dict; `def` hooks run inline with the semantics of transformers; a failure of an async callback
stays in its lane unless the callback asked for `on_error = "raise"`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asynccb._dispatch.checks import check_mapping
from asynccb._dispatch.hook_object import HookObject
from asynccb._dispatch.run import Run
from asynccb._dispatch.statistics import Statistics
from asynccb._dispatch.untraced import untraced
from asynccb._ground.events import Event
from asynccb._ground.interruption import interrupt_caller
from asynccb._ground.lifetime import status_of
from asynccb._ground.types import Overflow, RunStatus
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks.request import Requesting


@untraced
class CallbackDispatcher:
    """
    Send a training loop's events to callbacks, without the loop waiting.

    If several `def` hooks listen to an event they run first, inline and in order; then the event
    goes, as they left it, to the async hooks. As a context manager it emits `on_train_begin` and
    `on_train_end`, and marks tracker runs as failed when the body raises (killed, for Ctrl-C).
    Close it, or use it as a context manager. A dispatcher that is dropped instead closes itself: at
    once if the last reference goes, else when the garbage collector finds it or the program ends.
    Its runs are then finished, or failed if a training has begun and not ended. Not for use from
    several threads at once, nor in a forked child (`ForkedError`).
    """

    model = HookObject()
    processing_class = HookObject()
    optimizer = HookObject()
    lr_scheduler = HookObject()
    train_dataloader = HookObject()
    eval_dataloader = HookObject()

    request: Requesting
    """Asks for flags from outside the callbacks, as a function."""

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
        Serve the callbacks, classes or instances; hooks receive the other arguments.

        `args` defaults to `TrainingArguments()`; ranks wait `args.ddp_timeout` seconds for one
        another to decide. `max_steps` above 0 makes `step` ask for the end of training. Journals go
        below `directory`, by default `<args.output_dir>/asynccb`; a folder is made only if a
        tracker needs one. A mailbox holds `capacity` events. Environment variables that trackers
        read must be set before. `replay` is the `decisions.jsonl` of another run, or a folder that
        contains it: hooks that decide are then not called, and their decisions in that run are
        applied at the same steps. Raises `DefinitionError` for a callback that cannot work,
        `ConfigurationError` for a value out of range, `TraceError` for a trace that cannot be
        replayed; `TraceError` also later, if the trace turns out to be of another run.
        """
        self._connect(
            Run(
                callbacks,
                args=args,
                state=state,
                max_steps=max_steps,
                directory=directory,
                capacity=capacity,
                overflow=overflow,
                replay=replay,
                model=model,
                processing_class=processing_class,
                optimizer=optimizer,
                lr_scheduler=lr_scheduler,
                train_dataloader=train_dataloader,
                eval_dataloader=eval_dataloader,
            )
        )

    def _connect(self, run: Run) -> None:
        self._run, self._emitter = run, run.emitter
        self.request = run.request
        self.losses = run.losses

    # -- what hooks receive ------------------------------------------------------------------------

    @property
    def args(self) -> Any:
        """The training arguments."""
        return self._emitter.args

    @args.setter
    def args(self, args: Any) -> None:
        self._emitter.args = args

    @property
    def state(self) -> TrainerState:
        """The state of the run, live."""
        return self._emitter.state

    @state.setter
    def state(self, state: TrainerState) -> None:
        self._emitter.state = state

    @property
    def control(self) -> Any:
        """The control, live, with the flags that the callbacks have set."""
        return self._emitter.control

    @control.setter
    def control(self, control: Any) -> None:
        self._emitter.control = control

    # -- callbacks ---------------------------------------------------------------------------------

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks, in order."""
        return self._run.callbacks

    @property
    def callback_list(self) -> str:
        """The callbacks' class names, one a line."""
        return "\n".join(type(callback).__name__ for callback in self.callbacks)

    def add_callback(self, callback: Any) -> None:
        """
        Add a callback, a class or an instance, after all others.

        A second callback of a class is added with a warning. A callback that is added during an
        event takes part from the next event on.
        """
        self._run.add_callback(callback)

    def pop_callback(self, callback: Any) -> Any:
        """Remove a callback, the first of a class or an instance, and return it, or None."""
        return self._run.pop_callback(callback)

    def remove_callback(self, callback: Any) -> None:
        """
        Remove a callback: the first of a class, if there is one, or an instance.

        Events that its lane has received already are delivered, but decide nothing any more. Raises
        ValueError for an instance that was not added.
        """
        if self.pop_callback(callback) is None and not isinstance(callback, type):
            names = ", ".join(member.name for member in self._run.registry.members)
            raise ValueError(f"{callback!r} is not one of the callbacks: {names}")

    # -- events ------------------------------------------------------------------------------------

    def emit(self, event: str, **extra: Any) -> TrainerControl:
        """
        Emit an event and return the control as the inline hooks left it.

        Hooks receive `extra` as keywords: `logs` at `on_log`, `metrics` at `on_evaluate` and
        `on_predict`. Clears the event's flags first. Raises `UnknownEventError`, `DefinitionError`
        unless logs and metrics are mappings, whatever an inline hook raises, and `CallbackError`
        for an earlier failure of a callback with `on_error = "raise"`.
        """
        if extra:
            known = self._emitter.known
            if known is not None and event == "on_log" and known.emit(extra):
                return self._emitter.control  # type: ignore[no-any-return]
            for name in ("logs", "metrics"):
                values = extra.get(name)
                if type(values) is not dict and values is not None:
                    check_mapping(name, values)
        return self._emitter.emit(event, extra)

    def log(self, logs: Mapping[str, Any]) -> TrainerControl:
        """Append the logs, with the step, to the state's log history, and emit `on_log`."""
        emitter = self._emitter
        emitter.log(logs)
        return emitter.control  # type: ignore[no-any-return]

    def step(
        self,
        logs: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> TrainerControl:
        """
        Count an update step of a hand-written loop, and return the control with the next flags.

        Clears the flags of the step before, adds 1 to `global_step`, emits `on_step_end`, then
        `on_log` for `logs`, and `on_log` and `on_evaluate` for `metrics`. At `max_steps` it sets
        `should_training_stop`, whatever hooks want. The loop does everything else itself, such as
        `emit_save`.
        """
        known = self._emitter.known
        if known is not None and metrics is None and known.step(logs):
            return self._emitter.control  # type: ignore[no-any-return]
        return self._emitter.step(logs, metrics)

    # -- checkpoints -------------------------------------------------------------------------------

    def emit_again(self, event: str, **extra: Any) -> TrainerControl:
        """
        Emit an event that an interrupted run emitted before its checkpoint.

        Hooks run, but decisions of hooks marked `@decides` are discarded: the run has them from the
        checkpoint. At `on_train_begin` the training stops if it was decided that it ends at the
        checkpoint's step; look at the control before the first step.
        """
        return self._run.resume.emit_again(event, extra)

    def emit_save(self, directory: str | os.PathLike[str]) -> TrainerControl:
        """
        Emit `on_save` for a complete checkpoint and store the resulting decisions in it.

        The file is `on_save.json`, written once every hook has answered. Plain `emit("on_save")`
        stores nothing: a run resumed from that checkpoint will not see those decisions.
        """
        return self._run.resume.emit_save(Path(directory))

    def emit_save_again(self, directory: str | os.PathLike[str]) -> TrainerControl:
        """
        Apply the decisions on the `on_save` of the checkpoint that a run resumes from.

        Call it after `on_train_begin`. Decisions stored in the checkpoint hold; only hooks whose
        decision had not arrived by then receive the event again. Raises `ConfigurationError` for a
        damaged file.
        """
        return self._run.resume.emit_save_again(Path(directory))

    def state_dict(self) -> dict[str, Any]:
        """
        Wait for pending decisions, and return the state that a resumed run needs.

        Call it on every rank, when the checkpoint is written. All values are plain JSON. The
        trackers' run ids are among them, as far as they are known. Decisions on the checkpoint's
        own `on_save` come later; `emit_save` stores them.
        """
        return self._run.resume.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from what `state_dict` returned, before any event; set the state's step before.

        Decisions that were pending are applied at their steps. Trackers continue their runs and
        leave out what those contain already. A warning names callbacks that decided then and are
        missing now, and the reverse. As a context manager the dispatcher then emits
        `on_train_begin` as `emit_again` does; after that call `emit_save_again`. Raises
        `ConfigurationError` for anything but such a state.
        """
        self._run.resume.load_state_dict(state)

    def save_trace(self, directory: str | os.PathLike[str]) -> None:
        """Copy the trace so far, `decisions.jsonl`, into a checkpoint, if anything was decided."""
        self._run.resume.save_trace(directory)

    def resume_trace(self, directory: str | os.PathLike[str]) -> None:
        """Begin the trace with the one in a checkpoint, if it contains one."""
        self._run.resume.resume_trace(directory)

    # -- the end -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until the log history contains numbers only; waits for the device, if any."""
        self._run.publisher.finish_staging(float("inf"))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was emitted is delivered; return False after `timeout` seconds."""
        return self._run.flush(timeout)

    def statistics(self) -> Statistics:
        """Return the counts so far; the companion reports its own every half second."""
        return self._run.statistics()

    def close(self, timeout: float = 30.0, status: RunStatus = "finished") -> None:
        """
        Deliver the remaining events, end every lane, and print one line that sums up the run.

        All of this takes at most `timeout` seconds; Ctrl-C ends it earlier. Events that are not
        delivered then stay in the journal, and the command that delivers them is printed. Later
        events raise `ClosedError`; a second close does nothing. Raises `ConfigurationError` unless
        `timeout` is a number of seconds.
        """
        self._run.close(timeout, status)

    def __enter__(self) -> Self:
        begin = self.emit_again if self._run.resume.is_resumed else self.emit
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
            if error is None and not self._emitter.is_closed:
                status = "failed"
                self.emit(Event.TRAIN_END)
                status = "finished"
        finally:
            self.close(status=status)

    def __del__(self) -> None:
        if (run := self.__dict__.get("_run")) is not None:  # None if the constructor has raised
            try:
                run.drop()
            except KeyboardInterrupt:
                interrupt_caller()


def dispatcher_of(run: Run) -> CallbackDispatcher:
    """Return a dispatcher for a run that somebody else has made, and drives."""
    dispatcher = CallbackDispatcher.__new__(CallbackDispatcher)
    dispatcher._connect(run)
    return dispatcher
