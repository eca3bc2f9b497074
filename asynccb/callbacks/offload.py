"""
Synchronous callbacks, such as those written for transformers, on threads of their own.

Promises: each callback has one thread, because clients keep state per thread. Its hooks run one
after another, in the order of the events, on snapshots.
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
from asynccb._state.trainer_state import exports_state
from asynccb.callbacks.base import COMMON_KEYWORDS, TrainerCallback, find_hooks
from asynccb.callbacks.decides import decides as mark

_Calls: TypeAlias = "queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


def offload(callback: Any, *, decides: bool = False, lag: int = 1) -> TrainerCallback:
    """
    Return a callback that runs the hooks of a synchronous callback on a thread of its own.

    `callback` is a callback of transformers, or one of ours with `def` hooks; a class or an
    instance. Its hooks see the state as it was at the event (frozen, with its own log history), the
    logs and metrics as plain numbers, and the live model, optimizer and arguments, which the
    training changes meanwhile. If a hook sets or returns flags, an error suggests `decides=True`.
    With `decides=True` the flags are applied `lag` steps later, as with `@decides(lag=lag)`.

    `overflow`, `on_error`, `timeout` and `ranks` may be set on the returned callback before it is
    added. After a `timeout` the thread is abandoned with its call, and a new thread runs the next
    calls. The program ends without waiting for the thread. The run's `close` does wait, until its
    deadline.

    A thread does not remove all cost: while a client holds Python's global lock (to encode JSON, or
    to write to a queue in Python), the training thread waits. `bench/README.md` has the figures.
    Prefer a tracker of asynccb if there is one for your service.

    Raises `DefinitionError` if `callback` is not a callback, has no hooks, or has async hooks.
    """
    instance = callback() if isinstance(callback, type) else callback
    hooks = find_hooks(instance)
    name = type(instance).__name__
    if hooks.asynchronous:
        raise DefinitionError(
            f"{name} has async hooks ({', '.join(hooks.asynchronous)}), which already run beside "
            "the training: add it without offload"
        )
    if not hooks.inline:
        raise DefinitionError(f"{name} has no hooks, so there is nothing to offload")
    if not isinstance(decides, bool):
        raise ConfigurationError(
            f"decides is {decides!r}; it takes True or False (the number of steps is lag)"
        )
    members: dict[str, Any] = {event: _hook(event, decides, lag) for event in hooks.inline}
    if exports_state(instance):
        members |= {"state": _state, "from_state": classmethod(_from_state)}
    members |= {"wrapped": type(instance), "__doc__": type(instance).__doc__}
    offloaded: Offloaded = type(name, (Offloaded,), members)(instance)
    return offloaded


class Offloaded(TrainerCallback):
    """A callback that runs another one's hooks on a thread; `offload` makes a subclass for each."""

    wrapped: type
    """Class of the other callback."""

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
    # It needs no thread: the callback that receives this state keeps its own.
    instance.callback = restored.from_state(state)
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
    """Return a copy of logs and metrics, which other callbacks' hooks cannot change."""
    return dict(value) if name not in COMMON_KEYWORDS and isinstance(value, dict) else value


def _explained(offloaded: Offloaded, event: Event) -> UndecidedError:
    return UndecidedError(
        f"{type(offloaded).__name__}.{event} changed the control, but was offloaded without "
        "decides=True: write offload(callback, decides=True, lag=1), which applies the change a "
        "step later"
    )


class _OwnState(StateSnapshot):
    """A snapshot whose log history is a list, made at each access."""

    @property
    def log_history(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return list(self.__dict__["log_history"])


class _Thread:
    """Calls functions one after another on one thread, which the first call starts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: _Calls | None = None

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return the function's result or raise its error; if canceled, abandon the thread."""
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
            except StopIteration as error:  # a future rejects it: a coroutine cannot raise it
                stopped = RuntimeError(f"the hook raised {error!r}")
                stopped.__cause__ = error
                future.set_exception(stopped)
            except BaseException as error:  # noqa: BLE001 - raised in the coroutine that waits
                future.set_exception(error)
        del call, future, function  # keep nothing alive while waiting
