"""
Where ranks meet: small collectives on the CPU that end in time and say who is missing.

Promises: a rank that ends or stalls gives the others an `AgreementError` that names it, the same
text on all of them, within the limit. gloo itself says only that some connection broke or that
time is up; who it was is found by trying the connections and through the noticeboard.
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
"""Seconds between two looks at the board while a rank waits; less where the limit is short."""


class MeetingPlace:
    """
    Hold a gloo group of all ranks, made at the first meeting, when all ranks have come.

    After an error it is of no more use.
    """

    def __init__(self, board: Noticeboard, limit: float) -> None:
        """Take the seconds that a meeting may last, a third of which at most is to name ranks."""
        self._board = board
        self._limit = limit
        self._reserve = min(5.0, limit / 3)
        self._slice = min(_SLICE, limit / 20)
        self._group: Any = None
        self._meetings = 0
        self._deadline = 0.0

    def largest(self, values: list[int]) -> list[int]:
        """Return the largest of all ranks' values at each place; one collective."""
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
        """Tell the others why; return what the first rank to give up has written."""
        return self._look(lambda: self._board.first("alarm", text))

    def end(self) -> None:
        """Have what is under way fail: a process with a collective under way does not end."""
        import torch
        import torch.distributed as dist

        for rank in self._others() if self._group is not None else []:
            try:
                receiving: Any = dist.irecv(torch.zeros(1), rank, group=self._group)
                receiving.wait(timedelta(milliseconds=1))  # too late: gloo closes all connections
            except RuntimeError:
                continue

    def close(self) -> None:
        """Take the group down; does not wait for other ranks."""
        import torch.distributed as dist

        if self._group is not None:
            with contextlib.suppress(ValueError):  # the whole process group is gone
                dist.destroy_process_group(self._group)
        self._group = None

    # -- coming and waiting ------------------------------------------------------------------------

    def _begin(self) -> None:
        self._meetings += 1
        self._deadline = time.monotonic() + self._limit - self._reserve
        if self._group is None:
            self._gather_all()
            self._make_group()

    def _gather_all(self) -> None:
        """Wait for all ranks, through the board."""
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
        """Wait on, looking at the board meanwhile, as long as it answers."""
        alarm = self._glance(self._come)
        while time.monotonic() < self._deadline:
            if _has_ended(work, self._slice):
                return True
            if alarm is not None:
                alarm = self._glance(self._alarm)
            if alarm:
                raise AgreementError(alarm)
        # Whoever came a moment ago says so only after a slice.
        return _has_ended(work, 2 * self._slice)

    # -- the board ---------------------------------------------------------------------------------

    def _ask(self, call: Callable[[], T]) -> T:
        """
        Call what uses the board, and wait for the answer as long as for the other ranks.

        The store may stand still and go on: that of PyTorch 2.13 was seen to do so for 5 s, until
        the next message of torchrun's own, where connections come and go at once.
        """
        return self._call(max(self._reserve / 2, self._deadline - time.monotonic()), call)

    def _look(self, call: Callable[[], T]) -> T:
        """Do the same when time is up, within what the limit leaves for that."""
        return self._call(self._reserve / 2, call)

    @staticmethod
    def _call(seconds: float, call: Callable[[], T]) -> T:
        try:
            return within(seconds, call)
        except LOST as error:
            raise AgreementError(f"{keeper()} has ended or does not answer") from error

    def _glance(self, call: Callable[[], T]) -> T | None:
        """Do the same while a rank waits, returning None for no answer."""
        try:
            return within(self._reserve / 2, call)
        except LOST:
            return None

    def _come(self) -> str:
        """Say that this rank is at the meeting; return the alarm."""
        self._board.write(f"at/{self._board.rank}", str(self._meetings))
        return self._alarm()

    def _missing(self) -> list[int]:
        """Return the ranks that have not said that they are at this meeting."""
        names = [f"at/{rank}" for rank in range(self._board.world)]
        here = self._board.read_all(names) or map(self._board.read, names)
        return [rank for rank, note in enumerate(here) if int(note or 0) < self._meetings]

    def _alarm(self) -> str:
        """Return why another rank has given up, or an empty text."""
        return self._board.read("alarm") or ""

    # -- who it was --------------------------------------------------------------------------------

    def _absence(self, missing: list[int]) -> str:
        who = name_ranks(missing) if missing else "a connection between ranks"
        return self.give_up(
            f"no answer from {who} for {self._limit - self._reserve:.0f} s: stopped, or busy with "
            "something else than the others"
        )

    def _breakage(self) -> str:
        """
        Say who has ended, when a connection has broken.

        An alarm comes first: the rank that closed a connection may have raised it before it did.
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
        """Tell whether a connection is closed, which gloo says at once when about to receive."""
        import torch
        import torch.distributed as dist

        try:
            dist.irecv(torch.zeros(1), rank, group=self._group)
        except RuntimeError:
            return True
        return False


def _has_ended(work: Any, seconds: float) -> bool:
    """Wait so long for a collective to end, well or not."""
    try:
        work.wait(timedelta(seconds=max(seconds, 0.001)))  # 0 would be for ever
    except RuntimeError:
        return bool(work.is_completed())
    return True


def _numbers(row: torch.Tensor) -> list[int]:
    numbers: list[int] = row.tolist()
    return numbers
