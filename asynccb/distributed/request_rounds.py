"""
Delivery of a request to all ranks at one boundary, without a collective.

Every rank has a thread that reads the noticeboard five times a second. A request is a note with the
next free number. Each thread answers it with a hold: the number of the next boundary of its
training thread, which then waits at that boundary until the request's boundary is known. The
request is applied at the largest of all holds, which no rank has passed. The threads answer, not
the training threads, so that a training thread inside a collective does not delay the others.

Promises: either every rank that continues applies a request at the same boundary, or none does,
unless the process that keeps the store ends at that moment. A boundary without a pending request
costs an uncontended lock. A forked child has no such thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asynccb._ground.exceptions import AgreementError
from asynccb.distributed.noticeboard import LOST, Noticeboard, keeper, name_ranks, within

logger = logging.getLogger("asynccb")

_PAUSE: Final = 0.2
"""Seconds between two readings of the board."""
_BUSY_PAUSE: Final = 0.02
"""Seconds between two readings while a training thread may wait for answers."""


@dataclass
class _Round:
    """One pending request."""

    number: int
    weights: list[int]
    hold: int
    boundary: int | None = None


class RequestRounds:
    """This rank's part in the ranks' requests; it counts boundaries, starting with 1."""

    def __init__(
        self, board: Noticeboard, limit: float, posted: Callable[[], list[int] | None]
    ) -> None:
        """
        Start to read the board.

        `posted` returns the flags, as weights, that this rank has requested since the last call, or
        None.
        """
        self._board = board
        self._limit = limit
        self._posted = posted
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._passed = 0
        self._seen = 0
        self._rounds: list[_Round] = []
        self._own: list[int] | None = None
        self._lost = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asynccb-requests", daemon=True)
        self._thread.start()

    # -- the training thread -----------------------------------------------------------------------

    def pass_by(self) -> bool:
        """
        Count a boundary and return True, if no request is pending.

        Otherwise return False and leave the counting to `take`.
        """
        with self._lock:
            if self._rounds or self._lost:
                return False
            self._passed += 1
            return True

    def take(self, step: int) -> list[int] | None:
        """Count a boundary; return the weights to apply at it, or None. `step` is for errors."""
        with self._news:
            self._passed += 1
            if self._lost and self._posted() is not None:
                _say_dropped(f"{keeper()} has ended")
            if not self._rounds:
                return None
            self._wait(step)
            due = [each for each in self._rounds if each.boundary == self._passed]
            for each in due:
                self._rounds.remove(each)
        weights = [each.weights for each in due]
        return [max(opinions) for opinions in zip(*weights, strict=True)] or None

    def close(self) -> int:
        """Leave the rounds; return the number of pending requests."""
        self._closing.set()
        self._thread.join(1.0)  # it may hang in the connection to a stopped process
        return len(self._rounds)

    def _wait(self, step: int) -> None:
        """Wait while a request holds this boundary; the wait releases the lock meanwhile."""
        deadline = time.monotonic() + self._limit
        while held := [r for r in self._rounds if r.boundary is None and r.hold <= self._passed]:
            if not self._news.wait(deadline - time.monotonic()):
                raise AgreementError(self._absence(held[0], step))

    def _absence(self, held: _Round, step: int) -> str:
        try:
            silent = name_ranks(within(1.0, lambda: self._silent(held)))
        except LOST:
            silent = keeper()
        return (
            f"a request could not be applied after step {step}: no answer from {silent} for "
            f"{self._limit:.0f} s; every rank must run the loop with a dispatcher"
        )

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.wait(_BUSY_PAUSE if self._open() else _PAUSE):
                self._announce()
                self._answer()
                self._conclude()
            self._leave()
        except LOST:
            self._lose()

    def _announce(self) -> None:
        """Write this rank's request to the board under the first free number."""
        self._own = self._posted()
        if self._own is None:
            return
        text = f"{self._board.rank}:{''.join(map(str, self._own))}"
        number = self._seen + 1
        while self._board.first(f"request/{number}", text) != text:
            number += 1
        self._own = None

    def _answer(self) -> None:
        """Answer the new requests on the board."""
        while text := self._board.read(f"request/{self._seen + 1}"):
            weights = [int(digit) for digit in text.partition(":")[2]]
            with self._news:
                self._seen += 1
                held = _Round(self._seen, weights, self._passed + 1)
                self._rounds.append(held)
            self._board.write(_answer_name(held, self._board.rank), str(held.hold))
            self._board.add(f"answers/{held.number}", 1)

    def _conclude(self) -> None:
        """Determine the boundary of each pending request that all ranks have answered."""
        for held in self._open():
            # Read this before the answers: a rank that has left answers no more.
            left = self._board.add("left", 0)
            if self._board.add(f"answers/{held.number}", 0) == self._board.world:
                self._plan(held)
            elif left and self._is_void(held):
                self._drop(held)

    def _plan(self, held: _Round) -> None:
        holds = self._board.read_all(self._answers(held))
        assert holds is not None
        with self._news:
            held.boundary = max(map(int, holds))
            self._news.notify()

    def _is_void(self, held: _Round) -> bool:
        """Return whether a rank has left without an answer; every other rank finds the same."""
        gone = [rank for rank in range(self._board.world) if self._board.read(f"left/{rank}")]
        silent = self._silent(held)
        return any(rank in silent for rank in gone)

    def _silent(self, held: _Round) -> list[int]:
        return [r for r, name in enumerate(self._answers(held)) if self._board.read(name) is None]

    def _answers(self, held: _Round) -> list[str]:
        return [_answer_name(held, rank) for rank in range(self._board.world)]

    def _leave(self) -> None:
        self._board.write(f"left/{self._board.rank}", "yes")
        self._board.add("left", 1)

    def _lose(self) -> None:
        """Continue without the board, after the process that kept it has ended."""
        self._lost = True
        if self._own is not None:
            _say_dropped(f"{keeper()} has ended")
        for held in self._open():
            self._drop(held)

    def _open(self) -> list[_Round]:
        """Return the requests whose boundary is not known yet."""
        with self._news:
            return [each for each in self._rounds if each.boundary is None]

    def _drop(self, held: _Round) -> None:
        _say_dropped("some ranks are gone and cannot apply it")
        with self._news:
            self._rounds.remove(held)
            self._news.notify()


def _say_dropped(why: str) -> None:
    logger.warning("a request is dropped: %s", why)


def _answer_name(held: _Round, rank: int) -> str:
    return f"hold/{held.number}/{rank}"
