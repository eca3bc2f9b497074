"""
One run, wired together: its callbacks, lanes, decisions and counters.

`CallbackDispatcher` and the relay in `huggingface/` each have a `Run` and add what their loop
calls. Promises: a constructor that fails leaves nothing running; `close` happens when nothing
refers to the run any more, and at the latest at the end of the program; a forked child can neither
hang on nor touch the run.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from asynccb._compiled.load import make_shared
from asynccb._decisions.decisions import Decisions
from asynccb._dispatch.checks import check_limits, check_timeout, first_state, is_for_rank
from asynccb._dispatch.closing import close_publisher
from asynccb._dispatch.emitter import Emitter
from asynccb._dispatch.resume import Resume
from asynccb._dispatch.statistics import LossCount, Statistics
from asynccb._ground.events import RESETS, Event
from asynccb._ground.exceptions import ClosedError, ForkedError
from asynccb._ground.lifetime import FORKED, at_exit, in_forked_children, status_of
from asynccb._ground.types import Overflow, RunStatus
from asynccb._lanes.member import make_callback
from asynccb._lanes.registry import Registry
from asynccb._publishing.answers import Answers
from asynccb._publishing.publisher import Publisher
from asynccb._state.log_history import take_in
from asynccb._state.trainer_state import TrainerState
from asynccb.arguments.training_arguments import TrainingArguments
from asynccb.callbacks.request import Requesting


class Run:
    """The collaborators of one run."""

    def __init__(
        self,
        callbacks: Iterable[Any],
        *,
        args: Any = None,
        state: TrainerState | None = None,
        max_steps: int = 0,
        directory: str | Path | None = None,
        capacity: int = 10_000,
        overflow: Overflow = "block",
        replay: str | Path | None = None,
        resets: Mapping[Event, tuple[str, ...]] = RESETS,
        **objects: Any,
    ) -> None:
        """
        Make and connect everything; `CallbackDispatcher` describes the arguments.

        `resets` are the flags that each event clears. `objects` are the keywords that every hook
        receives.
        """
        check_limits(callbacks, max_steps, capacity, overflow)
        made = [make_callback(callback)[0] for callback in callbacks]  # before any is served
        args = TrainingArguments() if args is None else args
        state = first_state(args) if state is None else state
        if max_steps:
            state.max_steps = max_steps
        self.losses = LossCount()
        key = secrets.token_hex(16)
        folder = _folder(args, directory, key)
        self.registry = Registry(asks=replay is None, resets=resets)
        shared = make_shared()
        answers = Answers(self.registry.served)
        self.decisions = Decisions(
            answers.tickets,
            answers.listen,
            self.registry,
            args,
            directory=folder,
            replay=None if replay is None else Path(replay).expanduser(),
            owner=state.is_world_process_zero,
            shared=shared,
        )
        self.publisher = Publisher(
            folder,
            key,
            self.registry.served,
            answers,
            lambda: self.emitter.state,
            self.decisions.requests.post,
            overflow=overflow,
            capacity=capacity,
            shared=shared,
        )
        self.emitter = Emitter(
            self.registry,
            self.publisher,
            self.decisions,
            args=args,
            state=state,
            objects=objects,
            max_steps=max_steps,
            shared=shared,
        )
        self.resume = Resume(self.emitter, self.registry, self.decisions, self.publisher.runs)
        self.request = Requesting(self.decisions.request)
        in_forked_children(self._after_fork)
        self._thread = threading.current_thread()
        self._forget_exit = at_exit(self._close_at_exit)
        try:
            for callback in made:
                self.add_callback(callback)
        except BaseException:
            self.close(0.0, "failed")
            raise

    # -- callbacks ---------------------------------------------------------------------------------

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks, in order."""
        return [member.callback for member in self.registry.members]

    def add_callback(self, callback: Any) -> None:
        """Add a callback, a class or an instance, after all others."""
        emitter = self.emitter
        if emitter.is_closed:
            emitter.routes["on_init_end"]  # raises the error that every event raises now
        member = self.registry.prepare(callback)
        if member.is_wanted and is_for_rank(member.options.ranks, emitter.state):
            self.publisher.start_lane(member, emitter.args, emitter.objects["model"])
        self.request.connect(member.callback)
        self.registry.add(member)
        emitter.update_routes()

    def pop_callback(self, callback: Any) -> Any:
        """Remove a callback, the first of a class or an instance, and return it, or None."""
        member = self.registry.find(callback)
        if member is None:
            return None
        self.registry.remove(member)
        self.publisher.end_lane(member)
        self.decisions.forget(member.name)
        self.emitter.update_routes()
        return member.callback

    # -- the end -----------------------------------------------------------------------------------

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was emitted is delivered; return False after `timeout` seconds."""
        return self.publisher.flush(
            time.monotonic() + (float("inf") if timeout is None else timeout)
        )

    def statistics(self) -> Statistics:
        """Return the counts so far; the companion reports its own every half second."""
        end, emitter = self.publisher.companion, self.emitter
        shared = emitter.shared
        return Statistics(
            events=shared.events,
            steps=emitter.steps.total,
            seconds=shared.busy / 1e9,
            dropped=end.outlet.dropped if end else 0,
            blocked=end.outlet.blocked if end else 0.0,
            odd=self.publisher.staging.odd,
            callbacks=self.decisions.count(self.publisher.counts()),
            filtered_losses=self.losses.filtered,
        )

    def close(self, timeout: float, status: RunStatus) -> None:
        """Deliver remaining events within `timeout` seconds, end all lanes, print the summary."""
        check_timeout(timeout)
        emitter = self.emitter
        if emitter.is_closed:
            return
        try:
            if emitter.began_unasked and status == "finished":
                emitter.emit(Event.TRAIN_END, {})
        finally:
            self._close(timeout, status)

    def _close(self, timeout: float, status: RunStatus) -> None:
        emitter = self.emitter
        emitter.refuse(ClosedError, "this dispatcher was closed; make a new one for another run")
        self._forget_exit()
        self.decisions.close()
        close_publisher(self.publisher, self.statistics, timeout, status, self.decisions.trace)
        if isinstance(emitter.state, TrainerState):
            take_in(emitter.state)  # or its entries would keep the staging alive

    def drop(self) -> None:
        """
        Close a run that nothing refers to any more, as the end of the program would.

        That takes the time of `close`. The garbage collector may call this on another thread than
        the run's own: then nothing is waited for and no device is touched, and the run lives until
        the program ends.
        """
        if self.emitter.is_closed:
            return
        if threading.current_thread() is self._thread:
            self._close_at_exit(None)
        else:
            self._forget_exit()
            self._forget_exit = at_exit(self._close_at_exit, keep=True)

    def _close_at_exit(self, error: BaseException | None) -> None:
        emitter, status = self.emitter, status_of(error)
        is_cut_off = emitter.is_training and not emitter.began_unasked
        self.close(30.0, "failed" if status == "finished" and is_cut_off else status)

    def _after_fork(self) -> None:
        self.emitter.refuse(ForkedError, FORKED)
        self.decisions.abandon()
        self.publisher.abandon()
        self._forget_exit()


def _folder(args: Any, directory: str | Path | None, key: str) -> Path:
    """Return the folder of a run: its time stamp and the beginning of its key."""
    parent = Path(args.output_dir, "asynccb") if directory is None else Path(directory)
    return parent.expanduser().absolute() / f"{time.strftime('%Y%m%d-%H%M%S')}-{key[:8]}"
