"""
Limit the records in one request to a server that fails over many of them.

Promises: each failure halves the number. The size that failed is tried again only now and then, or
at once if the reason for the failure was found.
"""

from __future__ import annotations

from typing import Final

_GOOD: Final = 8
"""Requests that must pass before a request as large as the failed one is tried again."""


class Portion:
    """The limit on the records of a request."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Most records; None while no limit is known."""
        self._failed: int | None = None
        self._good = 0

    def shrink(self, count: int) -> None:
        """Lower the limit: a request with `count` records, more than one, has failed."""
        self.limit, self._failed, self._good = count // 2, count, 0

    def grow(self, usual: int) -> None:
        """Raise the limit after a request has passed; at `usual` records the limit is lifted."""
        if self.limit is None:
            return
        self._good += 1
        if self._failed is not None and 2 * self.limit >= self._failed and self._good < _GOOD:
            return
        self.limit, self._good = 2 * self.limit, 0
        if self._failed is not None and self.limit >= self._failed:
            self._failed = None  # tried now; the limit shrinks again if it still fails
        if self.limit >= usual:
            self.limit = None

    def forgive(self) -> None:
        """Forget the size that failed: the record at fault is known, larger requests may pass."""
        self._failed = None
