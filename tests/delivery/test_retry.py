"""Trying again until a server has acknowledged."""

from __future__ import annotations

import time
from collections.abc import Iterator

import anyio
import pytest
import stamina

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.retry import FIRST_WAIT, until_acknowledged


@pytest.fixture
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1000):
        yield


class Server:
    """Refuse with the given errors, one after another, then take everything."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.heard: list[TransientError] = []

    async def attempt(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)

    async def run(self) -> None:
        await until_acknowledged(self.attempt, self.heard.append)


async def test_what_succeeds_is_called_once() -> None:
    server = Server()
    await server.run()
    assert (server.calls, server.heard) == (1, [])


@pytest.mark.usefixtures("_no_waits")
async def test_a_transient_error_is_tried_again_until_it_passes_and_each_is_heard() -> None:
    errors = [TransientError(str(number)) for number in range(50)]
    server = Server(*errors)
    await server.run()
    assert server.calls == 51
    assert server.heard == errors


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("error", [RejectedError("no"), AccessError("no"), RuntimeError("bug")])
async def test_any_other_error_ends_it_unheard(error: Exception) -> None:
    server = Server(TransientError("first"), error)
    with pytest.raises(type(error)) as caught:
        await server.run()
    assert caught.value is error
    assert server.calls == 2
    assert len(server.heard) == 1


async def test_waiting_for_the_next_try_can_be_cancelled() -> None:
    server = Server(*(TransientError("away", retry_after=1000.0) for _ in range(3)))
    with anyio.fail_after(5), anyio.move_on_after(0.05) as scope:
        await server.run()
    assert scope.cancelled_caught
    assert server.calls == 1


async def test_what_the_server_asked_for_is_waited_for() -> None:
    server = Server(TransientError("busy", retry_after=0.5))
    begin = time.monotonic()
    await server.run()
    assert time.monotonic() - begin >= 0.5
    assert server.calls == 2


async def test_a_server_that_asks_for_no_wait_is_not_hammered() -> None:
    server = Server(TransientError("busy", retry_after=0.0))
    begin = time.monotonic()
    await server.run()
    assert time.monotonic() - begin >= FIRST_WAIT
