"""
What is to happen to an object when its process forks or ends.

Promises: neither keeps the object alive, unless it is asked to.
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

from asynccb._ground.types import RunStatus

FORKED: Final = (
    "this dispatcher belongs to the parent process: a forked child (a DataLoader worker, say) must "
    "not emit events; return the values to the parent, or make a dispatcher here"
)
"""What a forked child is told that emits an event."""


def in_forked_children(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, as long as its object lives."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            alive()

    os.register_at_fork(after_in_child=call)


def at_exit(
    method: Callable[[BaseException | None], None], *, keep: bool = False
) -> Callable[[], None]:
    """
    Call a bound method when the interpreter ends, as long as its object lives.

    That is before `concurrent.futures` takes no more work, without which coroutines resolve no
    names and read no files; but where the program has threads that it waits for, after they have
    ended. With `keep` the object lives until then. The method gets the uncaught exception that ends
    the program, if one does. Returns what cancels the call.
    """
    weak: Callable[[], Callable[[BaseException | None], None] | None]
    weak = (lambda: method) if keep else weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            # In an interactive session the last exception may be an old one.
            alive(None if hasattr(sys, "ps1") else getattr(sys, "last_value", None))

    calls = [call]

    def call_once() -> None:
        while calls:
            calls.pop()()

    def call_early() -> None:
        if not any(_is_waited_for(thread) for thread in threading.enumerate()):
            with contextlib.suppress(KeyboardInterrupt):  # or the program's threads are not joined
                call_once()

    atexit.register(call_once)
    # The later registered goes first, so after the module that it is to precede. Not public, but
    # there is no other way: what `atexit` calls comes when it is too late.
    import_module("concurrent.futures.thread")
    with contextlib.suppress(AttributeError, RuntimeError):  # or it is ending already
        threading._register_atexit(call_early)  # type: ignore[attr-defined]

    def cancel() -> None:
        calls.clear()
        atexit.unregister(call_once)

    return cancel


def _is_waited_for(thread: threading.Thread) -> bool:
    """Tell whether the program ends only when a thread has, which may be one that trains."""
    return thread.is_alive() and not thread.daemon and thread is not threading.main_thread()


def status_of(error: BaseException | None) -> RunStatus:
    """Return the status of a run that ends with an exception, or without one."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished"
    return "killed" if isinstance(error, KeyboardInterrupt) else "failed"
