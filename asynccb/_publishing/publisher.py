"""
The training thread's way to all lanes, in the companion and on the event-loop thread.

An event goes through `records` to the companion, and through `thread` to the lanes there. Promises:
publishing waits only for a full mailbox; the companion and the loop thread are started
only when a callback needs them; `abandon` does everything that a forked child needs.
"""

from __future__ import annotations

import dataclasses
import logging
import mmap
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asynccb._compiled.shared import Shared
from asynccb._ground.types import Overflow, RunStatus
from asynccb._journal.settings import read_settings
from asynccb._journal.tracker_runs import TrackerRuns
from asynccb._lanes.containment import Faults
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.member import Member
from asynccb._publishing.answers import Answers
from asynccb._publishing.companion import Companion
from asynccb._publishing.companion_end import CompanionEnd
from asynccb._publishing.lane_end import LaneEnd
from asynccb._publishing.lane_making import lane_spec, pickled, thread_lane
from asynccb._publishing.log_forms import LogForms
from asynccb._publishing.offers import Offers
from asynccb._publishing.record_writer import RecordWriter
from asynccb._publishing.thread_end import ThreadEnd
from asynccb._publishing.training_sides import TrainingSides
from asynccb._ring.slots import SIZE, Slots
from asynccb._staging.staging import Staging
from asynccb._state.control import Decision
from asynccb._state.run_description import SIDES, RunDescription
from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")


@dataclass
class _Fallback:
    """A callback that the companion could not serve."""

    missed: int
    """Records that the callback did not receive."""
    failed_at: int | None
    """Record at which the companion gave the callback back; None once the thread serves it."""


