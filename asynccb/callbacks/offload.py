"""
Synchronous callbacks on a thread of their own: what was written for transformers, off the training
thread.

Promises: one thread for each callback, as clients keep state by thread; its hooks run one after
another, in the order of the events, on snapshots.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias

from asynccb._ground.events import Event
from asynccb._ground.exceptions import ConfigurationError, DefinitionError, UndecidedError
from asynccb._state.control import FrozenControl
from asynccb._state.snapshot import StateSnapshot
from asynccb.callbacks.base import COMMON_KEYWORDS, TrainerCallback, find_hooks
from asynccb.callbacks.decides import decides as mark

_Calls: TypeAlias = "queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


def offload(callback: Any, *, decides: bool = False, lag: int = 1) -> TrainerCallback:
    """
    Return a callback whose hooks run those of a synchronous one, on a thread of its own.

    `callback` is one of transformers, or of ours with `def` hooks; a class or an instance. Its
    hooks see the state as it was at the event (frozen, with a log history of its own), the logs and
    metrics as plain numbers, and the live model, optimizer and arguments, which the training
    changes meanwhile. What they set in the control, or return, is an error that names `decides`,
    unless `decides=True`: then it is applied `lag` steps later, as with `@decides(lag=lag)`.

    `overflow`, `on_error`, `timeout` and `ranks` may be set on what is returned, before it is
    added. After a `timeout` the thread is left behind with its call, and a new one goes on. The
    program ends without waiting for the thread; the run's `close` does wait, until its deadline.

    What no thread can cure: a client that holds Python's global lock (encoding JSON, writing to a
    queue in Python) still takes time from the training thread; `bench/README.md` has the figures.
    Where there is a tracker of ours, take that.

    Raises `DefinitionError` for what is no callback or has async hooks already.
    """
    instance = callback() if isinstance(callback, type) else callback
    hooks = find_hooks(instance)
    name = type(instance).__name__
    if hooks.asynchronous:
        raise DefinitionError(
            f"{name} has async hooks ({', '.join(hooks.asynchronous)}), which run beside the "
            "training already: add it without offload"
        )
    if not hooks.inline:
        raise DefinitionError(f"{name} has no hooks, so there is nothing to offload")
    if not isinstance(decides, bool):
        raise ConfigurationError(
            f"decides is {decides!r}; it takes True or False, and lag the steps"
        )
    members: dict[str, Any] = {event: _hook(event, decides, lag) for event in hooks.inline}
    if callable(getattr(instance, "state", None)) and hasattr(type(instance), "from_state"):
        members |= {"state": _state, "from_state": classmethod(_from_state)}
    members |= {"wrapped": type(instance), "__doc__": type(instance).__doc__}
    offloaded: Offloaded = type(name, (Offloaded,), members)(instance)
    return offloaded


class Offloaded(TrainerCallback):
    """Stand for a callback whose hooks run on a thread; made by `offload`, one class for each."""

    wrapped: type
    """Class of the callback."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self._thread = _Thread(f"asynccb-{type(self).__name__}")

    def __repr__(self) -> str:
        return f"offload({self.callback!r})"


def _state(self: Offloaded) -> dict[str, Any]:
    state: dict[str, Any] = self.callback.state()
    return state


def _from_state(cls: type[Offloaded], state: Mapping[str, Any]) -> Offloaded:
    restored: Any = cls.wrapped
    instance = object.__new__(cls)
    instance.callback = restored.from_state(state)  # and no thread: it stays that of the one here
    return instance


def _hook(event: Event, may_decide: bool, lag: int) -> Callable[..., Any]:
    async def hook(self: Offloaded, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        own = _OwnState(state.__dict__)
        given = {name: _own(name, value) for name, value in kwargs.items()}

        def run() -> Any:
            try:
                return getattr(self.callback, event)(args, own, control, **given)
            except UndecidedError as error:
                raise _explained(self, event) from error

        returned = await self._thread.call(run)
        if returned is not None and returned is not control and isinstance(control, FrozenControl):
            raise _explained(self, event)
        return returned

    hook.__name__, hook.__qualname__ = event, f"Offloaded.{event}"
    return mark(lag)(hook) if may_decide else hook


def _own(name: str, value: Any) -> Any:
    """Return logs and metrics as a copy, which hooks of others cannot change."""
    return dict(value) if name not in COMMON_KEYWORDS and isinstance(value, dict) else value


def _explained(offloaded: Offloaded, event: Event) -> UndecidedError:
    return UndecidedError(
        f"{type(offloaded).__name__}.{event} wants to change the control, and was offloaded "
        "without leave to: write offload(callback, decides=True, lag=1), which applies what it "
        "wants a step later"
    )


class _OwnState(StateSnapshot):
    """Be a snapshot whose log history is a list, made when it is looked at."""

    @property
    def log_history(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return list(self.__dict__["log_history"])


class _Thread:
    """Call functions one after another, all on one thread, which starts with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: _Calls | None = None

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return or raise what the function does; cancelled, leave it behind with its thread."""
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            thread = threading.Thread(
                target=_serve, args=(self._calls,), name=self._name, daemon=True
            )
            thread.start()
            weakref.finalize(self, self._calls.put, None).atexit = False
        future: Future[Any] = Future()
        self._calls.put((future, function))
        del function
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._calls.put(None)
            self._calls = None
            raise


def _serve(calls: _Calls) -> None:
    while (call := calls.get()) is not None:
        future, function = call
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except StopIteration as error:  # which no future takes, as no coroutine raises it
                stopped = RuntimeError(f"the hook raised {error!r}")
                stopped.__cause__ = error
                future.set_exception(stopped)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                future.set_exception(error)
        del call, future, function  # nothing is kept alive while it waits
