"""Queues of records: batches, splitting, and going on after a failure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ground.exceptions import AccessError, FaultError, RejectedError, TransientError
from asynccb.delivery.queue import PATIENCE, PROOFS, Queue, json_size


class Server:
    """Store what is posted; refuse batches with a bad record, and fail when told to."""

    def __init__(self, bad: set[int] = frozenset(), failures: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.bad = bad
        self.failures = failures
        self.calls = 0
        self.stored: list[int] = []
        self.batches: list[int] = []
        self.refused: list[int] = []

    async def post(self, batch: Sequence[int]) -> None:
        self.calls += 1
        if self.calls in self.failures:
            raise TransientError("away")
        if self.bad & set(batch):
            raise RejectedError("400", status=400)
        self.stored += batch
        self.batches.append(len(batch))

    def refuse(self, record: int, error: RejectedError) -> None:
        self.refused.append(record)


def filled(count: int, most: int) -> Queue[int]:
    queue = Queue[int](most)
    queue.extend(range(count))
    return queue


async def test_records_go_in_order_in_batches_of_the_limit() -> None:
    server, queue = Server(), filled(25, 10)
    await queue.send(server.post, server.refuse)
    assert server.batches == [10, 10, 5]
    assert server.stored == list(range(25))
    assert not queue


async def test_what_the_server_turns_out_to_have_is_not_sent() -> None:
    server, queue = Server(), filled(10, 4)
    queue.forget(lambda records: {place for place, record in enumerate(records) if record < 7})
    await queue.send(server.post, server.refuse)
    assert server.stored == [7, 8, 9]


async def test_an_empty_queue_sends_nothing() -> None:
    server = Server()
    await filled(0, 10).send(server.post, server.refuse)
    assert server.calls == 0


async def test_a_batch_keeps_below_its_bytes_and_a_large_record_goes_alone() -> None:
    batches: list[list[str]] = []

    async def post(batch: Sequence[str]) -> None:
        batches.append(list(batch))

    queue = Queue[str](10, size=20, measure=json_size)
    queue.extend(["a" * 5, "b" * 5, "c" * 5, "d" * 100, "e"])
    await queue.send(post, lambda record, error: None)
    assert [len(batch) for batch in batches] == [2, 1, 1, 1]


async def test_a_failure_keeps_the_rest_for_the_next_time() -> None:
    server, queue = Server(failures={2}), filled(25, 10)
    with pytest.raises(TransientError):
        await queue.send(server.post, server.refuse)
    assert len(queue) == 15
    await queue.send(server.post, server.refuse)
    assert server.stored == list(range(25))


@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.sets(st.integers(0, 59), max_size=8),
    st.sets(st.integers(1, 80), max_size=10),
)
async def test_whatever_fails_each_record_is_stored_or_refused_once_and_in_order(
    count: int, most: int, bad: set[int], failures: set[int]
) -> None:
    server, queue = Server(bad, failures), filled(count, most)
    while queue:
        try:
            await queue.send(server.post, server.refuse)
        except TransientError:
            continue
    assert server.stored == [n for n in range(count) if n not in bad]
    assert server.refused == [n for n in range(count) if n in bad]


async def test_one_bad_record_of_a_thousand_costs_few_requests() -> None:
    server, queue = Server({617}), filled(1000, 1000)
    await queue.send(server.post, server.refuse)
    assert server.refused == [617]
    assert server.calls <= 2 * 10 + 1


async def test_it_is_verified_once_before_a_batch_is_split() -> None:
    verified: list[int] = []

    async def verify() -> None:
        verified.append(1)

    server, queue = Server({3, 15}), filled(20, 10)
    await queue.send(server.post, server.refuse, verify)
    assert len(verified) == 2
    assert server.refused == [3, 15]


async def test_a_target_that_is_gone_leaves_all_records_in_the_queue() -> None:
    async def verify() -> None:
        raise AccessError("the run is gone")

    server, queue = Server({3}), filled(20, 10)
    with pytest.raises(AccessError):
        await queue.send(server.post, server.refuse, verify)
    assert len(queue) == 20
    assert server.refused == []


class Failing(Server):
    """Fail over batches with a bad record as over any other while it is down."""

    down = False

    async def post(self, batch: Sequence[int]) -> None:
        self.calls += 1
        if self.down or self.bad & set(batch):
            raise FaultError("500: oops", status=500)
        self.stored += batch
        self.batches.append(len(batch))

    async def deliver(self, queue: Queue[int], attempts: int) -> int:
        """Send until all is sent, as a lane does; return how often there was to be waited."""
        for waited in range(attempts):
            try:
                await queue.send(self.post, self.refuse)
            except FaultError:
                continue
            return waited
        return attempts


class TestServersThatFail:
    async def test_a_record_that_fails_alone_while_others_pass_is_given_up(self) -> None:
        server, queue = Failing({617}), filled(1000, 1000)
        waited = await server.deliver(queue, 20)
        assert server.refused == [617]
        assert sorted(server.stored) == [n for n in range(1000) if n != 617]
        assert waited == PATIENCE - 1 + PROOFS - 1
        assert server.calls < 60

    async def test_why_it_is_given_up_is_what_the_server_said(self) -> None:
        server, queue = Failing({1}), filled(3, 10)
        said: list[RejectedError] = []
        for _ in range(20):
            with suppress(FaultError):
                await queue.send(server.post, lambda record, error: said.append(error))
        (error,) = said
        assert "500: oops" in str(error)
        assert error.status == 500

    async def test_a_server_that_takes_nothing_is_waited_for(self) -> None:
        server, queue = Failing(), filled(1000, 1000)
        server.down = True
        assert await server.deliver(queue, 200) == 200
        assert len(queue) == 1000
        assert server.calls <= 3 * 200
        server.down = False
        assert await server.deliver(queue, 1) == 0
        assert server.refused == []
        assert server.stored == list(range(1000))
        assert max(server.batches) > 200

    async def test_a_few_failures_halve_nothing(self) -> None:
        server, queue = Failing(), filled(10, 10)
        server.down = True
        assert await server.deliver(queue, PATIENCE - 1) == PATIENCE - 1
        server.down = False
        await server.deliver(queue, 1)
        assert server.batches == [10]

    async def test_what_the_server_asks_to_wait_for_halves_nothing(self) -> None:
        async def later(batch: Sequence[int]) -> None:
            sizes.append(len(batch))
            raise FaultError("503", status=503, retry_after=1.0)

        sizes: list[int] = []
        queue = filled(10, 10)
        for _ in range(20):
            with pytest.raises(FaultError):
                await queue.send(later, lambda record, error: None)
        assert sizes == [10] * 20

    async def test_a_record_that_waits_alone_is_given_up_where_one_taken_before_is_taken_again(
        self,
    ) -> None:
        for repeatable, refused in [(True, [1]), (False, [])]:
            server, queue = Failing({1}), Queue[int](10, repeatable=repeatable)
            queue.extend([0])
            await queue.send(server.post, server.refuse)
            queue.extend([1])
            await server.deliver(queue, 50)
            assert server.refused == refused

    async def test_a_server_that_fails_over_large_batches_gets_smaller_ones(self) -> None:
        async def small_only(batch: Sequence[int]) -> None:
            sizes.append(len(batch))
            if len(batch) > 100:
                raise FaultError("504", status=504)
            stored.extend(batch)

        sizes: list[int] = []
        stored: list[int] = []
        queue, failures = filled(5000, 1000), 0
        while queue:
            try:
                await queue.send(small_only, lambda record, error: None)
            except FaultError:
                failures += 1
        assert failures == PATIENCE - 1
        assert stored == list(range(5000))
        assert sum(size > 100 for size in sizes) < len(sizes) / 4

    @given(
        st.integers(2, 60),
        st.integers(1, 20),
        st.sets(st.integers(0, 59), max_size=20),
        st.lists(st.booleans(), max_size=60),
    )
    async def test_each_record_is_stored_once_or_was_bad(
        self, count: int, most: int, bad: set[int], down: list[bool]
    ) -> None:
        server, queue = Failing(bad - {0}), filled(count, most)
        server.bad &= set(range(count))
        queue._repeatable = True
        for server.down in [*down, *[False] * 400]:
            with suppress(FaultError):
                await queue.send(server.post, server.refuse)
        assert not queue
        assert sorted(set(server.stored)) == sorted(set(range(count)) - server.bad)
        assert sorted(server.refused) == sorted(server.bad)
