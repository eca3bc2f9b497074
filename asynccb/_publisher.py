"""
From the training thread to the lanes: the companion's, and those on the event-loop thread.

Promises: publishing waits for nobody but a full mailbox; the companion and the loop thread are
started only when a callback needs them; what must be done in a forked child is done here.
"""

from __future__ import annotations

import dataclasses
import logging
import mmap
import pickle
import secrets
import sys
import time
from pathlib import Path
from typing import Any, Final

from asynccb._callback import Overflow
from asynccb._companion._messages import LaneSpec
from asynccb._companion._parent import Companion
from asynccb._control import pack_flags
from asynccb._describe import describe_run
from asynccb._events import EVENTS
from asynccb._exceptions import CallbackError, MailboxFullError
from asynccb._lane import LaneCounts
from asynccb._loop import LoopThread
from asynccb._mailbox import Letter, Mailbox, weigh
from asynccb._outlet import Outlet
from asynccb._record import END, HISTORY, LEAVE, RUN
from asynccb._roster import Member, Route
from asynccb._run import RunDescription, RunStatus
from asynccb._slots import SIZE, Slots
from asynccb._state import ChangeTracker, TrainerState, snapshot
from asynccb._thread_lane import ThreadLane
from asynccb.staging import Staging

logger = logging.getLogger("asynccb")

_POLL_NS: Final = 100_000_000
"""Nanoseconds between two looks at what the companion has said."""

_HISTORY_PART: Final = 1000
"""Entries of the log history in one record, which must fit into the ring."""


