"""
Agreement of a run's ranks on the same numbers.

Promises: each meeting is one small collective on the CPU, over a separate gloo group. It waits for
no GPU and does not use NCCL. With one process nothing is exchanged. If a rank ends, stalls or is at
another meeting, all other ranks raise an error that names it within the limit.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from asynccb._ground.exceptions import AgreementError
from asynccb.distributed.meeting import MeetingPlace
from asynccb.distributed.noticeboard import LOST, Noticeboard, keeper, name_ranks, within


class Agreement:
    """
    A series of meetings, at each of which all ranks agree on the same numbers.

    The process group may be made after this object. The first meeting, in which all ranks must take
    part, makes a separate gloo group. After a failure, each further meeting raises the same error
    at once.
    """

    def __init__(self, *, limit: float = 1800.0) -> None:
        """Set the seconds that a meeting may last; the default is the same as of `ddp_timeout`."""
        self.limit = limit
        self.meetings = 0
        """Number of meetings so far, one collective each."""
        self._place: MeetingPlace | None = None
        self._board: Noticeboard | None = None
        self._failure = ""

    @property
    def world(self) -> int:
        """Number of ranks, 1 without a process group."""
        dist: Any = sys.modules.get("torch.distributed")
        group = getattr(dist, "group", None)  # missing if torch was built without it
        if group is None or group.WORLD is None:
            return 1
        world: int = dist.get_world_size()
        return world

    @property
    def rank(self) -> int:
        """This process's number among the ranks."""
        return 0 if self.world == 1 else int(sys.modules["torch.distributed"].get_rank())

    @property
    def board(self) -> Noticeboard:
        """
        The ranks' noticeboard, opened at the first use.

        If a process has several agreements, all ranks must first use them in the same order.
        """
        if self._board is None:
            import torch.distributed as dist

            rank, world = dist.get_rank(), dist.get_world_size()
            try:
                self._board = within(self.limit, lambda: Noticeboard(rank, world))
            except LOST as error:
                raise AgreementError(f"{keeper()} has ended or does not answer") from error
        return self._board

    def agree(self, step: int, schedule: int, weights: list[int]) -> list[int]:
        """
        Return, for each index of the list, the largest number of all ranks.

        Every rank must call this with the same `step` and `schedule`, a number of 63 bits that
        identifies the due decisions. Raises `AgreementError`, which names the ranks that differ in
        these or do not call. With one process, returns `weights`.
        """
        if self.world == 1:
            return weights
        if self._failure:
            raise AgreementError(self._failure)
        if self._place is None:
            self._place = MeetingPlace(self.board, self.limit)
        self.meetings += 1
        try:
            return self._meet(self._place, step, schedule, weights)
        except BaseException as error:  # including Ctrl-C
            self._failure = (
                f"the ranks could not agree at step {step}: {str(error) or 'interrupted'}"
            )
            self._place.end()
            if isinstance(error, AgreementError):
                raise AgreementError(self._failure) from error.__cause__
            raise

    def close(self) -> None:
        """Destroy the group, without waiting for other ranks."""
        if self._place is not None:
            self._place.close()

    @staticmethod
    def _meet(place: MeetingPlace, step: int, schedule: int, weights: list[int]) -> list[int]:
        *largest, last, first, high, low = place.largest(
            [*weights, step, -step, schedule, -schedule]
        )
        if (last, high) != (-first, -low):
            raise AgreementError(place.give_up(_difference(place.gather([step, schedule]))))
        return largest


def _difference(came: list[list[int]]) -> str:
    """
    Return a text that names the ranks whose step or schedule differs from the majority's.

    On a tie, the side of the lowest rank counts as the majority.
    """
    most, _ = Counter(map(tuple, came)).most_common(1)[0]
    usual = [rank for rank, what in enumerate(came) if tuple(what) == most]
    odd = [rank for rank in range(len(came)) if rank not in usual]
    steps = ", ".join(str(came[rank][0]) for rank in odd)
    return (
        f"{name_ranks(odd)} (at step {steps}) had other decisions due than {name_ranks(usual)} (at "
        f"step {most[0]}); every rank needs the same deciding callbacks, in the same order, and "
        "must emit the same events"
    )
