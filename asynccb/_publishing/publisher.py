"""
From the training thread to the lanes: the companion's, and those on the event-loop thread.

Promises: publishing waits for nobody but a full mailbox; the companion and the loop thread are
started only when a callback needs them; what must be done in a forked child is done here.
"""

from __future__ import annotations

import dataclasses
import logging
import mmap
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asynccb._ground.events import EVENTS
from asynccb._ground.exceptions import MailboxFullError
from asynccb._ground.types import Overflow, RunStatus
from asynccb._journal.settings import read_settings
from asynccb._journal.tracker_runs import TrackerRuns
from asynccb._lanes.containment import Faults
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.loop_thread import LoopThread
from asynccb._lanes.mailbox import Letter, weigh
from asynccb._lanes.member import Member
from asynccb._lanes.routes import Route
from asynccb._publishing.answers import Listening
from asynccb._publishing.companion import Companion
from asynccb._publishing.lane_making import lane_spec, pickled, thread_lane
from asynccb._publishing.offers import Offers
from asynccb._publishing.outlet import Outlet
from asynccb._publishing.record_writer import RecordWriter
from asynccb._publishing.training_sides import TrainingSides
from asynccb._ring.slots import SIZE, Slots
from asynccb._staging.staging import Staging
from asynccb._state.control import Decision, pack_flags
from asynccb._state.run_description import RunDescription
from asynccb._state.snapshot import snapshot
from asynccb._state.trainer_state import TrainerState

logger = logging.getLogger("asynccb")


