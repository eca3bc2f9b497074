"""What is due when, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asynccb._compiled.shared import Shared
from asynccb._decisions.schedule import Schedule, Ticket, fingerprint
from asynccb.callbacks.decides import Deciding

asked = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4), st.integers(0, 3)), max_size=30)


def ticket(emission: int, step: int = 0, lag: int = 1, position: int = 0) -> Ticket:
    terms = Deciding(lag, 60.0, "wait")
    return Ticket(emission, position, f"C{position}", "on_log", step, step + lag, terms)


@given(asked)
def test_every_ticket_is_given_out_once_at_its_boundary_in_order(
    asked: list[tuple[int, int, int]],
) -> None:
    schedule = Schedule(Shared())
    tickets = [ticket(n, step, lag, place) for n, (step, lag, place) in enumerate(sorted(asked), 1)]
    schedule.add(tickets)
    out = {step: schedule.take(step) for step in range(30)}
    assert sorted(id(each) for due in out.values() for each in due) == sorted(map(id, tickets))
    for step, due in out.items():
        assert all(each.due == step for each in due)
        order = [(each.emission, each.position) for each in due]
        assert order == sorted(order)


@given(asked, st.randoms())
def test_the_order_in_which_tickets_are_added_does_not_matter(asked, random) -> None:
    tickets = [ticket(n, step, lag, place) for n, (step, lag, place) in enumerate(asked, 1)]
    one, other = Schedule(Shared()), Schedule(Shared())
    one.add(tickets)
    random.shuffle(tickets)
    other.add(tickets)
    assert one.take(100) == other.take(100)


def test_a_boundary_that_the_loop_jumped_over_is_made_up_for_at_the_next_one() -> None:
    schedule = Schedule(Shared())
    late = ticket(1, step=1)
    schedule.add([late])
    assert schedule.take(1) == []
    assert schedule.take(7) == [late]


def test_an_event_takes_only_its_own_tickets_without_a_lag() -> None:
    schedule = Schedule(Shared())
    own, lagging, other = ticket(2, lag=0), ticket(2, position=1), ticket(1, lag=0)
    schedule.add([own, lagging, other])
    assert schedule.take_prompt(2) == [own]
    assert schedule.tickets == [other, lagging]


def test_a_fingerprint_is_63_bits_and_differs_with_what_it_stands_for() -> None:
    prints = {fingerprint(step, [("C", step)]) for step in range(1000)}
    assert len(prints) == 1000
    assert all(0 <= each < 1 << 63 for each in prints)
