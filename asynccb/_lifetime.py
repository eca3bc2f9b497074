"""
What is to happen to an object when its process forks or ends.

Promises: neither keeps the object alive.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable


def in_forked_children(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, as long as its object lives."""
    weak = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            alive()

    os.register_at_fork(after_in_child=call)


def at_exit(method: Callable[[bool], None]) -> Callable[[], None]:
    """
    Call a bound method when the interpreter ends, as long as its object lives.

    The method is told whether an uncaught exception ends it. Returns what cancels the call.
    """
    weak = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := weak()) is not None:
            alive(getattr(sys, "last_value", None) is not None)

    atexit.register(call)
    return lambda: atexit.unregister(call)
