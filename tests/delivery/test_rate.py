"""Staying below a rate."""

from __future__ import annotations

import time

import anyio
import pytest

from asynccb._ground.exceptions import ConfigurationError
from asynccb.delivery.rate import Bucket


async def test_a_full_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(50.0, 10.0)
    begin = time.monotonic()
    for _ in range(10):
        await bucket.take()
    await bucket.take(10.0)
    assert time.monotonic() - begin >= 0.15


async def test_several_that_take_share_the_rate() -> None:
    bucket = Bucket(50.0)
    begin = time.monotonic()
    async with anyio.create_task_group() as group:
        for _ in range(11):
            group.start_soon(bucket.take)
    assert time.monotonic() - begin >= 0.15


async def test_more_than_the_burst_can_be_taken_at_once() -> None:
    bucket = Bucket(1000.0, 10.0)
    begin = time.monotonic()
    await bucket.take(210.0)
    assert time.monotonic() - begin >= 0.15


async def test_a_bucket_says_how_much_can_be_taken_without_a_wait() -> None:
    bucket = Bucket(0.001, 10.0)
    assert bucket.spare == 10
    await bucket.take(7.0)
    assert bucket.spare == 3
    async with anyio.create_task_group() as group:
        group.start_soon(bucket.take, 5.0)
        await anyio.lowlevel.checkpoint()
        assert bucket.spare == 0  # two are lent
        group.cancel_scope.cancel()


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_that_lets_nothing_through_is_refused(per_second: float, burst: float) -> None:
    with pytest.raises(ConfigurationError, match="lets nothing through"):
        Bucket(per_second, burst)
