"""
How many records go into one request to a server that fails over many of them.

Promises: after each failure half as many; the size that has failed is tried again only now and
then, or at once where the reason for the failure was found.
"""

from __future__ import annotations

from typing import Final

_GOOD: Final = 8
"""Requests that pass before one as large as that which failed is tried."""


class Portion:
    """Limit the records of a request."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Most records; None while no limit is known."""
        self._failed: int | None = None
        self._good = 0

    def shrink(self, count: int) -> None:
        """Take note that a request with so many records, more than one, has failed."""
        self.limit, self._failed, self._good = count // 2, count, 0

    def grow(self, usual: int) -> None:
        """Take note that a request has passed; `usual` records are no limit."""
        if self.limit is None:
            return
        self._good += 1
        if self._failed is not None and 2 * self.limit >= self._failed and self._good < _GOOD:
            return
        self.limit, self._good = 2 * self.limit, 0
        if self._failed is not None and self.limit >= self._failed:
            self._failed = None  # it is tried now, and shrinks again where it still fails
        if self.limit >= usual:
            self.limit = None

    def forgive(self) -> None:
        """Take note that the record which failed is known, so that larger requests may pass."""
        self._failed = None
