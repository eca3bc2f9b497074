"""
Requests to a run from outside its callbacks: from a signal, another thread, a stop button.

Promises: a request takes no lock and waits for nothing. It is applied at a boundary, on all ranks
at the same one. Boundaries without a request exchange nothing. A request that cannot be applied any
more is dropped, with a warning.
"""

from __future__ import annotations

import logging
from collections import deque

from asynccb._compiled.shared import Shared
from asynccb._state.control import Decision, from_weights, to_weights
from asynccb.distributed.agreement import Agreement
from asynccb.distributed.request_rounds import RequestRounds

logger = logging.getLogger("asynccb")


class Requests:
    """The requests to one run: posted from anywhere, taken at boundaries."""

    def __init__(self, agreement: Agreement, shared: Shared) -> None:
        """
        Use the ranks' agreement, whose board is opened at the first boundary.

        A request ends that the boundaries of `shared` are quiet.
        """
        self._agreement = agreement
        self._shared = shared
        self._posted: deque[Decision] = deque()
        self._rounds: RequestRounds | None = None
        self._alone: bool | None = None
        """Whether this training has only one rank; None before its first boundary."""

    def post(self, flags: Decision) -> None:
        """Ask for flags at a boundary soon; from any thread or signal, at any time."""
        self._posted.append(flags)
        self._shared.quiet = False  # in this order: see `pass_by`

    def begin(self) -> None:
        """Begin a training: whether there are other ranks is asked at its first boundary."""
        self._alone = None
        self._shared.quiet = False

    def pass_by(self) -> bool:
        """Go past a boundary for which nothing is asked; return False where `take` must be."""
        if self._alone:  # nearly always; a call would take as long as all else here
            self._shared.quiet = True  # before the look: a request that comes now ends it
        if self._posted:
            self._shared.quiet = False
            return False
        if self._alone:
            return True
        return self._is_alone() if self._rounds is None else self._rounds.pass_by()

    def take(self, step: int) -> Decision | None:
        """
        Return the flags to apply at this boundary, the same on all ranks, or None.

        Among several ranks, where every one must call this at every boundary, a request is applied
        one or two boundaries after all have heard of it; until then a boundary may wait for that,
        0.2 s as a rule. Raises `AgreementError`, naming ranks, when one has not heard of it within
        the agreement's limit.
        """
        if self._rounds is None:
            if self._is_alone():
                return self._merged()
            self._rounds = RequestRounds(
                self._agreement.board, self._agreement.limit, self._weights_posted
            )
        weights = self._rounds.take(step)
        return None if weights is None else from_weights(weights)

    def close(self) -> None:
        """Take no more part; warn of requests that were not applied."""
        left = self._rounds.close() if self._rounds is not None else 0
        if left or self._posted:
            logger.warning("a request came too late to be applied: the run has ended")

    def _is_alone(self) -> bool:
        if self._alone is None:
            self._alone = self._agreement.world == 1
        return self._alone

    def _weights_posted(self) -> list[int] | None:
        flags = self._merged()
        return None if flags is None else to_weights(flags)

    def _merged(self) -> Decision | None:
        """Return all requests since the last call as one: a flag is True if any sets it."""
        weights: list[int] | None = None
        while self._posted:
            posted = to_weights(self._posted.popleft())
            weights = posted if weights is None else list(map(max, weights, posted))
        return None if weights is None else from_weights(weights)
