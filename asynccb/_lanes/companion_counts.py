"""What lanes have counted over several companions, of which all but the last have died."""

from __future__ import annotations

import dataclasses

from asynccb._lanes.counts import LaneCounts


def sum_counts(earlier: LaneCounts | None, counts: LaneCounts) -> LaneCounts:
    """
    Add what a companion that died had reported: of its last half second the counts are lost.

    What was delivered, and acknowledged, is not added: it is counted in the cursor.
    """
    if earlier is None:
        return counts
    added = ("failed", "timed_out", "dropped", "retried", "rejected", "stalled")
    return dataclasses.replace(
        counts,
        address=counts.address or earlier.address,
        **{name: getattr(earlier, name) + getattr(counts, name) for name in added},
    )
