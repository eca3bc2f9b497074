"""
Schedules of decisions, and the orders in which they are answered.

A schedule is made from a seed: deciders with lags, events, placements (whose answers come from
another thread, or while the training waits) and failures, and an order in which the answers come.
No lane runs here and nothing sleeps: the tickets are answered here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from asynccb._compiled.shared import Shared
from asynccb._decisions.decisions import Decisions
from asynccb._decisions.schedule import Ticket
from asynccb._decisions.tickets import Tickets
from asynccb._ground.events import Event
from asynccb._lanes.registry import Registry
from asynccb._lanes.routes import Decider, Route
from asynccb._state.control import FLAGS, NO_OPINION, Decision, TrainerControl
from asynccb._state.trainer_state import TrainerState
from asynccb.callbacks.decides import Deciding
from tests.decisions.deciding import lines_of

STEPS = 8
DECIDED_ON = (Event.STEP_BEGIN, Event.STEP_END, Event.LOG, Event.EVALUATE)


class Plan(NamedTuple):
    """Say who decides on what, and what."""

    deciders: dict[Event, tuple[Decider, ...]]
    answers: dict[tuple[str, str, int], Decision | None]
    """By callback, event and step; None for a callback that is lost by then."""


def make_plan(seed: int) -> Plan:
    dice = random.Random(seed)
    deciders: dict[Event, list[Decider]] = {event: [] for event in DECIDED_ON}
    answers: dict[tuple[str, str, int], Decision | None] = {}
    for position in range(dice.randint(1, 5)):
        name, dies = f"C{position}", dice.randint(3, 3 * STEPS)
        for event in dice.sample(DECIDED_ON, dice.randint(1, 3)):
            terms = Deciding(dice.choice([0, 1, 1, 1, 2, 4]), 60.0, "wait")
            asked = dice.random() < 0.9
            deciders[event].append(Decider(position, name, terms, asked))
            for step in range(STEPS + 1):
                answers[name, event, step] = _answer(dice) if step < dies else None
    return Plan({event: tuple(found) for event, found in deciders.items()}, answers)


def _answer(dice: random.Random) -> Decision:
    if dice.random() < 0.4:  # no opinion, or a failure
        return NO_OPINION
    return Decision(*(dice.choice([None, None, True, False]) for _ in FLAGS))


class Lanes:
    """Answer in the order that a seed gives: at once, later, or only when waited for."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.tickets = Tickets()
        self.dice = random.Random(seed)
        self.plan = plan
        self.open: list[Ticket] = []

    def answer(self, ticket: Ticket) -> None:
        self.open.remove(ticket)
        decision = self.plan.answers[ticket.name, ticket.event, ticket.step]
        self.tickets.answer(ticket.name, ticket.emission, decision)
        if self.dice.random() < 0.2:  # a companion that was killed answers again, and differently
            self.tickets.answer(ticket.name, ticket.emission, Decision(True, True))

    def answer_some(self) -> None:
        for ticket in self.dice.sample(self.open, self.dice.randint(0, len(self.open))):
            self.answer(ticket)

    def answer_one(self, missing: Sequence[Ticket], timeout: float) -> None:
        assert any(ticket in self.open for ticket in missing)
        self.answer(self.dice.choice(self.open))


def run(plan: Plan, seed: int, directory: Path) -> tuple[list[list[bool]], list[dict[str, Any]]]:
    """Return the flags after every event, and the trace."""
    lanes = Lanes(plan, seed)
    decisions = Decisions(
        lanes.tickets,
        lanes.answer_one,
        Registry(),
        None,
        directory=directory,
        replay=None,
        owner=True,
        shared=Shared(),
    )
    state, control = TrainerState(), TrainerControl()
    flags: list[list[bool]] = []

    def emit(event: Event) -> None:
        route = route_of(event, plan)
        if route.deciders:
            known = len(decisions._schedule.tickets)
            decisions.open(route, state, control)
            lanes.open += [
                t for t in decisions._schedule.tickets if t.outcome is None and t not in lanes.open
            ]
            assert len(decisions._schedule.tickets) == known + len(route.deciders)
        lanes.answer_some()
        decisions.apply(route, state, control)
        flags.append([getattr(control, flag) for flag in FLAGS])

    for _ in range(STEPS):
        emit(Event.STEP_BEGIN)
        state.global_step += 1
        for event in (Event.STEP_END, Event.LOG, Event.EVALUATE, Event.LOG):
            emit(event)
    path = directory / "decisions.jsonl"
    return flags, lines_of(path) if path.exists() else []


def route_of(event: Event, plan: Plan) -> Route:
    route = Registry().routes[event]
    assert route is not None
    return replace(route, deciders=plan.deciders.get(event, ()), applies=True)


def check(seed: int, orders: int, directory: Path) -> None:
    """Run a seed's plan with its answers in so many orders, and compare."""
    plan = make_plan(seed)
    runs = (run(plan, order, directory / f"{seed}-{order}") for order in range(orders))
    first, *others = runs
    assert all(other == first for other in others), seed
