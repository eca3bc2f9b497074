"""
Calls to an object's methods when its process forks or ends.

Promises: a registered method does not keep its object alive, unless `keep` asks for that.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Final

from asynccb._ground.interruption import end_as_interrupted
from asynccb._ground.types import RunStatus

FORKED: Final = (
    "this dispatcher belongs to the parent process: a forked child (a DataLoader worker, say) must "
    "not emit events; return the values to the parent, or make a dispatcher here"
)
"""The message for a forked child that emits an event."""


def in_forked_children(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child while its object lives."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            alive()

    os.register_at_fork(after_in_child=call)


def at_exit(
    method: Callable[[BaseException | None], None], *, keep: bool = False
) -> Callable[[], None]:
    """
    Call a bound method when the interpreter ends, if its object still lives.

    The call precedes the shutdown of `concurrent.futures`: after that shutdown, coroutines can
    neither resolve host names nor read files. If the program has threads that it waits for, the
    call follows their end instead. With `keep` the object lives until the call. The method
    receives the uncaught exception that ends the program, or None. Returns a function that cancels
    the call.
    """
    weak: Callable[[], Callable[[BaseException | None], None] | None]
    weak = (lambda: method) if keep else weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            # In an interactive session the last exception may be an old one.
            alive(None if hasattr(sys, "ps1") else getattr(sys, "last_value", None))

    calls = [call]

    def call_once() -> None:
        try:
            while calls:
                calls.pop()()
        except KeyboardInterrupt:
            # Raised here, it would keep Python from joining the program's threads, or be shown as
            # an error that is ignored.
            end_as_interrupted()

    def call_early() -> None:
        if not any(_is_waited_for(thread) for thread in threading.enumerate()):
            call_once()

    atexit.register(call_once)
    # Calls run in reverse order of registration: importing the module first makes our call precede
    # its shutdown. `_register_atexit` is not public, but `atexit` itself calls too late.
    import_module("concurrent.futures.thread")
    # A RuntimeError means that the interpreter is ending already.
    with contextlib.suppress(AttributeError, RuntimeError):
        threading._register_atexit(call_early)  # type: ignore[attr-defined]

    def cancel() -> None:
        calls.clear()
        atexit.unregister(call_once)

    return cancel


def _is_waited_for(thread: threading.Thread) -> bool:
    """Return whether the program ends only after this thread, which may be the one that trains."""
    return thread.is_alive() and not thread.daemon and thread is not threading.main_thread()


def status_of(error: BaseException | None) -> RunStatus:
    """Return the status of a run that ends with this exception; None means without one."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished"
    return "killed" if isinstance(error, KeyboardInterrupt) else "failed"
