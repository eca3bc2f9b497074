"""
The bridge into `transformers.Trainer`: one callback that serves all others.

Promises: `def` hooks run inline and receive transformers' own objects. `async def` hooks and
trackers receive snapshots, and the training does not wait for them. Decisions are applied at their
steps, also in a run that resumes from a checkpoint. transformers is imported only when a bridge is
made.

Supported: transformers 5.0 (the first version with `on_push_begin`) to 5.24.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from asynccb._dispatch.checks import check_limits
from asynccb._dispatch.dispatcher import CallbackDispatcher
from asynccb._dispatch.run import Run
from asynccb._dispatch.statistics import Statistics
from asynccb._ground.events import EVENTS, Event
from asynccb._ground.exceptions import (
    ClosedError,
    ConfigurationError,
    DefinitionError,
    naming_damage,
)
from asynccb._ground.lifetime import status_of
from asynccb._ground.types import Overflow, RunStatus
from asynccb._lanes.member import make_callback
from asynccb._state.json_file import replace_file
from asynccb.callbacks.base import COMMON_KEYWORDS
from asynccb.checkpoint import callback_states
from asynccb.huggingface.foreign import make_foreign
from asynccb.huggingface.relay import Relay

if TYPE_CHECKING:
    from transformers import TrainerCallback as _Theirs
else:
    _Theirs = object  # `make_foreign` makes each instance a callback of transformers

_BETWEEN_RUNS = 10.0
"""Seconds for a run to deliver its remaining events before the next run begins."""
_PREPARED = frozenset({Event.INIT_END, Event.TRAIN_BEGIN, Event.EPOCH_BEGIN, Event.SAVE})
"""Events at which the bridge has work to do, even if no callback listens."""


class AsyncCallbacks(_Theirs):
    """
    Serve callbacks in a `transformers.Trainer`, without its training waiting for them.

        trainer = transformers.Trainer(
            model, args, callbacks=[AsyncCallbacks([MyCallback(), MLflowCallback()])], ...
        )

    Accepts the same callbacks as `CallbackDispatcher`: ours, callbacks of transformers, and
    results of `offload`. Set `report_to="none"` in the arguments, because the default trackers of
    transformers run on the training thread. All callbacks given here take the bridge's place in
    the order of the Trainer's callbacks: after the default flow, before the progress bar.

    Decisions of async hooks are applied at `on_step_end`, where a `def` hook would set the flags.
    `trainer_state.json` contains the pending decisions and the states of the callbacks. A resumed
    training always restores the decisions; it restores the states of the callbacks only with
    `restore_callback_states_from_checkpoint=True`. With several ranks, each other rank stores its
    decisions in its own file in the checkpoint, as it does with its random state. The states of
    the callbacks are those of the rank that saves.

    Tracker runs continue over several calls of `train()` and `evaluate()` of one Trainer. Another
    Trainer with the same bridge begins runs of its own, and so does each trial of a hyperparameter
    search. Runs end with `close`, or when the bridge is dropped or the program ends; if an
    exception ended the last training, as failed. As a context manager, the bridge closes itself.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the instance a callback of transformers."""
        return make_foreign(cls)

    def __init__(
        self,
        callbacks: Iterable[Any] = (),
        *,
        directory: str | Path | None = None,
        capacity: int = 10_000,
        overflow: Overflow = "block",
        replay: str | Path | None = None,
    ) -> None:
        """
        Set up the callbacks, classes or instances; the other arguments are `CallbackDispatcher`'s.

        Raises `DefinitionError` for a callback that cannot work, `ConfigurationError` for a value
        out of range or if transformers is missing.
        """
        if hasattr(self, "_callbacks"):  # transformers restores this instance: keep its state
            return
        check_limits(callbacks, 0, capacity, overflow)
        self._options: dict[str, Any] = {
            "directory": directory,
            "capacity": capacity,
            "overflow": overflow,
            "replay": replay,
        }
        self._callbacks = [_checked(each) for each in callbacks]
        if not self._callbacks:
            raise DefinitionError(
                "AsyncCallbacks without callbacks does nothing; give it a list of callbacks"
            )
        self._relay: Relay | None = None
        self._resumes_epoch = False
        self._checkpoint: Path | None = None
        self._trained = False
        self._trial: Any = None
        self._controls: list[Any] = []  # of each Trainer that was made with the bridge
        self._trainer = -1
        self._closed = False

    # -- callbacks ---------------------------------------------------------------------------------

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks, in order."""
        return list(self._callbacks if self._relay is None else self._relay.run.callbacks)

    @property
    def dispatcher(self) -> CallbackDispatcher:
        """
        The dispatcher that serves the callbacks; it exists from the first event on.

        Raises `ConfigurationError` before that, because it needs the Trainer's arguments.
        """
        return self._connected.dispatcher

    def add_callback(self, callback: Any) -> None:
        """Add a callback, class or instance, after all others; effective from the next event."""
        added = _checked(callback)
        if self._relay is not None:
            self._relay.run.add_callback(added)
        self._callbacks.append(added)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all events are delivered; return False after `timeout` seconds."""
        return self._relay is None or self._relay.run.flush(timeout)

    def statistics(self) -> Statistics:
        """Return what was counted so far; see `CallbackDispatcher.statistics`."""
        return self._run.statistics()

    def close(self, timeout: float = 30.0, status: RunStatus | None = None) -> None:
        """
        Deliver the remaining events within `timeout` seconds, and end every run.

        Without a `status`, runs end as finished, or as failed if a training has begun but not
        ended. Later events raise `ClosedError`; a second close does nothing.
        """
        if self._relay is not None:
            failed = self._run.emitter.is_training
            self._run.close(timeout, status or ("failed" if failed else "finished"))
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = status_of(error)
        self.close(status=None if status == "finished" else status)

    # -- checkpoints -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; waits for the decisions that are pending."""
        if self._relay is None:
            return {"args": {}, "attributes": {}}
        stored = callback_states.capture(self._run.callbacks, self._run.resume.state_dict())
        return {"args": {}, "attributes": {"stored": {"callbacks": stored, "folder": self._folder}}}

    @property
    def stored(self) -> None:
        """Always None: transformers sets it on resume, but `_resume` reads the trainer's state."""

    @stored.setter
    def stored(self, value: object) -> None:
        pass

    @property
    def _connected(self) -> Relay:
        if self._relay is None:
            raise ConfigurationError(
                "no event has arrived yet: give AsyncCallbacks to a transformers.Trainer first"
            )
        return self._relay

    @property
    def _run(self) -> Run:
        return self._connected.run

    @property
    def _folder(self) -> str:
        emitter = self._run.emitter
        directory = Path(emitter.args.output_dir).absolute()
        return str(directory / f"checkpoint-{emitter.state.global_step}")

    def _resume(self, args: Any, state: Any) -> bool:
        """Go on from a checkpoint; tell whether it knows this run."""
        run = self._run
        entry = state.stateful_callbacks.get(type(self).__name__, {})
        stored = entry.get("attributes", {}).get("stored")
        if not stored:
            return False
        callbacks = stored["callbacks"]
        if args.restore_callback_states_from_checkpoint:
            callback_states.restore(run.callbacks, callbacks)
        run.emitter.state = state
        decisions = callback_states.dispatcher_state(callbacks)
        for folder in (Path(stored["folder"]), Path(args.output_dir, Path(stored["folder"]).name)):
            if folder.is_dir():
                self._checkpoint = folder
                run.resume.resume_trace(folder)
                if (own := folder / _rank_file(args)).is_file():
                    with naming_damage(own, UnicodeDecodeError, msgspec.DecodeError):
                        decisions = msgspec.json.decode(own.read_bytes())
                break
        if decisions is not None:
            run.resume.load_state_dict(decisions)
        return decisions is not None

    def _save_beside(self, args: Any) -> Path | None:
        """Add decisions or trace to a checkpoint; return its folder, None if it does not exist."""
        folder = Path(self._folder)
        if not args.should_save:
            folder.mkdir(parents=True, exist_ok=True)  # the rank that saves may be later
            body = msgspec.json.encode(self._run.resume.state_dict())
            replace_file(folder / _rank_file(args), body)
        elif folder.is_dir():
            self._run.resume.save_trace(folder)
        else:
            return None
        return folder

    # -- events ------------------------------------------------------------------------------------

    def _forward(self, event: Event, args: Any, state: Any, control: Any, given: Any) -> Any:
        again, checkpoint = False, None
        if event == Event.INIT_END:
            self._controls.append(control)
            self._end_run()
        elif event == Event.TRAIN_BEGIN:
            again = self._begin_training(args, state, control, given)
            checkpoint = self._checkpoint
        elif event == Event.EPOCH_BEGIN:
            again, self._resumes_epoch = self._resumes_epoch, False
        relay = self._relay or self._make_relay(args, state, given)
        if event == Event.SAVE and not state.is_hyper_param_search:  # whose folders are others
            checkpoint = self._save_beside(args)
        return relay.relay(event, args, state, control, given, again=again, checkpoint=checkpoint)

    def _begin_training(self, args: Any, state: Any, control: Any, given: dict[str, Any]) -> bool:
        """Prepare for a training; return whether it resumes an interrupted one."""
        self._check_alone(state)
        self._begin_run(state, control)
        if self._relay is None:
            self._make_relay(args, state, given)
        self._checkpoint = None
        again = state.global_step > 0 and self._resume(args, state)
        self._resumes_epoch = again and state.epoch % 1 != 0
        # If the Trainer was made, or the checkpoint written, without this bridge, there is no
        # entry for it, and transformers would fail at the next save.
        state.stateful_callbacks.setdefault(type(self).__name__, {"args": {}, "attributes": {}})
        return again

    def _begin_run(self, state: Any, control: Any) -> None:
        """End the runs of another Trainer, or of the previous trial of a search."""
        trial = (state.trial_name, state.trial_params) if state.is_hyper_param_search else None
        trainer = self._trainer_of(control)
        # A trial that memory ran out in is begun again, and not ended.
        begins_again = trial == self._trial and self._trained and self._run.emitter.is_training
        if trainer != self._trainer or (trial is not None and not begins_again):
            self._end_run()
        self._trained, self._trial, self._trainer = True, trial, trainer

    def _end_run(self) -> None:
        """Make room for another run, if there was a training."""
        if self._trained and not self._closed:
            self.close(_BETWEEN_RUNS)
            self._relay, self._closed, self._trained = None, False, False

    def _trainer_of(self, control: Any) -> int:
        """Return the number of the Trainer that trains, in the order in which they were made."""
        known = [n for n, each in enumerate(self._controls) if each is control]
        return known[0] if known else len(self._controls) - 1  # a checkpoint has replaced it

    def _make_relay(self, args: Any, state: Any, given: dict[str, Any]) -> Relay:
        if self._closed:
            raise ClosedError("this AsyncCallbacks was closed; make a new one for another run")
        self._check_alone(state)
        objects = {name: given.get(name) for name in COMMON_KEYWORDS}
        self._relay = Relay(self._callbacks, args=args, state=state, **objects, **self._options)
        return self._relay

    def _check_alone(self, state: Any) -> None:
        if isinstance(state.stateful_callbacks.get(type(self).__name__), list):
            raise ConfigurationError(
                "a Trainer accepts only one AsyncCallbacks; put all callbacks into one list"
            )


