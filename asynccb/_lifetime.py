"""
What is to happen to an object when its process forks or ends.

Promises: neither keeps the object alive, unless it is asked to.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Final

from asynccb._run import RunStatus

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

    With `keep` the object lives until then. The method gets the uncaught exception that ends the
    program, if one does. Returns what cancels the call.
    """
    weak: Callable[[], Callable[[BaseException | None], None] | None]
    weak = (lambda: method) if keep else weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            # In an interactive session the last exception may be an old one.
            alive(None if hasattr(sys, "ps1") else getattr(sys, "last_value", None))

    atexit.register(call)
    return lambda: atexit.unregister(call)


def status_of(error: BaseException | None) -> RunStatus:
    """Return the status of a run that ends with an exception, or without one."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished"
    return "killed" if isinstance(error, KeyboardInterrupt) else "failed"
