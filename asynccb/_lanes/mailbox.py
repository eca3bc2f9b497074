"""
The bounded queue between the training thread and a lane.

Promises: at most `capacity` droppable events, and `max_bytes` of them, wait. Events that begin, end
or steer a run, or ask for a decision, are never dropped. While there is room, putting takes no lock
and wakes no thread. Every drop is counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from asynccb._ground.events import TERMINAL, Event
from asynccb._ground.exceptions import MailboxFullError
from asynccb._ground.types import Overflow

MAX_BYTES: Final = 256 << 20
_SHALLOW: Final = 512
"""Bytes that an event is taken to cost apart from the payload that `weigh` looks at."""


def weigh(payload: dict[str, Any]) -> int:
    """Estimate a payload's bytes: exact for text and bytes, 100 for any other value."""
    total = _SHALLOW
    for value in payload.values():
        if isinstance(value, str | bytes | bytearray):
            total += len(value)
        elif isinstance(value, dict):
            total += weigh(value)
        else:
            total += 100 * len(value) if isinstance(value, list | tuple) else 100
    return total


@dataclass(slots=True, eq=False)
class Letter:
    """One event for one or more lanes: the arguments of the hook."""

    event: Event
    args: Any
    state: Any
    flags: int
    keywords: dict[str, Any]
    time: int
    weight: int = 0
    ticket: int = 0
    """The number that the answer of a hook which decides refers to; 0 if none is asked for."""

    @property
    def is_kept(self) -> bool:
        """Whether no overflow policy may drop it."""
        return self.ticket > 0 or self.event in TERMINAL


class Mailbox:
    """
    Queue letters from one thread to another.

    One thread puts, one takes. Setting `stopped` turns `put` into a counted drop, for a lane that
    has ended.
    """

    def __init__(
        self,
        capacity: int,
        overflow: Overflow,
        on_full: Callable[[], None],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Take the limits, and what to call once when an event first has to wait or be dropped."""
        self._letters: deque[Letter] = deque()
        self._lock = threading.Lock()  # taken by whoever takes letters out, never by a plain put
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._on_full = on_full
        self._bytes_in = 0
        self._bytes_out = 0
        self._room = threading.Event()
        self._complained = False
        self.stopped = False
        self.dropped = 0
        self.blocked = 0.0
        """Seconds for which `put` has waited."""

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter, wake: Callable[[], None]) -> bool:
        """
        Queue a letter, or follow the overflow policy; return whether the letter is queued.

        `wake` is called while waiting for room. Raises `MailboxFullError` under `"raise"`.
        """
        if self.stopped:
            self.dropped += 1
            return False
        if self._is_full(letter.weight) and not self._make_room(letter, wake):
            return False
        self._bytes_in += letter.weight
        self._letters.append(letter)
        return True

    def take(self) -> Letter | None:
        """Return the oldest letter, or None; frees its room."""
        with self._lock:
            if not self._letters:
                return None
            letter = self._letters.popleft()
            self._bytes_out += letter.weight
        if not self._room.is_set():
            self._room.set()
        return letter

    def clear(self) -> int:
        """Drop the remaining letters, and return their number."""
        letters = 0
        while self.take() is not None:
            letters += 1
        return letters

    def _is_full(self, weight: int, aside: int = 0) -> bool:
        return (
            len(self._letters) + aside >= self._capacity
            or self._bytes_in - self._bytes_out + weight > self._max_bytes
        )

    def _make_room(self, letter: Letter, wake: Callable[[], None]) -> bool:
        """Tell whether the letter may be queued now."""
        policy = self._overflow
        if policy != "block" and letter.is_kept:
            return True  # beyond the limits rather than lost; such events are few
        if not self._complained:
            self._complained = True
            self._on_full()
        if policy == "block":
            return self._wait_for_room(letter.weight, wake)
        if policy == "drop_oldest":
            return self._drop_oldest(letter.weight)
        self.dropped += 1
        if policy == "raise":
            raise MailboxFullError(
                f"{len(self._letters)} events are waiting; raise the dispatcher's capacity, log "
                "less often, or choose another overflow policy than 'raise'"
            )
        return False

    def _drop_oldest(self, weight: int) -> bool:
        """Drop the oldest letters that may be dropped, or the new one if that is not enough."""
        with self._lock:
            kept: list[Letter] = []
            while self._letters and self._is_full(weight, len(kept)):
                letter = self._letters.popleft()
                if letter.is_kept:
                    kept.append(letter)
                else:
                    self._bytes_out += letter.weight
                    self.dropped += 1
            full = self._is_full(weight, len(kept))
            self._letters.extendleft(reversed(kept))
        self.dropped += full
        return not full

    def _wait_for_room(self, weight: int, wake: Callable[[], None]) -> bool:
        begin = time.monotonic()
        while self._is_full(weight) and self._letters and not self.stopped:
            wake()
            self._room.clear()
            if self._is_full(weight):
                self._room.wait(0.05)
        self.blocked += time.monotonic() - begin
        if self.stopped:
            self.dropped += 1
        return not self.stopped
