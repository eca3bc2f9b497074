"""
Small collectives on the CPU, with a time limit and errors that name the missing ranks.

Promises: if a rank ends or stalls, the others raise an `AgreementError` that names it, with the
same text on all of them, within the limit. gloo itself reports only a broken connection or a
time-out; testing the connections and reading the noticeboard shows which rank it was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asynccb._ground.exceptions import AgreementError
from asynccb.distributed.noticeboard import LOST, Noticeboard, keeper, name_ranks, within

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_SLICE: Final = 0.5
"""Seconds between two readings of the board while a rank waits; less if the limit is short."""


class MeetingPlace:
    """
    A gloo group of all ranks; the first meeting makes it, after all ranks have arrived.

    It cannot be used after an error.
    """

    def __init__(self, board: Noticeboard, limit: float) -> None:
        """Set the seconds that a meeting may last; at most a third of them serves to name ranks."""
        self._board = board
        self._limit = limit
        self._reserve = min(5.0, limit / 3)
        self._slice = min(_SLICE, limit / 20)
        self._group: Any = None
        self._meetings = 0
        self._deadline = 0.0

    def largest(self, values: list[int]) -> list[int]:
        """Return the largest of all ranks' values for each index; one collective."""
        import torch
        import torch.distributed as dist

        self._begin()
        row = torch.tensor(values, dtype=torch.int64)
        self._wait(dist.all_reduce(row, dist.ReduceOp.MAX, self._group, async_op=True))
        return _numbers(row)

    def gather(self, values: list[int]) -> list[list[int]]:
        """Return all ranks' values, by rank; one collective."""
        import torch
        import torch.distributed as dist

        self._begin()
        row = torch.tensor(values, dtype=torch.int64)
        rows = [torch.zeros_like(row) for _ in range(self._board.world)]
        self._wait(dist.all_gather(rows, row, self._group, async_op=True))
        return [_numbers(each) for each in rows]

    def give_up(self, text: str) -> str:
        """Write the reason for the other ranks; return the reason of the first rank to give up."""
        return self._look(lambda: self._board.first("alarm", text))

    def end(self) -> None:
        """Make the current collective fail: a process with an unfinished one does not end."""
        import torch
        import torch.distributed as dist

        for rank in self._others() if self._group is not None else []:
            try:
                receiving: Any = dist.irecv(torch.zeros(1), rank, group=self._group)
                receiving.wait(timedelta(milliseconds=1))  # on time-out gloo closes all connections
            except RuntimeError:
                continue

    def close(self) -> None:
        """Destroy the group, without waiting for other ranks."""
        import torch.distributed as dist

        if self._group is not None:
            with contextlib.suppress(ValueError):  # the whole process group is gone
                dist.destroy_process_group(self._group)
        self._group = None

    # -- arriving and waiting ----------------------------------------------------------------------

    def _begin(self) -> None:
        self._meetings += 1
        self._deadline = time.monotonic() + self._limit - self._reserve
        if self._group is None:
            self._gather_all()
            self._make_group()

    def _gather_all(self) -> None:
        """Wait on the board until all ranks have arrived."""
        self._ask(self._come)
        self._ask(lambda: self._board.add("came", 1))
        while self._ask(lambda: self._board.add("came", 0)) < self._board.world:
            if alarm := self._ask(self._alarm):
                raise AgreementError(alarm)
            if time.monotonic() > self._deadline:
                raise AgreementError(self._absence(self._look(self._missing)))
            time.sleep(self._slice / 20)

    def _make_group(self) -> None:
        import torch.distributed as dist

        try:
            self._group = dist.new_group(timeout=timedelta(seconds=self._limit), backend="gloo")
        except RuntimeError as error:
            raise AgreementError("their gloo group could not be made") from error

    def _wait(self, work: Any) -> None:
        if not (_has_ended(work, self._slice) or self._has_ended_in_time(work)):
            raise AgreementError(self._absence(self._look(self._missing)))
        try:
            work.wait(timedelta(milliseconds=1))
        except RuntimeError as error:
            raise AgreementError(self._breakage()) from error

    def _has_ended_in_time(self, work: Any) -> bool:
        """Continue to wait until the deadline, and read the board meanwhile if it answers."""
        alarm = self._glance(self._come)
        while time.monotonic() < self._deadline:
            if _has_ended(work, self._slice):
                return True
            if alarm is not None:
                alarm = self._glance(self._alarm)
            if alarm:
                raise AgreementError(alarm)
        # A rank writes its arrival only after a slice, so wait for one that has just arrived.
        return _has_ended(work, 2 * self._slice)

    # -- the board ---------------------------------------------------------------------------------

    def _ask(self, call: Callable[[], T]) -> T:
        """
        Make a call that uses the board, and wait for its answer until the meeting's deadline.

        The store may stop answering for a while. In PyTorch 2.13 it did so for 5 s, until
        torchrun's own next message, when some connections opened while others closed.
        """
        return self._call(max(self._reserve / 2, self._deadline - time.monotonic()), call)

    def _look(self, call: Callable[[], T]) -> T:
        """Like `_ask` after the deadline, within the time that the limit reserves for this."""
        return self._call(self._reserve / 2, call)

    @staticmethod
    def _call(seconds: float, call: Callable[[], T]) -> T:
        try:
            return within(seconds, call)
        except LOST as error:
            raise AgreementError(f"{keeper()} has ended or does not answer") from error

    def _glance(self, call: Callable[[], T]) -> T | None:
        """Like `_ask` while this rank waits for a collective; returns None without an answer."""
        try:
            return within(self._reserve / 2, call)
        except LOST:
            return None

    def _come(self) -> str:
        """Write to the board that this rank is at the meeting; return the alarm."""
        self._board.write(f"at/{self._board.rank}", str(self._meetings))
        return self._alarm()

    def _missing(self) -> list[int]:
        """Return the ranks that have not written their arrival at this meeting."""
        names = [f"at/{rank}" for rank in range(self._board.world)]
        here = self._board.read_all(names) or map(self._board.read, names)
        return [rank for rank, note in enumerate(here) if int(note or 0) < self._meetings]

    def _alarm(self) -> str:
        """Return another rank's reason for giving up, or an empty text."""
        return self._board.read("alarm") or ""

    # -- naming the ranks --------------------------------------------------------------------------

    def _absence(self, missing: list[int]) -> str:
        who = name_ranks(missing) if missing else "a connection between ranks"
        return self.give_up(
            f"no answer from {who} for {self._limit - self._reserve:.0f} s: stopped, or busy with "
            "something else while the others wait"
        )

    def _breakage(self) -> str:
        """
        Return a text that names the ranks that have ended, after a connection has broken.

        An existing alarm takes precedence: a rank may have raised it before closing its connection.
        """
        if alarm := self._look(self._alarm):
            return alarm
        gone = [rank for rank in self._others() if self._is_closed(rank)]
        if not gone:
            return self.give_up("a connection between ranks broke")
        return self.give_up(f"{name_ranks(gone)} ended, or gave up, before the others")

    def _others(self) -> list[int]:
        return [rank for rank in range(self._board.world) if rank != self._board.rank]

    def _is_closed(self, rank: int) -> bool:
        """Return whether the connection to a rank is closed; gloo then refuses to receive."""
        import torch
        import torch.distributed as dist

        try:
            dist.irecv(torch.zeros(1), rank, group=self._group)
        except RuntimeError:
            return True
        return False


def _has_ended(work: Any, seconds: float) -> bool:
    """Return whether a collective ends, well or not, within this time; wait for it."""
    try:
        work.wait(timedelta(seconds=max(seconds, 0.001)))  # 0 would wait forever
    except RuntimeError:
        return bool(work.is_completed())
    return True


def _numbers(row: torch.Tensor) -> list[int]:
    numbers: list[int] = row.tolist()
    return numbers
