"""
Work for a training thread: parts that hold Python's lock and parts that drop it, in alternation.

PyTorch drops the lock in every operator, and whichever thread takes it then makes the training
thread wait; a loop that only holds the lock, or only drops it, would hide that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PART: Final = 0.000_25
"""Seconds that one part takes, unless the whole work is shorter."""

_clock = time.perf_counter


class Work:
    """A fixed amount of work, calibrated to about `seconds`, half of them with the lock."""

    def __init__(self, seconds: float) -> None:
        import torch  # here, so that a bench's own process, which only waits, does without

        torch.set_num_threads(1)
        self._pairs = max(1, round(seconds / PART / 2))
        part = seconds / self._pairs / 2
        sample = torch.zeros(100_000)
        self._turns = max(1, round(part / _fastest(lambda: hold(10_000)) * 10_000))
        self._buffer = torch.zeros(
            max(1, round(part / _fastest(lambda: torch.tanh_(sample)) * len(sample)))
        )
        self._tanh = torch.tanh_

    def do(self) -> None:
        """Do it once."""
        turns, tanh, buffer = self._turns, self._tanh, self._buffer
        for _ in range(self._pairs):
            hold(turns)
            tanh(buffer)  # of zeros: the values, and so the time, stay as they are

    def do_until(self, deadline: float) -> None:
        """Do it again and again until the deadline, a `time.perf_counter()`."""
        while _clock() < deadline:
            self.do()


def hold(turns: int) -> int:
    """Compute in pure Python, which holds the lock."""
    total = 0
    for turn in range(turns):
        total += turn & 3
    return total


def _fastest(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of many calls, which the machine's load disturbs least."""
    seconds = []
    for _ in range(50):
        begin = _clock()
        call()
        seconds.append(_clock() - begin)
    return min(seconds)
