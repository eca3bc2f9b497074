"""
Intervals in steps, absolute or as a share of the run.

A value below 1 is a share, and a share is the decimal that was written: 0.07 of 100 steps are 7,
not the 8 that transformers gets by rounding up 7.000000000000001.
"""

from __future__ import annotations

import math
from fractions import Fraction


def exact(value: float) -> Fraction:
    """Return the decimal that the number was written as."""
    return Fraction(str(float(value)))


def absolute_steps(interval: float, total: int) -> int:
    """Return the interval in steps; a share of `total` is rounded up, so that 0 alone stays 0."""
    return math.ceil(exact(interval) * total) if interval < 1 else int(interval)


def is_multiple(interval: float, of: float) -> bool:
    """Tell whether the first is a multiple of the second; both absolute or both shares."""
    return exact(interval) % exact(of) == 0
