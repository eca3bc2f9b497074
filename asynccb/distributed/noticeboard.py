"""
What ranks tell one another outside a collective: short notes in the process group's store.

Promises: reading never waits for a note to come; notes of two boards never mix; a call under
`within` comes back in time even where the process that keeps the store is stopped, which a
connection to it does not notice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

LOST: Final = (RuntimeError, TimeoutError)
"""What a call raises when the store is gone or, under `within`, does not answer."""


class Noticeboard:
    """
    Read and write notes that every rank sees; each call is one or two round trips of 0.1 ms.

    May be used by several threads. Torch's errors (a RuntimeError each) come through.
    """

    def __init__(self, rank: int, world: int) -> None:
        """
        Open a connection of its own to the store of the process group.

        The n-th board that one rank opens is the n-th of every other: all open theirs in one order.
        """
        import torch.distributed as dist

        c10d: Any = dist.distributed_c10d
        self.rank = rank
        self.world = world
        ours = c10d.PrefixStore("asynccb", c10d._get_default_store())
        if hasattr(ours, "clone"):  # torch before 2.8 has one connection, for one call at a time
            ours = ours.clone()
        number = ours.add(f"boards/{rank}", 1)
        self._store = c10d.PrefixStore(f"board-{number}", ours)

    def write(self, name: str, text: str) -> None:
        """Write a note, over an earlier one of that name."""
        self._store.set(name, text)

    def read(self, name: str) -> str | None:
        """Return the note of that name, or None when there is none."""
        return self._store.get(name).decode() if self._store.check([name]) else None

    def read_all(self, names: list[str]) -> list[str] | None:
        """Return the notes of those names, or None when any is missing."""
        if not self._store.check(names):
            return None
        return [note.decode() for note in self._store.multi_get(names)]

    def first(self, name: str, text: str) -> str:
        """Write a note where there is none of that name; return the one that is there then."""
        note: bytes = self._store.compare_set(name, "", text)
        return note.decode()

    def add(self, name: str, amount: int) -> int:
        """Add to a count that begins with 0, and return it."""
        count: int = self._store.add(name, amount)
        return count


def keeper() -> str:
    """Return who keeps the store, as a subject for an error's text."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return "the torchrun that keeps the store of the process group"
    return "rank 0, which keeps the store of the process group,"


def within(seconds: float, call: Callable[[], T]) -> T:
    """
    Return what the call returns, or raise `TimeoutError` after so many seconds.

    The call then goes on in a daemon thread, which nobody waits for. Ctrl-C cuts it short.
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
