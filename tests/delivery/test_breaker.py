"""Leaving a server alone that is down."""

from __future__ import annotations

import time

import anyio

from asynccb.delivery.breaker import Breaker


async def passed(breaker: Breaker, timeout: float = 0.02) -> bool:
    """Tell whether a request may be sent by now; it is answered by nobody."""
    with anyio.move_on_after(timeout):
        async with breaker.turn():
            return True
    return False


def wait_of(breaker: Breaker) -> float:
    """Return the seconds until somebody may try."""
    return breaker._closed_until - time.monotonic()


async def test_requests_pass_at_once_and_together_while_the_server_is_up() -> None:
    breaker = Breaker()
    async with breaker.turn(), breaker.turn(), breaker.turn():
        assert await passed(breaker)
    breaker.up()
    assert not breaker.is_open


async def test_after_a_failure_nobody_passes_for_a_while_and_then_one() -> None:
    breaker = Breaker()
    breaker.down(30.0)
    assert breaker.is_open
    assert not await passed(breaker)
    breaker._closed_until = 0.0
    async with breaker.turn():
        assert not await passed(breaker)


async def test_an_answer_lets_all_go_on() -> None:
    breaker = Breaker()
    breaker.down()
    through = 0

    async def wait_for_turn() -> None:
        nonlocal through
        async with breaker.turn():
            through += 1
            breaker.up()

    with anyio.fail_after(20.0):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(wait_for_turn)
    assert through == 20


async def test_one_that_is_cancelled_gives_its_turn_to_the_next() -> None:
    breaker = Breaker()
    breaker.down()
    with anyio.fail_after(20.0):
        async with anyio.create_task_group() as group:

            async def cancelled() -> None:
                async with breaker.turn():
                    group.cancel_scope.cancel()
                    await anyio.sleep_forever()

            group.start_soon(cancelled)
    assert await passed(breaker, 20.0)


async def test_failures_of_requests_under_way_together_count_as_one() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.down()
    assert wait_of(breaker) <= 0.2


async def test_the_wait_grows_with_each_failure_up_to_a_ceiling() -> None:
    breaker = Breaker()
    waits = []
    for _ in range(200):
        breaker._closed_until = 0.0
        breaker.down()
        waits.append(wait_of(breaker))
    assert waits[0] <= 0.2 < waits[3] <= 1.6 < waits[6] < max(waits) <= 15.0


async def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    breaker = Breaker()
    breaker.down(500.0)
    assert wait_of(breaker) > 400.0
