"""
Ctrl-C while the library waits: the program ends as any other does, and shows its own frames only.

Promises: no other exception looks different, and no hook is set before there was a Ctrl-C.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from _thread import interrupt_main
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final

_HERE: Final = f"{Path(__file__).parents[1]}/"
"""Folder of the package, as the code of its frames names it."""


def hide_own_frames(error: KeyboardInterrupt) -> None:
    """Show no frame of ours if this interrupt ends the program; it may be caught as any other."""
    before = sys.excepthook

    def show(kind: type[BaseException], shown: BaseException, trace: TracebackType | None) -> None:
        if shown is error:
            inner: BaseException | None = error
            while inner is not None:  # a second Ctrl-C came while the first was handled
                if isinstance(inner, KeyboardInterrupt):
                    inner.__traceback__ = _up_to_ours(inner.__traceback__)
                inner = inner.__context__
            trace = error.__traceback__
        before(kind, shown, trace)

    sys.excepthook = show


def _up_to_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the outermost frame of ours and all within it."""
    if trace is None or trace.tb_frame.f_code.co_filename.startswith(_HERE):
        return None
    inner = _up_to_ours(trace.tb_next)
    return TracebackType(inner, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)


def interrupt_caller() -> None:
    """
    Raise `KeyboardInterrupt` in the code that goes on after a finalizer, which can raise nothing.

    To be called last. If the program ends before any code of its own goes on, it ends as an
    interrupted one: the interpreter would raise the interrupt as it joins the threads, show that as
    an error that is ignored, and end with status 0.
    """
    before = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt and unraisable.object is threading:
            end_as_interrupted()
        else:
            before(unraisable)

    sys.unraisablehook = show
    # The interpreter looks for interrupts after each call of a C function, so one that is sent by a
    # call would be raised here, and lost. A missing key sends it without a call.
    missing: defaultdict[None, None] = defaultdict(interrupt_main)
    missing[None]


def end_as_interrupted() -> None:
    """
    Let the program end with the status of an interrupted one, after all exit handlers.

    CPython notes a `KeyboardInterrupt` that code given as text does not catch, and reads that note
    at the very end. Code that an exit handler runs as text later clears it, as some of torch's do.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")
