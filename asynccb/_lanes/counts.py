"""What became of one callback's events, as `statistics()` gives it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass
class LaneCounts:
    """Count what became of one callback's events."""

    delivered: int = 0
    """Hook calls that returned; for a tracker, calls that its server has acknowledged."""
    failed: int = 0
    """Hook calls that raised, time-outs included."""
    timed_out: int = 0
    dropped: int = 0
    """Events that an overflow policy, an ended lane or a deadline threw away."""
    retried: int = 0
    """Deliveries that were tried again."""
    rejected: int = 0
    """Records that a server will never take."""
    stalled: int = 0
    """Times that a hook was seen to block its event loop."""
    pending: int = 0
    """Events that are waiting; in the companion, records of the journal."""
    blocked: float = 0.0
    """Seconds for which the training thread waited for room."""
    decided: int = 0
    """Decisions with an opinion that were applied."""
    waited: float = 0.0
    """Seconds for which the training thread waited for decisions."""
    late: int = 0
    """Decisions that were not in at their limit."""
    undue: int = 0
    """Decisions with an opinion whose step has not come; after the end, never applied."""
    disabled: bool = False
    address: str | None = None
    """Address of the run, for a tracker."""

    @property
    def is_troubled(self) -> bool:
        """Whether something went wrong for good."""
        return bool(self.failed or self.dropped or self.rejected or self.disabled)


def sum_counts(earlier: LaneCounts | None, counts: LaneCounts) -> LaneCounts:
    """
    Add the counts of a companion that died; the counts of its last half second are lost.

    Deliveries are not added, since the cursor counts them.
    """
    if earlier is None:
        return counts
    added = ("failed", "timed_out", "dropped", "retried", "rejected", "stalled")
    return dataclasses.replace(
        counts,
        address=counts.address or earlier.address,
        **{name: getattr(earlier, name) + getattr(counts, name) for name in added},
    )
