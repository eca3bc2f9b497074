"""
Send records to a server, in order and in batches.

Promises: a record is kept until the server has acknowledged it. `send` may therefore be called
again after any failure, and sends only the rest. If the server refuses a batch, or fails over it
again and again, the batch is halved until the record at fault is alone; the others are stored. A
record over which the server fails is given up only if the server keeps accepting others. A server
that accepts no record is waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from asynccb._ground.exceptions import FaultError, RejectedError
from asynccb.delivery.portion import Portion

R = TypeVar("R")

Post: TypeAlias = Callable[[Sequence[R]], Awaitable[None]]
Refuse: TypeAlias = Callable[[R, RejectedError], None]
Verify: TypeAlias = Callable[[], Awaitable[object]]

PATIENCE: Final = 3
"""Failures in a row over a batch before the batch is halved."""
PROOFS: Final = 4
"""Times that a record must fail alone, with another passing right after, to be given up."""

LONE: Final = 12
"""Times that a record must fail if others have passed before, but no other is left to try."""


def json_size(record: object) -> int:
    """Return the bytes that a record occupies in a JSON array."""
    return len(msgspec.json.encode(record)) + 1


class Queue(Generic[R]):
    """
    Records that wait, and are sent at most `count` and `size` bytes at a time.

    `measure` returns a record's bytes. None leaves the bytes uncounted, for records of which
    `count` can never be too many. A record larger than `size` is sent alone. `repeatable` means
    that the server accepts a record that it already has, without effect. Then, if no other record
    waits, the last accepted record is sent again to find out whether the server accepts any.
    """

    def __init__(
        self,
        count: int,
        *,
        size: int = 0,
        measure: Callable[[R], int] | None = None,
        repeatable: bool = False,
    ) -> None:
        self._count = count
        self._size = size
        self._measure = measure
        self._repeatable = repeatable
        self._records: list[R] = []
        self._taken: R | None = None
        self._portion = Portion()
        self._failures = 0  # in a row
        self._proofs = 0  # against the first record
        self._given_up = 0

    def __len__(self) -> int:
        return len(self._records)

    def extend(self, records: Iterable[R]) -> None:
        """Append records."""
        self._records.extend(records)

    def forget(self, stored: Callable[[Sequence[R]], Collection[int]]) -> None:
        """Drop the records that the server already has: `stored` returns their indices."""
        places = stored(self._records)
        self._records = [r for place, r in enumerate(self._records) if place not in places]

    async def send(self, post: Post[R], refuse: Refuse[R], verify: Verify | None = None) -> None:
        """
        Send everything: await `post` with each batch, and drop the batch when `post` returns.

        A `RejectedError` from `post` halves the batch; `refuse` receives each record that is
        refused alone. `verify` is awaited before a batch is halved for the first time, and raises
        if the records' destination is at fault rather than the records. A `FaultError` is passed on
        the first few times, because the server may recover. Then the batch is halved, too, and
        `refuse` receives the record that fails alone while others pass; the others may overtake it.
        Any other error of `post` is passed on, and the remaining records stay.
        """
        while self._records:
            count = self._batch()
            try:
                await self._send_first(count, post, refuse, verify)
            except FaultError as error:
                await self._doubt(count, error, post, refuse)

    def _batch(self) -> int:
        """Return the number of records for the next request."""
        most = min(self._portion.limit or self._count, self._count, len(self._records))
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
        """Send the first `count` records, by halves if they are refused."""
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
        else:
            self._taken = self._records[count - 1]
            self._portion.grow(self._count)
        self._failures = self._proofs = 0
        del self._records[:count]

    # -- a server that fails -----------------------------------------------------------------------

    async def _doubt(self, count: int, error: FaultError, post: Post[R], refuse: Refuse[R]) -> None:
        """Halve the failed batch, or give up its record; raise `error` if either is too early."""
        self._failures += 1
        searching = self._portion.limit is not None or self._given_up
        if error.retry_after is not None or (self._failures < PATIENCE and not searching):
            raise error
        if count > 1:
            self._portion.shrink(count)
            return
        passed = await self._takes_another(post)
        self._proofs += passed
        none_left = len(self._records) == 1 and not self._repeatable
        if self._proofs >= PROOFS or (self._proofs and none_left and self._failures >= LONE):
            self._give_up(error, refuse)
        elif not passed or not self._given_up:
            raise error

    async def _takes_another(self, post: Post[R]) -> bool:
        """Return whether the server accepts a record other than the first."""
        others = len(self._records) - 1
        if others:
            place = 1 + self._failures % others
            if await self._takes(self._records[place], post):
                del self._records[place]
                return True
        return self._taken is not None and self._repeatable and await self._takes(self._taken, post)

    async def _takes(self, record: R, post: Post[R]) -> bool:
        try:
            await post([record])
        except (FaultError, RejectedError):
            return False
        self._taken = record
        return True

    def _give_up(self, error: FaultError, refuse: Refuse[R]) -> None:
        why = f"{error} (again and again, while the server accepted other records)"
        refuse(self._records.pop(0), RejectedError(why, status=error.status, code=error.code))
        self._given_up += 1
        self._failures = self._proofs = 0
        self._portion.forgive()