def _rank_file(args: Any) -> str:
    return f"asynccb_decisions_{args.process_index}.json"


def _checked(callback: Any) -> Any:
    """Return the callback, or an instance of the class; raise if it cannot work."""
    instance, _ = make_callback(callback)
    if isinstance(instance, AsyncCallbacks):
        raise DefinitionError(
            "AsyncCallbacks cannot contain another AsyncCallbacks; put all callbacks into one list"
        )
    return instance


def _hook(event: Event) -> Callable[..., Any]:
    def prepare(self: AsyncCallbacks, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return self._forward(event, args, state, control, kwargs)

    def log(self: AsyncCallbacks, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        relay = self._relay or self._make_relay(args, state, kwargs)
        return relay.relay_log(args, state, control, kwargs)

    def forward(self: AsyncCallbacks, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        relay = self._relay or self._make_relay(args, state, kwargs)
        if relay.passes(event, state):
            return control
        return relay.relay(event, args, state, control, kwargs)

    hook = prepare if event in _PREPARED else log if event == Event.LOG else forward
    hook.__name__ = event
    hook.__qualname__ = f"{AsyncCallbacks.__name__}.{event}"
    hook.__doc__ = f"Forward `{event}`."
    return hook


for _event in EVENTS:
    setattr(AsyncCallbacks, _event, _hook(_event))
