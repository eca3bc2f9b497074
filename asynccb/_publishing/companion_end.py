"""The lanes in the companion: records into its ring, and metrics that come back."""

from __future__ import annotations

from collections.abc import Callable

from asynccb._companion.messages import LaneSpec
from asynccb._compiled.shared import Shared
from asynccb._ground.types import Overflow, RunStatus
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.member import Member
from asynccb._publishing.companion import Companion
from asynccb._publishing.offers import Offers
from asynccb._publishing.outlet import Outlet
from asynccb._publishing.record_writer import RecordWriter
from asynccb._staging.staging import Staging
from asynccb._state.snapshot import ChangeTracker
from asynccb.callbacks.tracking import Tracking


class CompanionEnd:
    """A `LaneEnd` for the companion process, which lives already."""

    def __init__(
        self,
        companion: Companion,
        staging: Staging,
        offers: Offers,
        overflow: Overflow,
        capacity: int,
        shared: Shared,
    ) -> None:
        """Write to the companion's ring; see `Outlet` for `overflow` and `capacity`."""
        changes = ChangeTracker(shared)
        self.process = companion
        self.outlet = Outlet(companion, staging, overflow, capacity, changes.forget, shared)
        self.records = RecordWriter(self.outlet, staging, changes, shared)
        self._offers = offers

    @property
    def pid(self) -> int:
        """Process id of the companion, which changes when the companion is started again."""
        return self.process.pid

    def add_lane(self, member: Member, spec: LaneSpec) -> None:
        """Serve a callback from the next record on."""
        if member.options.needs_history:
            self.records.send_history()
        self.process.add_lane(spec)
        if isinstance(member.callback, Tracking) and member.callback.offers:
            self._offers.expect(member.name)

    def poll(self) -> None:
        """Read the companion's messages, and write the metrics that it offers."""
        self.process.poll()
        self._offers.write(self.records)

    def end_lane(self, member: Member) -> None:
        """Tell the companion that a callback receives no more events."""
        self.records.leave(member.name)

    def counts_of(self, member: Member) -> LaneCounts:
        """Return the counts of the companion's last report, up to half a second old."""
        return self.process.counts.get(member.name, LaneCounts())

    def pending(self) -> dict[str, int]:
        """Return the records that are not known to be delivered, by callback."""
        return self.process.pending()

    def flush(self, deadline: float) -> bool:
        """Wait until the companion has delivered all records; return False at the deadline."""
        self.outlet.settle()
        self.poll()
        return self.process.flush(deadline)

    def begin_close(self, status: RunStatus, deadline: float) -> None:
        """Have no wait for the companion go beyond the deadline."""
        self.process.deadline = deadline

    def close(
        self, status: RunStatus, deadline: float, on_wait: Callable[[], None]
    ) -> dict[str, int]:
        """Write the run's end and wait for the companion; return the records left, by callback."""
        self.outlet.settle()
        self._offers.settle(self.process, self.records, deadline)
        self.records.end(status)
        return self.process.close(deadline, on_wait)

    def release(self) -> None:
        """Let go of the companion, which journals the rest and ends by itself."""
        self.process.release()

    def abandon(self) -> None:
        """In a forked child: close descriptors that were inherited from the parent."""
        self.process.abandon()
