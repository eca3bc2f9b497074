"""Queues of records: batches, splitting, and going on after a failure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.queue import Queue, json_size


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
