"""
Ctrl-C while the library waits: the program ends as any other does, and shows its own frames only.

Promises: no other exception looks different, and no hook is set before there was a Ctrl-C.
"""

from __future__ import annotations

import contextlib
import sys
import threading
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


def note_end_of_program() -> None:
    """
    Let an interrupt that is under way end the program as one, if the program ends before it comes.

    The interpreter would then raise it as it joins the threads, show that as an error that is
    ignored, and end with status 0.
    """
    before = sys.unraisablehook

    def show(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt and unraisable.object is threading:
            end_as_interrupted()
        else:
            before(unraisable)

    sys.unraisablehook = show


def end_as_interrupted() -> None:
    """
    Let the program end with the status of an interrupted one, after all exit handlers.

    CPython notes a `KeyboardInterrupt` that code given as text does not catch, and reads that note
    at the very end. Code that an exit handler runs as text later clears it, as some of torch's do.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")
