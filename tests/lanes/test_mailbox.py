"""The queue between the training thread and a lane."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.events import TERMINAL, Event
from asynccb._ground.exceptions import MailboxFullError
from asynccb._lanes.mailbox import Letter, Mailbox, weigh
from tests.support.waiting import eventually

CAPACITY, MAX_BYTES = 4, 100


def letter(number: int, event: Event = Event.LOG, weight: int = 1) -> Letter:
    return Letter(event, None, None, 0, {}, number, weight)


def mailbox(policy: str, capacity: int = CAPACITY, max_bytes: int = MAX_BYTES) -> Mailbox:
    return Mailbox(capacity, policy, lambda: None, max_bytes)  # type: ignore[arg-type]


def never_wakes() -> None:
    raise AssertionError("nobody is to be woken")


def put(box: Mailbox, *letters: Letter) -> None:
    for each in letters:
        box.put(each, never_wakes)


def numbers(box: Mailbox) -> list[int]:
    taken = []
    while (each := box.take()) is not None:
        taken.append(each.time)
    return taken


class TestPolicies:
    def test_drop_newest_keeps_what_is_there(self) -> None:
        box = mailbox("drop_newest")
        put(box, *map(letter, range(6)))
        assert numbers(box) == [0, 1, 2, 3]
        assert box.dropped == 2

    def test_drop_oldest_keeps_what_comes(self) -> None:
        box = mailbox("drop_oldest")
        put(box, *map(letter, range(6)))
        assert numbers(box) == [2, 3, 4, 5]
        assert box.dropped == 2

    def test_raise_raises_with_what_to_do_and_counts_the_drop(self) -> None:
        box = mailbox("raise")
        put(box, *map(letter, range(4)))
        with pytest.raises(MailboxFullError, match=r"4 events are waiting; raise the .*capacity"):
            put(box, letter(4))
        assert numbers(box) == [0, 1, 2, 3]
        assert box.dropped == 1

    def test_block_waits_until_another_thread_makes_room_and_counts_the_wait(self) -> None:
        box = mailbox("block")
        put(box, *map(letter, range(4)))
        waits, done = threading.Event(), threading.Event()

        def produce() -> None:
            box.put(letter(4), waits.set)
            done.set()

        thread = threading.Thread(target=produce)
        thread.start()
        assert waits.wait(5.0)
        assert not done.is_set()

        assert box.take() is not None

        assert done.wait(5.0)
        thread.join()
        assert numbers(box) == [1, 2, 3, 4]
        assert (box.dropped, box.blocked > 0) == (0, True)

    def test_block_waits_for_a_terminal_event_too(self) -> None:
        box = mailbox("block")
        put(box, *map(letter, range(4)))
        waits = threading.Event()
        thread = threading.Thread(
            target=lambda: box.put(letter(4, Event.TRAIN_END), waits.set), daemon=True
        )
        thread.start()
        assert waits.wait(5.0)
        assert len(box) == 4
        assert numbers(box)[:4] == [0, 1, 2, 3]
        thread.join(5.0)
        assert not thread.is_alive()


class TestLimits:
    def test_letters_are_refused_by_their_weight_before_their_number(self) -> None:
        box = mailbox("drop_newest", capacity=100)
        put(box, letter(0, weight=60), letter(1, weight=60), letter(2, weight=40))
        assert numbers(box) == [0, 2]
        assert box.dropped == 1

    def test_taking_a_letter_gives_its_weight_back(self) -> None:
        box = mailbox("drop_newest")
        put(box, letter(0, weight=100))
        box.take()
        put(box, letter(1, weight=100))
        assert numbers(box) == [1]

    def test_drop_oldest_drops_as_many_as_a_heavy_letter_needs(self) -> None:
        box = mailbox("drop_oldest", capacity=100)
        put(box, *(letter(n, weight=25) for n in range(4)), letter(4, weight=75))
        assert numbers(box) == [3, 4]
        assert box.dropped == 3

    def test_a_letter_heavier_than_the_limit_goes_through_an_empty_blocking_mailbox(self) -> None:
        box = mailbox("block")
        put(box, letter(0, weight=1000))
        assert numbers(box) == [0]

    @pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "raise"])
    @pytest.mark.parametrize("event", sorted(TERMINAL))
    def test_an_event_that_begins_ends_or_steers_a_run_is_kept_beyond_the_limits(
        self, policy: str, event: Event
    ) -> None:
        box = mailbox(policy)
        put(box, *(letter(number, event, weight=60) for number in range(10)))
        assert numbers(box) == list(range(10))
        assert box.dropped == 0

    def test_drop_oldest_passes_over_terminal_events(self) -> None:
        box = mailbox("drop_oldest", capacity=2)
        put(box, letter(0, Event.TRAIN_BEGIN), letter(1), letter(2))
        assert numbers(box) == [0, 2]

    def test_drop_oldest_drops_the_new_letter_where_only_terminal_ones_wait(self) -> None:
        box = mailbox("drop_oldest", capacity=2)
        put(box, letter(0, Event.TRAIN_BEGIN), letter(1, Event.SAVE), letter(2))
        assert numbers(box) == [0, 1]
        assert box.dropped == 1


class TestComplaint:
    def test_the_owner_hears_once_that_the_mailbox_is_full(self) -> None:
        complaints: list[str] = []
        box = Mailbox(1, "drop_newest", lambda: complaints.append("full"))
        put(box, *map(letter, range(5)))
        assert complaints == ["full"]

    def test_a_terminal_event_beyond_the_limits_is_no_complaint(self) -> None:
        box = Mailbox(1, "drop_newest", never_wakes)
        put(box, letter(0), letter(1, Event.SAVE))
        assert len(box) == 2


class TestStopping:
    def test_a_stopped_mailbox_drops_and_counts(self) -> None:
        box = mailbox("block")
        box.stopped = True
        put(box, letter(0), letter(1, Event.TRAIN_END))
        assert (len(box), box.dropped) == (0, 2)

    def test_stopping_frees_who_waits_for_room(self) -> None:
        box = mailbox("block")
        put(box, *map(letter, range(4)))
        waits = threading.Event()
        thread = threading.Thread(target=lambda: box.put(letter(4), waits.set), daemon=True)
        thread.start()
        assert waits.wait(5.0)

        box.stopped = True

        thread.join(5.0)
        assert not thread.is_alive()
        assert (len(box), box.dropped) == (4, 1)


events = st.sampled_from([Event.LOG, Event.STEP_END, Event.SAVE, Event.TRAIN_END])
puts = st.tuples(events, st.integers(1, 120))


@given(
    st.sampled_from(["drop_oldest", "drop_newest", "raise"]),
    st.lists(st.one_of(puts, st.just("take")), max_size=80),
)
@settings(deadline=None, max_examples=300)
def test_order_counts_and_limits_hold_for_any_puts_and_takes(
    policy: str, steps: list[tuple[Event, int] | str]
) -> None:
    box = mailbox(policy)
    offered: list[Letter] = []
    taken: list[Letter] = []
    for step in steps:
        if isinstance(step, str):
            if (each := box.take()) is not None:
                taken.append(each)
            continue
        event, weight = step
        offered.append(letter(len(offered), event, weight))
        try:
            put(box, offered[-1])
        except MailboxFullError:
            assert policy == "raise"
        waiting = [each for each in box._letters if each.event not in TERMINAL]
        assert len(waiting) <= CAPACITY
        assert sum(each.weight for each in waiting) <= MAX_BYTES
    while (each := box.take()) is not None:
        taken.append(each)
    order = [each.time for each in taken]
    assert order == sorted(order)
    assert len(taken) + box.dropped == len(offered)
    assert {each.time for each in offered if each.event in TERMINAL} <= set(order)


def test_two_threads_lose_nothing_and_keep_the_order() -> None:
    box = mailbox("block", capacity=7)
    count = 2000
    taken: list[int] = []
    bell = threading.Event()

    def consume() -> None:
        while len(taken) < count:
            bell.wait(0.01)
            bell.clear()
            taken.extend(numbers(box))

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    for number in range(count):
        box.put(letter(number), bell.set)
    eventually(lambda: len(taken) == count)
    thread.join()
    assert taken == list(range(count))


@pytest.mark.parametrize(
    ("payload", "least"),
    [
        ({}, 0),
        ({"text": "x" * 10_000}, 10_000),
        ({"logs": {"deep": {"text": "x" * 10_000}}}, 10_000),
        ({"blob": b"x" * 10_000}, 10_000),
        ({"numbers": [1.0] * 1000}, 8_000),
    ],
)
def test_the_weight_of_a_payload_covers_what_it_keeps_alive(
    payload: dict[str, object], least: int
) -> None:
    assert least < weigh(payload) < 20 * (least + 512)
