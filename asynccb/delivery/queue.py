"""
Records on their way to a server, in order and in batches.

Promises: a record is kept until the server has acknowledged it, so that `send` may be called again
after any failure and sends no more than the rest; a batch that the server refuses is halved until
the record that it does not take is alone, and the others are stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

import msgspec

from asynccb._exceptions import RejectedError

R = TypeVar("R")

Post: TypeAlias = Callable[[Sequence[R]], Awaitable[None]]
Refuse: TypeAlias = Callable[[R, RejectedError], None]
Verify: TypeAlias = Callable[[], Awaitable[object]]


def json_size(record: object) -> int:
    """Return the bytes that a record takes in a JSON array."""
    return len(msgspec.json.encode(record)) + 1


class Queue(Generic[R]):
    """
    Gather records and send them, at most `count` and `size` bytes at a time.

    `measure` returns a record's bytes; None leaves the bytes uncounted, where `count` records can
    never be too many. A record larger than `size` goes alone.
    """

    def __init__(
        self, count: int, *, size: int = 0, measure: Callable[[R], int] | None = None
    ) -> None:
        self._count = count
        self._size = size
        self._measure = measure
        self._records: list[R] = []

    def __len__(self) -> int:
        return len(self._records)

    def extend(self, records: Iterable[R]) -> None:
        """Add records behind the others."""
        self._records.extend(records)

    async def send(self, post: Post[R], refuse: Refuse[R], verify: Verify | None = None) -> None:
        """
        Send everything: await `post` with each batch, and drop it when that returns.

        A `RejectedError` from it halves the batch; `refuse` gets each record that is refused alone.
        `verify` is awaited before a batch is halved for the first time, and raises where not the
        records are at fault, but what they are sent to. Any other error of `post` passes, and the
        rest stays.
        """
        while self._records:
            await self._send_first(self._batch(), post, refuse, verify)

    def _batch(self) -> int:
        """Return how many records the next request takes."""
        most = min(self._count, len(self._records))
        if self._measure is None:
            return most
        total = 0
        for number, record in enumerate(self._records[:most]):
            total += self._measure(record)
            if total > self._size and number:
                return number
        return most

    async def _send_first(
        self, count: int, post: Post[R], refuse: Refuse[R], verify: Verify | None
    ) -> None:
        """Send the first `count` records, by halves where they are refused."""
        try:
            await post(self._records[:count])
        except RejectedError as error:
            if verify is not None:
                await verify()
            if count > 1:
                half = count // 2
                await self._send_first(half, post, refuse, None)
                await self._send_first(count - half, post, refuse, None)
                return
            refuse(self._records[0], error)
        del self._records[:count]