class Publisher:
    """Own the lanes of one dispatcher."""

    def __init__(self, directory: Path, overflow: Overflow, capacity: int) -> None:
        """Take where run directories go, and the limits of the mailboxes."""
        self.key = secrets.token_hex(16)
        self.faults: list[tuple[str, BaseException | str]] = []
        """Errors to raise on the training thread: callback's name, and the error or its text."""
        self.staging = Staging(self._find_slots, self._slots_read, overflow)
        self.loop = LoopThread(self._settle)
        self.companion: Companion | None = None
        self.outlet: Outlet | None = None
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.directory = directory / f"{stamp}-{self.key[:8]}"
        self._overflow = overflow
        self._capacity = capacity
        self._changes = ChangeTracker()
        self._wants_history = False
        self._history: list[dict[str, Any]] | None = None
        self._sent = 0
        self._next_poll = 0
        self._started = time.time_ns()
        self._members: dict[str, Member] = {}
        self.late: list[Member] = []
        """Members that the companion could not serve, to be given lanes on the thread."""

    # -- lanes -------------------------------------------------------------------------------------

    def start_lane(self, member: Member, args: Any, model: Any) -> None:
        """Give a callback that has async hooks its lane."""
        self._members[member.name] = member
        if member in self.late:
            self.late.remove(member)
            self._start_on_thread(member, args, model)
            return
        if member.options.placement == "process" and self._start_in_companion(member, args, model):
            return
        self._start_on_thread(member, args, model)

    def end_lane(self, member: Member) -> None:
        """Have a callback's lane deliver what it has got, and end; its counts stay."""
        if member.in_companion and self.outlet is not None:
            extra = {"lane": member.name}
            self.outlet.put((LEAVE, time.time_ns(), 0, 0.0, 0, None, None, None, extra))
        if member.lane is not None:
            self.loop.end_lane(member.lane, "finished")

    def describe(self, args: Any, model: Any) -> None:
        """Tell the companion, from here on, what the run is like."""
        if self.outlet is not None:
            extra = describe_run(args, model, self.key, self._started)
            self._changes = ChangeTracker()
            self.outlet.put((RUN, time.time_ns(), 0, 0.0, 0, None, None, None, extra))

    # -- events ------------------------------------------------------------------------------------

    def write(
        self,
        number: int,
        now: int,
        state: TrainerState,
        control: Any,
        history: int,
        extra: dict[str, Any],
    ) -> None:
        """Write an event's record for the companion; `history` is the record's bit, or 0."""
        assert self.outlet is not None
        if self._wants_history:
            self._send_history(state, now, 1 if history else 0)
        changes = self._changes.changes(state)
        head = (number, now, state.global_step, state.epoch or 0.0, pack_flags(control) | history)
        if "logs" in extra and len(extra) == 1:  # nearly always
            logs = self.staging.for_record(extra["logs"])
            self.outlet.put((*head, logs) if changes is None else (*head, logs, changes))
        else:
            rest = dict(extra)
            logs, metrics = (
                self.staging.for_record(rest.pop("logs", None)),
                rest.pop("metrics", None),
            )
            self.outlet.put((*head, logs, changes, metrics, rest or None))
        if now >= self._next_poll:
            self._next_poll = now + _POLL_NS
            self.poll()

    def _send_history(self, state: TrainerState, now: int, own: int) -> None:
        """Write the entries that no record has carried; the event's `own` one follows with it."""
        entries = state.log_history
        if entries is not self._history:
            self._history, self._sent = entries, 0
        end = len(entries) - own
        assert self.outlet is not None
        while self._sent < end:
            part = entries[self._sent : min(end, self._sent + _HISTORY_PART)]
            extra = {"start": self._sent, "entries": part}
            self.outlet.put((HISTORY, now, 0, 0.0, 0, None, None, None, extra))
            self._sent += len(part)
        self._sent = end + own

    def post(
        self,
        route: Route,
        now: int,
        state: TrainerState,
        control: Any,
        args: Any,
        objects: dict[str, Any],
        extra: dict[str, Any],
    ) -> None:
        """Put an event, with plain values, into the mailboxes of the lanes on the thread."""
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
        for lane in route.lanes:
            try:
                lane.mailbox.put(letter, self.loop.wake)
            except MailboxFullError as error:
                refusal = error  # raised once every other lane has got the event
        self.loop.wake()
        if refusal is not None:
            raise refusal

    def poll(self) -> None:
        """Hear what the companion has said."""
        if self.companion is not None:
            self.companion.poll()

    def raise_fault(self) -> None:
        """Raise the oldest error of a callback that wants its errors raised."""
        name, error = self.faults.pop(0)
        if isinstance(error, str):
            raise CallbackError(f"{name} failed in the companion: {error}")
        raise CallbackError(f"{name} failed: {type(error).__name__}: {error}") from error

    def _find_slots(self) -> Slots:
        """Return the companion's slots, or without one our own."""
        if self.companion is not None:
            return self.companion.ring.slots
        return Slots(memoryview(mmap.mmap(-1, SIZE)))

    def _slots_read(self) -> int:
        return self.companion.slots_read if self.companion is not None else sys.maxsize

    def _settle(self) -> None:
        if self.staging.device is not None:
            self.staging.device.settle()

    # -- the end -----------------------------------------------------------------------------------

    def flush(self, deadline: float) -> bool:
        """Wait until everything published is delivered; return False at the deadline."""
        delivered = self.staging.device is None or self.staging.device.finish(deadline)
        if self.companion is not None and self.outlet is not None:
            self.outlet.settle()
            delivered = self.companion.flush(deadline) and delivered
        return self.loop.wait(lambda lane: lane.idle or lane.done, deadline) and delivered

    def close(self, status: RunStatus, deadline: float, on_wait: Any) -> dict[str, int]:
        """End every lane by the deadline; return the events that are left, by callback."""
        pending: dict[str, int] = {}
        if self.staging.device is not None:
            self.staging.device.finish(deadline)
        if self.companion is not None and self.outlet is not None:
            self.outlet.settle()
            self.outlet.put((END, time.time_ns(), 0, 0.0, 0, None, None, None, {"status": status}))
            pending.update(self.companion.close(deadline, on_wait))
        pending.update(self.loop.close(status, deadline))
        return {name: count for name, count in pending.items() if count}

    def release(self) -> None:
        """Let go of the companion, which ends by itself, and of the device."""
        if self.staging.device is not None:
            self.staging.device.close()
            self.staging.device = None
        if self.companion is not None:
            self.companion.release()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self.loop.abandon()
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
                counts = dataclasses.replace(member.lane.counts)
                counts.pending = member.lane.waiting
                counts.dropped += member.lane.mailbox.dropped
                counts.blocked = member.lane.mailbox.blocked
                result[name] = counts
            elif self.companion is not None:
                result[name] = self.companion.counts.get(name, LaneCounts())
        return result

    # -- inside ------------------------------------------------------------------------------------

    def _start_in_companion(self, member: Member, args: Any, model: Any) -> bool:
        """Tell whether the companion serves the callback; where not, one line says why."""
        kind = type(member.callback)
        try:
            if kind.__module__ == "__main__":
                raise pickle.PicklingError("its class is defined in the main script")
            pickled = pickle.dumps(member.callback)
            self._start_companion()
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code
            logger.warning(
                "%s is served by a thread of the training process, not by the companion: %s",
                member.name,
                error,
            )
            return False
        assert self.companion is not None
        exports = getattr(member.callback, "state", None)
        spec = LaneSpec(
            member.name,
            pickled,
            f"{kind.__module__}:{kind.__qualname__}",
            exports() if callable(exports) else None,
            self.companion.ring.written,
        )
        member.in_companion = True
        if getattr(member.callback, "needs_history", True):
            self._wants_history, self._history = True, None
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
            )
            self.outlet = Outlet(self.companion, self.staging, self._overflow, self._capacity)

    def _lane_failed(self, name: str, reason: str) -> None:
        logger.warning(
            "%s cannot live in the companion (%s); from here on a thread of the training process "
            "serves it, and what it should have seen before is lost",
            name,
            reason,
        )
        self.late.append(self._members[name])

    def _start_on_thread(self, member: Member, args: Any, model: Any) -> None:
        name = member.name
        overflow = member.options.overflow or self._overflow

        def complain() -> None:
            logger.warning(
                "%s is behind by %d events; its overflow policy is %r (said once; statistics() "
                "counts what it costs)",
                name,
                self._capacity,
                overflow,
            )

        member.in_companion = False
        member.lane = ThreadLane(
            name,
            member.callback,
            member.hooks.asynchronous,
            lambda error: self.faults.append((name, error)),
            mailbox=Mailbox(self._capacity, overflow, complain),
        )
        if member.lane.tracker is not None:
            extra = describe_run(args, model, self.key, self._started)
            member.lane.description = RunDescription.from_record(self._started, extra)
        self.loop.start_lane(member.lane)
