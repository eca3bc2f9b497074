"""
Intervals in steps, absolute or as a share of the run.

A value below 1 is a share. A share is exactly the decimal that was written: 0.07 of 100 steps are
7. transformers computes 7.000000000000001 and rounds it up to 8.
"""

from __future__ import annotations

import math
from fractions import Fraction


def exact(value: float) -> Fraction:
    """Return the exact value of the number's shortest decimal form."""
    return Fraction(str(float(value)))


def absolute_steps(interval: float, total: int) -> int:
    """Return the interval in steps; a share of `total` is rounded up, so that only 0 becomes 0."""
    return math.ceil(exact(interval) * total) if interval < 1 else int(interval)


def is_multiple(interval: float, of: float) -> bool:
    """Return whether `interval` is a multiple of `of`; both must be absolute, or both shares."""
    return exact(interval) % exact(of) == 0