class Publisher:
    """Own the lanes of one dispatcher."""

    def __init__(self, directory: Path, overflow: Overflow, capacity: int) -> None:
        """Take where run directories go, and the limits of the mailboxes."""
        self.key = secrets.token_hex(16)
        self.faults: Faults = []
        self.staging = Staging(self._find_slots, self._slots_read, overflow)
        self.on_request: Callable[[Decision], None] = lambda wishes: None
        """Takes what callbacks in the companion request."""
        self.loop = LoopThread()
        self.companion: Companion | None = None
        self.outlet: Outlet | None = None
        self.records: RecordWriter | None = None
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.directory = directory / f"{stamp}-{self.key[:8]}"
        self._overflow = overflow
        self._capacity = capacity
        self._settings = read_settings(os.environ)
        self._started = time.time_ns()
        self.runs = TrackerRuns(self.directory, self.key, self._started)
        self._members: dict[str, Member] = {}
        self.listening = Listening(self._members)
        self.sides = TrainingSides(lambda: self.records)
        self.offers = Offers(lambda: self.records)
        self._missed: dict[str, int] = {}  # records, by callback that the companion could not serve
        self._failed_at: dict[str, int] = {}  # record, by callback that is `late`
        self.late: list[Member] = []
        """Members that the companion could not serve, to be given lanes on the thread."""

    # -- lanes -------------------------------------------------------------------------------------

    def start_lane(self, member: Member, args: Any, model: Any) -> None:
        """Give a callback that has async hooks its lane."""
        self._members[member.name] = member
        if member in self.late:
            self.late.remove(member)
            self._missed[member.name] += self._written() - self._failed_at.pop(member.name)
            self.listening.tickets.lose([member.name])  # asked of the companion meanwhile
            self._start_on_thread(member, args, model)
            return
        if member.options.placement == "process" and self._start_in_companion(member, args, model):
            return
        self._start_on_thread(member, args, model)

    def end_lane(self, member: Member) -> None:
        """Have a callback's lane deliver what it has got, and end; its counts stay."""
        if member.in_companion and self.records is not None:
            self.records.leave(member.name)
        if member.lane is not None:
            self.loop.end_lane(member.lane, "finished")

    def describe(self, args: Any, model: Any, *, begins: bool = False) -> None:
        """Tell the companion, from here on, what the run is like, and that a training begins."""
        if self.records is not None:
            self.records.describe(self.runs.describe(args, model, begins=begins))

    # -- events ------------------------------------------------------------------------------------

    def post(
        self,
        route: Route,
        now: int,
        state: TrainerState,
        control: Any,
        args: Any,
        objects: dict[str, Any],
        extra: dict[str, Any],
        ticket: int,
    ) -> None:
        """
        Put an event, with plain values, into the mailboxes of the lanes on the thread.

        `ticket` is what those answer to that decide, or 0.
        """
        letter = Letter(
            EVENTS[route.number],
            args,
            snapshot(state),
            pack_flags(control),
            {**objects, **extra},
            now,
            weigh(extra),
        )
        refusal: MailboxFullError | None = None
        asking = dataclasses.replace(letter, ticket=ticket) if ticket else letter
        for lane in route.lanes:
            asked = asking if letter.event in lane.deciding else letter
            try:
                if not lane.mailbox.put(asked, self.loop.wake) and asked.ticket:
                    self.listening.tickets.answer(lane.name, ticket, None)
            except MailboxFullError as error:
                refusal = error  # raised once every other lane has got the event
        self.loop.wake()
        if refusal is not None:
            raise refusal

    def poll(self, *, at_event: bool = False) -> None:
        """Hear what the companion has said, and at an event tell it more."""
        if at_event:
            self.sides.drain()
        if self.companion is not None:
            self.companion.poll()
            if at_event:
                self.offers.write()

    def _written(self) -> int:
        """Return the number of records that were written for the companion."""
        return self.companion.ring.written if self.companion is not None else 0

    def _find_slots(self) -> Slots:
        """Return the companion's slots, or without one our own."""
        if self.companion is not None:
            return self.companion.ring.slots
        return Slots(memoryview(mmap.mmap(-1, SIZE)))

    def _slots_read(self) -> int:
        return self.companion.slots_read if self.companion is not None else sys.maxsize

    # -- the end -----------------------------------------------------------------------------------

    def finish_staging(self, deadline: float) -> bool:
        """Wait until every value has come from the device; return False at the deadline."""
        self.sides.drain(whole=True)
        return self.staging.device is None or self.staging.device.finish(deadline)

    def flush(self, deadline: float) -> bool:
        """Wait until everything published is delivered; return False at the deadline."""
        delivered = self.finish_staging(deadline)
        if self.companion is not None and self.outlet is not None:
            self.outlet.settle()
            self.companion.poll()
            self.offers.write()
            delivered = self.companion.flush(deadline) and delivered
        return self.loop.wait(lambda lane: lane.idle or lane.done, deadline) and delivered

    def close(
        self, status: RunStatus, deadline: float, on_wait: Callable[[], None]
    ) -> dict[str, int]:
        """End every lane by the deadline; return the events that are left, by callback."""
        pending: dict[str, int] = {}
        self.loop.end_lanes(status)  # they come to their end while the companion does
        if self.companion is not None:
            self.companion.deadline = deadline
        self.finish_staging(deadline)
        if self.companion is not None and self.outlet is not None and self.records is not None:
            self.outlet.settle()
            self.offers.settle(self.companion, deadline)
            self.records.end(status)
            pending.update(self.companion.close(deadline, on_wait))
        pending.update(self.loop.close(status, deadline, on_wait))
        return {name: count for name, count in pending.items() if count}

    def pending(self) -> dict[str, int]:
        """Return the events that are not known to be delivered, by callback."""
        pending = self.loop.pending()
        if self.companion is not None:
            pending.update(self.companion.pending())
        return {name: count for name, count in pending.items() if count}

    def release(self) -> None:
        """Let go of the lanes, of the companion, which ends by itself, and of the device."""
        self.loop.stop()
        self.sides.close()
        self.listening.tickets.release()
        if self.staging.device is not None:
            self.staging.device.close()
            self.staging.device = None
        if self.companion is not None:
            self.companion.release()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self.loop.abandon()
        self.listening.tickets.release()
        if self.companion is not None:
            self.companion.abandon()

    def is_journaled(self, name: str) -> bool:
        """Tell whether a callback's undelivered events are safe in the journal."""
        member = self._members.get(name)
        return member is not None and member.in_companion

    def counts(self) -> dict[str, LaneCounts]:
        """Return the counts by callback, as far as they are known here."""
        self.poll()
        result: dict[str, LaneCounts] = {}
        for name, member in self._members.items():
            if member.lane is not None:
                result[name] = member.lane.count()
            elif self.companion is not None:
                result[name] = self.companion.counts.get(name, LaneCounts())
        for name, missed in self._missed.items():
            counts = result[name]
            result[name] = dataclasses.replace(counts, dropped=counts.dropped + missed)
        return result

    # -- inside ------------------------------------------------------------------------------------

    def _start_in_companion(self, member: Member, args: Any, model: Any) -> bool:
        """Tell whether the companion serves the callback; where not, one line says why."""
        try:
            body = pickled(member)
            self._start_companion()
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code
            logger.warning(
                "%s is served by a thread of the training process, not by the companion: %s",
                member.name,
                error,
            )
            return False
        assert self.companion is not None
        spec = lane_spec(member, body, self.companion.ring.written)
        member.in_companion = True
        if self.records is not None and getattr(member.callback, "needs_history", True):
            self.records.send_history()
        self.companion.add_lane(spec)
        self.describe(args, model)
        return True

    def _start_companion(self) -> None:
        if self.companion is None:
            if self.staging.device is not None:  # its slots were not the companion's
                self.staging.device.finish(float("inf"))
                self.staging.device.close()
                self.staging.device = None
            self.companion = Companion(
                self.directory,
                self.key,
                on_fault=lambda name, text: self.faults.append((name, text)),
                on_lane_failed=self._lane_failed,
                settings=self._settings,
                on_answer=self.listening.tickets.answer,
                on_ended=self.listening.fall_silent,
                on_request=self.on_request,
                on_offer=self.offers.post,
            )
            self.listening.companion = self.companion
            self.outlet = Outlet(self.companion, self.staging, self._overflow, self._capacity)
            self.records = RecordWriter(self.outlet, self.staging)

    def _lane_failed(self, name: str, reason: str, missed: int) -> None:
        self.listening.tickets.lose([name])
        self._missed[name], self._failed_at[name] = missed, self._written()
        logger.warning(
            "%s cannot live in the companion (%s); from here on a thread of the training process "
            "serves it, and what it should have seen before is lost: %d records",
            name,
            reason,
            missed,
        )
        self.late.append(self._members[name])

    def _start_on_thread(self, member: Member, args: Any, model: Any) -> None:
        member.in_companion = False
        member.lane = thread_lane(
            member,
            self._capacity,
            self._overflow,
            lambda error: self.faults.append((member.name, error)),
            self.listening.tickets.answer,
            offline=self._settings.offline,
        )
        if member.lane.tracker is not None:
            extra = self.runs.describe(args, model)
            member.lane.description = RunDescription.from_record(self._started, extra)
        self.loop.start_lane(member.lane)
