"""
Decisions, from the event that asks for them to the boundary that applies them.

Promises: the events alone determine which decision is applied where; the time at which an answer
arrives does not matter. While nothing is due, a boundary costs a few looks. Every decision that is
not applied is counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from asynccb._compiled.shared import Shared, within_word
from asynccb._decisions.log import DecisionLog
from asynccb._decisions.replay import Replay
from asynccb._decisions.requests import Requests
from asynccb._decisions.save_notes import NOTHING, Note, SaveNotes, note_name, read_note
from asynccb._decisions.saved import Saved, load, save
from asynccb._decisions.schedule import Schedule, Ticket, fingerprint
from asynccb._decisions.tickets import Tickets
from asynccb._decisions.trace import RANKS, REQUEST, TRACE_FILE, Trace
from asynccb._decisions.waiting import Waiting
from asynccb._ground.events import EVENTS
from asynccb._ground.exceptions import ClosedError, ForkedError
from asynccb._ground.lifetime import FORKED
from asynccb._lanes.counts import LaneCounts
from asynccb._lanes.registry import Registry
from asynccb._lanes.routes import Route
from asynccb._state.control import (
    FLAGS,
    NO_OPINION,
    Decision,
    combine,
    from_weights,
    pack_flags,
    to_weights,
    write_flags,
)
from asynccb._state.trainer_state import TrainerState
from asynccb.distributed.agreement import Agreement

_SAVE: Final = 1 << FLAGS.index("should_save")


class Decisions:
    """Ask, wait, apply and trace for one run; on the training thread only."""

    def __init__(
        self,
        tickets: Tickets,
        listen: Callable[[Sequence[Ticket], float], None],
        registry: Registry,
        args: object,
        *,
        directory: Path,
        replay: Path | None,
        owner: bool,
        shared: Shared,
    ) -> None:
        """
        Take where decisions are asked for, how to wait for them, and who decides.

        The trace is written below `directory` if this process is its `owner`. `replay` is another
        run's trace to go by. `shared` tells `KnownLogs` whether a boundary is quiet.
        """
        self._tickets = tickets
        self._registry = registry
        self._agreement = Agreement(limit=getattr(args, "ddp_timeout", 1800.0))
        self._shared = shared
        self.requests = Requests(self._agreement, self._shared)
        self._refusal: Exception | None = None
        self._schedule = Schedule(self._shared)
        self._waiting = Waiting(tickets, listen)
        self._replay = None if replay is None else Replay(replay, owner=owner)
        self.trace = Trace(directory / TRACE_FILE, owner=owner)
        self._log = DecisionLog(self.trace, self._replay, registry, getattr(args, "seed", None))
        self._emission = 0
        self._training = 0
        self._has_begun = False
        self._left: list[Ticket] = []
        """Tickets of earlier trainings that ended before the tickets were due."""
        self._notes = SaveNotes()
        self._noted = NOTHING
        self._asked: list[Ticket] = []  # by the last event that asks for decisions
        self._is_noting = False  # the control of an event is part of the checkpoint's note
        self._seen: int | None = None
        self._saved = 0  # flags of the checkpoint that this run resumes from
        self._stop: int | None = None  # step at which it was decided that the run ends
        self._stopped: int | None = None  # the same, of the checkpoint that this run resumes from
        self._paused = False

    # -- events ------------------------------------------------------------------------------------

    def begin(self, step: int) -> None:
        """Begin a training at a step; leave the tickets of the training before behind."""
        self.requests.begin()
        if self._has_begun and not self._paused:
            self._begin_anew(step)
        self._has_begun = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have events within ask for no decisions: an interrupted run has asked already."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def stops_at(self, step: int) -> bool:
        """Tell whether it was decided that a run, resumed at a checkpoint's step, ends there."""
        return self._stopped == step

    def open(self, route: Route, state: TrainerState, control: Any) -> int:
        """
        Ask the callbacks that decide on an event; return the number that answers refer to.

        `control` is what those callbacks see.
        """
        if self._paused:
            return 0
        step, event = state.global_step, EVENTS[route.number]
        self._look_back(step)
        self._log.identify(state.max_steps)
        self._emission += 1
        self._asked = []
        if self._is_noting:
            self._seen = pack_flags(control)
        for decider in route.deciders:
            ticket = Ticket.to(decider, self._emission, event, step)
            if self._replay is not None:
                self._replay.answer(ticket, self._training)
            elif answered := self._noted.answers.get(decider.name):
                ticket.settle(Decision(**answered.flags), answered.outcome)
            elif self._registry.terms(decider.name, event) is None:
                # A hook of this event has removed it.
                ticket.lose()
            elif decider.asked:
                self._tickets.add(ticket)
            else:  # the callback runs on another rank
                ticket.settle(NO_OPINION, "decided")
            self._asked.append(ticket)
        self._schedule.add(self._asked)
        return self._emission

    def pass_by(self, state: TrainerState) -> bool:
        """Go past a boundary where nothing can be due; tell whether this is one, at little cost."""
        step, shared = state.global_step, self._shared
        if self._schedule.waiting or self._replay is not None or step < shared.last_boundary:
            return False
        if passed := self.requests.pass_by():
            shared.last_boundary = within_word(step)
        return passed

    def apply(self, route: Route, state: TrainerState, control: Any) -> None:
        """Apply the decisions that are due to the control, once the event has been published."""
        if route.is_boundary:
            self._apply_boundary(state, control)
        elif due := self._schedule.take_prompt(self._emission):
            decided = self._settle(due, state.global_step, self._emission)
            self._note_stop(decided, state.global_step)
            write_flags(control, [decided])

    def request(self, wishes: Decision) -> None:
        """Set flags at a boundary soon; from any thread or signal. `ClosedError` after `close`."""
        if self._refusal is not None:
            raise self._refusal
        self.requests.post(wishes)

    def agree(self, event: str, step: int, wishes: Decision) -> Decision:
        """Return the wishes of `def` hooks at an event, agreed among all ranks."""
        return self._agree(step, fingerprint(step, event), wishes)

    def forget(self, name: str) -> None:
        """Drop the decisions and the open tickets of a callback that is removed."""
        self._tickets.lose([name])
        for ticket in self._schedule.tickets:
            if ticket.name == name:
                ticket.lose()

    def _begin_anew(self, step: int) -> None:
        self._training, self._shared.last_boundary = self._training + 1, within_word(step)
        self._leave()

    def _leave(self) -> None:
        self._left += self._schedule.tickets
        self._schedule = Schedule(self._shared)

    def _look_back(self, step: int) -> None:
        """Notice another training, of a loop that emits no `on_train_begin`."""
        if step < self._shared.last_boundary:
            self._begin_anew(step)

    def _apply_boundary(self, state: TrainerState, control: Any) -> None:
        step = state.global_step
        self._look_back(step)
        self._shared.last_boundary = within_word(step)
        if self._notes:
            self._notes.write()
        if due := self._schedule.take(step):
            self._log.identify(state.max_steps)
        if self._replay is not None:
            self._replay.check_passed(self._training, step)
        decisions = [self._settle(due, step, 0)] if due else []
        for decided in decisions:
            self._note_stop(decided, step)
        decisions += self._requested(state)
        if decisions:
            write_flags(control, decisions)

    def _settle(self, due: Sequence[Ticket], step: int, emission: int) -> Decision:
        """Wait for the tickets that are due, and return the decision agreed among all ranks."""
        try:
            self._waiting.wait(due)
        except BaseException:
            self._schedule.add(due)
            raise
        if self._notes:
            self._notes.write()
        for ticket in due:
            self._log.note(ticket, step, self._training)
        wishes = combine(ticket.decision for ticket in due)
        if self._replay is not None:
            of_ranks = self._replay.other(RANKS, self._training, emission, step)
            wishes = combine((wishes, of_ranks or NO_OPINION))
        named = [(ticket.emission, ticket.event, ticket.name) for ticket in due]
        agreed = self._agree(step, fingerprint(step, named), wishes)
        if agreed != wishes:
            self._log.note_other(RANKS, agreed, step, emission, self._training)
        return agreed

    def _agree(self, step: int, schedule: int, wishes: Decision) -> Decision:
        if self._agreement.world == 1:
            return wishes
        return from_weights(self._agreement.agree(step, schedule, to_weights(wishes)))

    def _requested(self, state: TrainerState) -> list[Decision]:
        """Return the requests from outside, if there are any."""
        step = state.global_step
        request = self.requests.take(step)
        replayed = None
        if self._replay is not None:
            replayed = self._replay.other(REQUEST, self._training, 0, step)
        if request is None and replayed is None:  # nearly always
            return []
        self._log.identify(state.max_steps)
        requested = combine(each for each in (request, replayed) if each is not None)
        self._log.note_other(REQUEST, requested, step, 0, self._training)
        return [requested]

    def _note_stop(self, decided: Decision, step: int) -> None:
        if decided.should_training_stop is not None:
            self._stop = step if decided.should_training_stop else None

    # -- the state ---------------------------------------------------------------------------------

    def state(self, step: int, control: Any) -> dict[str, Any]:
        """Wait for pending decisions, and return the state for a resumed run, as JSON values."""
        tickets = self._schedule.tickets
        self._waiting.wait(tickets)
        self._notes.write()
        return save(
            self._emission,
            self._training,
            self._registry,
            tickets,
            flags=pack_flags(control),
            stopped=bool(control.should_training_stop) and self._stop == step,
        )

    def load(self, state: object, step: int) -> Saved:
        """Go on from a state at a step; raises `ConfigurationError` for anything else."""
        saved, tickets = load(state, self._registry)
        self._emission, self._training = saved.emission, saved.training
        self._shared.last_boundary = within_word(step)
        self._leave()
        self._schedule.add(tickets)
        self._stop = self._stopped = step if saved.stopped else None
        self._saved = saved.flags & ~_SAVE
        if self._replay is not None:
            self._replay.forget(saved.emission, step)
        return saved

    @contextmanager
    def keeping(
        self, checkpoint: Path, control: Callable[[], Any], *, again: bool
    ) -> Iterator[Note]:
        """
        Store in a checkpoint the effects of its `on_save`, which is emitted within.

        The effects are the changes of the control, and the decisions. With `again`, decisions that
        the checkpoint contains hold, and only missing ones are asked for again, with the control as
        it was then. Yields the checkpoint's note.
        """
        name = note_name(self._agreement.rank, self._agreement.world)
        file = checkpoint.absolute() / name  # the program may change its folder before answers come
        self._noted, self._is_noting, self._seen = NOTHING, True, None
        if again:
            note = read_note(file)
            self._noted = note if note.seen is not None else replace(note, seen=self._saved)
        before, emission = pack_flags(control()) & ~_SAVE, self._emission  # which the event clears
        try:
            yield self._noted
        finally:
            self._noted, self._is_noting = NOTHING, False
        changed = Decision.between(before, pack_flags(control()))
        asked = self._asked if self._emission > emission else ()
        self._notes.begin(file, changed, asked, self._seen)

    # -- the end -----------------------------------------------------------------------------------

    @property
    def undue(self) -> Counter[str]:
        """Decisions with an opinion whose step has not come, by callback."""
        undue = (*self._left, *self._schedule.tickets)
        return Counter(ticket.name for ticket in undue if ticket.decision.opinions)

    def count(self, counts: dict[str, LaneCounts]) -> dict[str, LaneCounts]:
        """Return the lanes' counts with the counts of decisions added."""
        undue = self.undue
        return {
            name: dataclasses.replace(
                lane,
                decided=self._log.decided[name],
                waited=self._waiting.waited.get(name, 0.0),
                late=self._waiting.late.get(name, 0),
                undue=undue[name],
            )
            for name, lane in counts.items()
        }

    def abandon(self) -> None:
        """Refuse requests in a forked child, since they would reach nobody."""
        self._refusal = ForkedError(FORKED)

    def close(self) -> None:
        """Release the group of ranks, and the trace that was replayed."""
        closed = "nothing can be requested any more: this dispatcher was closed"
        self._refusal = self._refusal or ClosedError(closed)
        self.requests.close()
        self._agreement.close()
        if self._replay is not None:
            self._replay.close()