class Publisher:
    """The lanes of one run."""

    records: RecordWriter
    """Writes to the companion; there as soon as the companion serves a callback."""

    def __init__(
        self,
        directory: Path,
        key: str,
        members: dict[str, Member],
        answers: Answers,
        state: Callable[[], TrainerState],
        on_request: Callable[[Decision], None],
        *,
        overflow: Overflow,
        capacity: int,
        shared: Shared,
    ) -> None:
        """
        Begin without lanes.

        `directory` is the run's folder, which is made only if a tracker needs one; `key` names the
        run to trackers. `members` holds the callbacks with lanes, and is filled here. `state`
        returns the state of the moment. `on_request` is called with the flags that a callback in
        the companion asks for. `overflow` and `capacity` limit mailboxes and the ring. `shared` are
        the fields that compiled code uses too.
        """
        self.directory = directory
        self.runs = TrackerRuns(directory, key, started := time.time_ns())
        self.faults: Faults = []
        self.answers = answers
        self._shared = shared
        self.staging = Staging(self._find_slots, self._slots_read, overflow, shared)
        self.thread = ThreadEnd(answers.tickets)
        self.companion: CompanionEnd | None = None
        self._ends: list[LaneEnd] = [self.thread]
        self._key = key
        self._started = started
        self._members = members
        self._state = state
        self._on_request = on_request
        self._overflow = overflow
        self._capacity = capacity
        self._settings = read_settings(os.environ)
        self._sides = TrainingSides(
            lambda: self.companion.records if self.companion else None, state
        )
        self._process: dict[str, dict[str, Any]] = {}  # as the training began
        self._fallbacks: dict[str, _Fallback] = {}

    # -- lanes -------------------------------------------------------------------------------------

    def start_lane(self, member: Member, args: Any, model: Any) -> None:
        """Give a callback that has async hooks its lane."""
        self._members[member.name] = member
        wants_companion = member.options.placement == "process"
        if not (wants_companion and self._start_in_companion(member, args, model)):
            self._start_on_thread(member, args, model)
        self._sides.add(member)

    def start_late_lanes(self, args: Any, model: Any) -> bool:
        """Serve on the thread the callbacks that the companion gave back; tell if there are any."""
        found = False
        for name, fallback in self._fallbacks.items():
            if fallback.failed_at is not None:
                fallback.missed += self._written() - fallback.failed_at
                fallback.failed_at = None
                self.answers.tickets.lose([name])  # asked of the companion in the meantime
                self._start_on_thread(self._members[name], args, model)
                found = True
        return found

    def end_lane(self, member: Member) -> None:
        """Let a callback's lane deliver its events, and end; its counts stay."""
        if (end := self._end_of(member)) is not None:
            end.end_lane(member)

    def describe(self, args: Any, model: Any, *, begins: bool = False) -> None:
        """Send the companion a description of the run; `begins` starts a training."""
        if begins:
            self._process = self._sides.describe()
        if self.companion is not None:
            described = self.runs.describe(args, model, begins=begins)
            self.records.describe(described | ({SIDES: self._process} if self._process else {}))

    def make_forms(self, emitter: dict[str, Any]) -> LogForms:
        """Return the known logs of a run whose companion lives, given the emitter's attributes."""
        assert self.companion is not None
        ring = self.companion.process.ring
        return LogForms(self._shared, ring, self.staging, emitter, self.faults)

    # -- events ------------------------------------------------------------------------------------

    def poll(self, *, at_event: bool = False) -> None:
        """Read the companion's messages; at an event, also send values gathered for it."""
        if at_event:
            self._sides.drain()
        if self.companion is not None:
            if at_event:
                self.companion.poll()
            else:
                self.companion.process.poll()

    # -- the end -----------------------------------------------------------------------------------

    def finish_staging(self, deadline: float) -> bool:
        """Wait until every value has come from the device; return False at the deadline."""
        self._sides.drain(whole=True)
        return self.staging.device is None or self.staging.device.finish(deadline)

    def flush(self, deadline: float) -> bool:
        """Wait until everything published is delivered; return False at the deadline."""
        delivered = self.finish_staging(deadline)
        for end in self._ends:
            delivered = end.flush(deadline) and delivered
        return delivered

    def close(
        self, status: RunStatus, deadline: float, on_wait: Callable[[], None]
    ) -> dict[str, int]:
        """End every lane by the deadline; return the events that are left, by callback."""
        for end in self._ends:
            end.begin_close(status, deadline)
        self.finish_staging(deadline)
        pending: dict[str, int] = {}
        for end in self._ends:
            pending.update(end.close(status, deadline, on_wait))
        return {name: count for name, count in pending.items() if count}

    def pending(self) -> dict[str, int]:
        """Return the events that are not known to be delivered, by callback."""
        found = (item for end in self._ends for item in end.pending().items())
        return {name: count for name, count in found if count}

    def release(self) -> None:
        """Let go of the lanes, of the companion, which ends by itself, and of the device."""
        self._sides.close()
        self.answers.tickets.release()
        self._close_device()
        for end in reversed(self._ends):  # the companion, which may take a moment, after the thread
            end.release()

    def abandon(self) -> None:
        """In a forked child: let go of everything that belongs to the parent."""
        self.answers.tickets.release()
        for end in reversed(self._ends):
            end.abandon()

    def is_journaled(self, name: str) -> bool:
        """Tell whether a callback's undelivered events are safe in the journal."""
        member = self._members.get(name)
        return member is not None and member.in_companion

    def counts(self) -> dict[str, LaneCounts]:
        """Return the counts by callback, as far as this process knows them."""
        self.poll()
        result: dict[str, LaneCounts] = {}
        for name, member in self._members.items():
            counts = (self._end_of(member) or self.thread).counts_of(member)
            if (fallback := self._fallbacks.get(name)) is not None:
                counts = dataclasses.replace(counts, dropped=counts.dropped + fallback.missed)
            result[name] = counts
        return result

    # -- inside ------------------------------------------------------------------------------------

    def _end_of(self, member: Member) -> LaneEnd | None:
        return self.companion if member.in_companion else self.thread

    def _start_in_companion(self, member: Member, args: Any, model: Any) -> bool:
        """Tell whether the companion serves the callback; if it does not, one line says why."""
        try:
            body = pickled(member)
            end = self.companion or self._start_companion()
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code
            logger.warning(
                "%s is served by a thread of the training process, not by the companion: %s",
                member.name,
                error,
            )
            return False
        spec = lane_spec(member, body, self._written())
        member.place = "companion"
        end.add_lane(member, spec)
        self.describe(args, model)
        return True

    def _start_companion(self) -> CompanionEnd:
        if self.staging.device is not None:  # its slots were not the companion's
            self.staging.device.finish(float("inf"))
            self._close_device()
        offers = Offers(self._state)
        companion = Companion(
            self.directory,
            self._key,
            on_fault=lambda name, text: self.faults.append((name, text)),
            on_lane_failed=self._lane_failed,
            settings=self._settings,
            on_answer=self.answers.tickets.answer,
            on_ended=self.answers.fall_silent,
            on_request=self._on_request,
            on_offer=offers.post,
        )
        self.answers.connect(companion)
        end = CompanionEnd(
            companion, self.staging, offers, self._overflow, self._capacity, self._shared
        )
        self.companion, self.records = end, end.records
        self._ends.insert(0, end)
        return end

    def _lane_failed(self, name: str, reason: str, missed: int) -> None:
        self.answers.tickets.lose([name])
        self._fallbacks[name] = _Fallback(missed, self._written())
        logger.warning(
            "%s cannot live in the companion (%s); from here on a thread of the training process "
            "serves it, and %d records that it should have seen before are lost",
            name,
            reason,
            missed,
        )

    def _start_on_thread(self, member: Member, args: Any, model: Any) -> None:
        faults = self.faults  # the thread must not keep the run alive
        lane = thread_lane(
            member,
            self._capacity,
            self._overflow,
            lambda error: faults.append((member.name, error)),
            self.answers.tickets.answer,
            offline=self._settings.offline,
        )
        if lane.tracker is not None:
            extra = self.runs.describe(args, model)
            lane.description = RunDescription.from_record(self._started, extra)
        member.place = lane
        self.thread.loop.start_lane(lane)

    def _written(self) -> int:
        """Return the number of records that were written for the companion."""
        return 0 if self.companion is None else self.companion.process.ring.written

    def _find_slots(self) -> Slots:
        """Return the companion's slots; without a companion, slots of our own."""
        if self.companion is not None:
            return self.companion.process.ring.slots
        return Slots(memoryview(mmap.mmap(-1, SIZE)))

    def _slots_read(self) -> int:
        return sys.maxsize if self.companion is None else self.companion.process.slots_read

    def _close_device(self) -> None:
        if self.staging.device is not None:
            self.staging.device.close()
            self.staging.device = None
