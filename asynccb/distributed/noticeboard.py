"""
Short notes between ranks in the process group's store, without a collective.

Promises: reading never waits for a note to be written. Notes of two boards never mix. A call under
`within` returns in time even if the process that keeps the store is stopped, which a connection to
it does not notice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

LOST: Final = (RuntimeError, TimeoutError)
"""The errors of a call if the store is gone or, under `within`, does not answer."""


class Noticeboard:
    """
    Notes that every rank can read and write; each call is one or two round trips of 0.1 ms.

    Several threads may use it. Torch's errors, all of them RuntimeErrors, are not caught.
    """

    def __init__(self, rank: int, world: int) -> None:
        """
        Open a separate connection to the store of the process group.

        The n-th board that one rank opens is also the n-th of every other rank, so all ranks must
        open their boards in the same order.
        """
        import torch.distributed as dist

        c10d: Any = dist.distributed_c10d
        self.rank = rank
        self.world = world
        ours = c10d.PrefixStore("asynccb", c10d._get_default_store())
        if hasattr(ours, "clone"):  # before torch 2.8 there is one connection, one call at a time
            ours = ours.clone()
        number = ours.add(f"boards/{rank}", 1)
        self._store = c10d.PrefixStore(f"board-{number}", ours)

    def write(self, name: str, text: str) -> None:
        """Write a note; replace an earlier note of that name."""
        self._store.set(name, text)

    def read(self, name: str) -> str | None:
        """Return the note of that name, or None."""
        return self._store.get(name).decode() if self._store.check([name]) else None

    def read_all(self, names: list[str]) -> list[str] | None:
        """Return the notes of these names, or None if any is missing."""
        if not self._store.check(names):
            return None
        return [note.decode() for note in self._store.multi_get(names)]

    def first(self, name: str, text: str) -> str:
        """Write a note unless that name has one already; return the name's note afterwards."""
        note: bytes = self._store.compare_set(name, "", text)
        return note.decode()

    def add(self, name: str, amount: int) -> int:
        """Add to a count that starts at 0, and return the sum."""
        count: int = self._store.add(name, amount)
        return count


def keeper() -> str:
    """Return the process that keeps the store, as the subject of an error's text."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return "the torchrun that keeps the store of the process group"
    return "rank 0, which keeps the store of the process group,"


def within(seconds: float, call: Callable[[], T]) -> T:
    """
    Return the call's result, or raise `TimeoutError` after this many seconds.

    After a time-out the call continues in a daemon thread, which nobody waits for. Ctrl-C ends the
    wait at once.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except LOST as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="asynccb-store", daemon=True).start()
    return answer.result(max(0.0, seconds))


def name_ranks(ranks: list[int]) -> str:
    """Return 'rank 2' or 'ranks 2, 3'."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
