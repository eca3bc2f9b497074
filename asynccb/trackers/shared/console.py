"""
What the training process prints, taken line by line.

Promises: what is written goes to where it went before, first and unchanged; taking it costs an
append. Lines that nobody fetches are dropped, the oldest first, beyond a limit. A forked child
prints and is not heard.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Any, Final, NamedTuple

from asynccb.callbacks.training_side import TrainingSide

_KEPT: Final = 20_000
"""Pieces of text that may wait."""
_LONGEST: Final = 16_384
"""Characters of a line."""


class Line(NamedTuple):
    """Hold one line."""

    is_error: bool
    """Whether it went to standard error."""
    time: int
    """Unix nanoseconds at which it ended."""
    text: str


class _Heard:
    """Stand in for a stream: write to it, and note what is written."""

    def __init__(self, stream: Any, is_error: bool, console: Console) -> None:
        self._stream = stream
        self._is_error = is_error
        self._console = console

    def write(self, text: str) -> Any:
        written = self._stream.write(text)
        self._console.note(self._is_error, text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """Listen to `sys.stdout` and `sys.stderr` from `open` to `close`."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[bool, int, str]] = deque(maxlen=_KEPT)
        self._begun = {False: "", True: ""}
        self._own: dict[str, _Heard] = {}
        self._pid = 0

    def open(self) -> None:
        """Begin to listen."""
        self._pid = os.getpid()
        for name, is_error in (("stdout", False), ("stderr", True)):
            stream = getattr(sys, name)
            if stream is not None:
                self._own[name] = _Heard(stream, is_error, self)
                setattr(sys, name, self._own[name])

    def close(self) -> None:
        """Put the streams back, where nobody else has put others there meanwhile."""
        for name, own in self._own.items():
            if getattr(sys, name) is own:
                setattr(sys, name, own._stream)
        self._own.clear()
        self._pid = 0

    def note(self, is_error: bool, text: object) -> None:
        """Take what was written; from any thread."""
        if isinstance(text, str) and os.getpid() == self._pid:
            self._pieces.append((is_error, time.time_ns(), text))

    def lines(self) -> list[Line]:
        """
        Return the lines that have ended since the last call.

        What follows a carriage return stands in place of what was before, as on a terminal, so that
        of a progress bar the last state is left.
        """
        found: list[Line] = []
        while self._pieces:
            is_error, when, text = self._pieces.popleft()
            *ended, rest = (self._begun[is_error] + text).split("\n")
            found += (Line(is_error, when, _shown(line)) for line in ended)
            self._begun[is_error] = _last_state(rest)[:_LONGEST]
        return found


class ConsoleSide(TrainingSide):
    """Tell `"console"`, with `lines` of whether each is an error, its time in ns, and its text."""

    def __init__(self, wanted: bool) -> None:
        """Take whether the lines are wanted; where not, nothing is heard."""
        self._console = Console() if wanted else None

    def open(self) -> None:
        """Begin to listen to the console, if that is wanted."""
        if self._console is not None:
            self._console.open()

    def drain(self, *, whole: bool) -> None:
        """Tell the lines so far."""
        if self._console is not None and (lines := self._console.lines()) and self.tell is not None:
            self.tell("console", {"lines": [list(line) for line in lines]})

    def close(self) -> None:
        """Leave the console alone."""
        if self._console is not None:
            self._console.close()


def _last_state(line: str) -> str:
    """Return what a terminal shows; a carriage return at the end may be part of the line's end."""
    text = line.removesuffix("\r").rpartition("\r")[2]
    return f"{text}\r" if line.endswith("\r") else text


def _shown(line: str) -> str:
    text = _last_state(line).removesuffix("\r")[:_LONGEST]
    return text.encode("utf-8", "backslashreplace").decode()
