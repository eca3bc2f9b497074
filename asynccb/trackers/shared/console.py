"""
Capture the output of the training process line by line.

Promises: output first goes unchanged to its original stream; capturing it costs one append. If
nobody fetches the lines, the oldest are dropped beyond a limit. The output of a forked child is
not captured.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Any, Final, NamedTuple

from asynccb.callbacks.training_side import TrainingSide

_KEPT: Final = 20_000
"""Maximum number of pieces of text that wait to be fetched."""
_LONGEST: Final = 16_384
"""Maximum number of characters of a line."""


class Line(NamedTuple):
    """One line of output."""

    is_error: bool
    """Whether the line went to standard error."""
    time: int
    """Unix nanoseconds at which the line ended."""
    text: str


class _Heard:
    """A replacement for a stream, which writes to that stream and records the text."""

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
    """A recorder of `sys.stdout` and `sys.stderr` from `open` to `close`."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[bool, int, str]] = deque(maxlen=_KEPT)
        self._begun = {False: "", True: ""}
        self._own: dict[str, _Heard] = {}
        self._pid = 0

    def open(self) -> None:
        """Start to record."""
        self._pid = os.getpid()
        for name, is_error in (("stdout", False), ("stderr", True)):
            stream = getattr(sys, name)
            if stream is not None:
                self._own[name] = _Heard(stream, is_error, self)
                setattr(sys, name, self._own[name])

    def close(self) -> None:
        """Restore the streams, unless other code has replaced them meanwhile."""
        for name, own in self._own.items():
            if getattr(sys, name) is own:
                setattr(sys, name, own._stream)
        self._own.clear()
        self._pid = 0

    def note(self, is_error: bool, text: object) -> None:
        """Record text that was written; callable from any thread."""
        if isinstance(text, str) and os.getpid() == self._pid:
            self._pieces.append((is_error, time.time_ns(), text))

    def lines(self) -> list[Line]:
        """
        Return the lines that have ended since the last call.

        Text after a carriage return replaces the text before it, as on a terminal. Only the last
        state of a progress bar remains.
        """
        found: list[Line] = []
        while self._pieces:
            is_error, when, text = self._pieces.popleft()
            *ended, rest = (self._begun[is_error] + text).split("\n")
            found += (Line(is_error, when, _shown(line)) for line in ended)
            self._begun[is_error] = _last_state(rest)[:_LONGEST]
        return found


class ConsoleSide(TrainingSide):
    """
    The training side that sends captured lines to its tracker as `"console"`.

    Each item of `lines` contains whether the line is an error, its time in ns, and its text.
    """

    def __init__(self, wanted: bool) -> None:
        """Capture lines only if they are `wanted`."""
        self._console = Console() if wanted else None

    def open(self) -> None:
        """Start to record the console, if its lines are wanted."""
        if self._console is not None:
            self._console.open()

    def drain(self, *, whole: bool) -> None:
        """Send the lines that have ended so far."""
        if self._console is not None and (lines := self._console.lines()) and self.tell is not None:
            self.tell("console", {"lines": [list(line) for line in lines]})

    def close(self) -> None:
        """Stop recording the console."""
        if self._console is not None:
            self._console.close()


def _last_state(line: str) -> str:
    """Return the text that a terminal shows; keep a final carriage return, which may end a line."""
    text = line.removesuffix("\r").rpartition("\r")[2]
    return f"{text}\r" if line.endswith("\r") else text


def _shown(line: str) -> str:
    text = _last_state(line).removesuffix("\r")[:_LONGEST]
    return text.encode("utf-8", "backslashreplace").decode()
