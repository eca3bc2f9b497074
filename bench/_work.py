"""
Work for a training thread: parts that hold the GIL and parts that release it, in alternation.

PyTorch releases the GIL in every operator. If another thread takes it then, the training thread has
to wait. A loop that only holds the GIL, or only releases it, would hide that effect.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PART: Final = 0.000_25
"""Duration of one part in seconds, unless the whole work is shorter."""

_clock = time.perf_counter


class Work:
    """A fixed amount of work, calibrated to about `seconds`; half of it holds the GIL."""

    def __init__(self, seconds: float) -> None:
        import torch  # here, because a bench's main process only waits and does not need it

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
        """Do the work once."""
        turns, tanh, buffer = self._turns, self._tanh, self._buffer
        for _ in range(self._pairs):
            hold(turns)
            tanh(buffer)  # of zeros, so that the values, and the time, stay the same

    def do_until(self, deadline: float) -> None:
        """Repeat the work until the deadline, a time of `time.perf_counter()`."""
        while _clock() < deadline:
            self.do()


def hold(turns: int) -> int:
    """Compute in pure Python, which holds the GIL."""
    total = 0
    for turn in range(turns):
        total += turn & 3
    return total


def _fastest(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of many calls, the one least disturbed by other load."""
    seconds = []
    for _ in range(50):
        begin = _clock()
        call()
        seconds.append(_clock() - begin)
    return min(seconds)
