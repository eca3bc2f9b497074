"""
The training thread's end of the ring, and the policies for a full ring.

Promises: `put` costs a few microseconds while the companion keeps up. An event that begins, ends or
steers a run, or asks for a decision, is never dropped. After the companion's last death everything
is dropped and counted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from asynccb._compiled.shared import Shared
from asynccb._ground.exceptions import MailboxFullError
from asynccb._ground.types import Overflow
from asynccb._publishing.companion import Companion
from asynccb._ring.record import NEVER_DROPPED
from asynccb._staging.staging import Staging

logger = logging.getLogger("asynccb")

_STEP: Final = 2
"""Place of the step in a record."""
_STEPS: Final = range(-(2**63), 2**64)
_WITHOUT_TICKET: Final = 9
"""Fields of a record that no decision is waited for."""


class Outlet:
    """Write records into a companion's ring."""

    def __init__(
        self,
        companion: Companion,
        staging: Staging,
        overflow: Overflow,
        capacity: int,
        on_drop: Callable[[], None],
        shared: Shared,
    ) -> None:
        """
        Write to the companion's ring.

        `overflow` is the policy for a full ring. `"drop_oldest"` keeps up to `capacity` records
        beside it, and then sets `shared.held`. `on_drop` is called for each record that is dropped.
        """
        self._companion = companion
        self._write = companion.ring.write
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._encode_object).encode
        self._refers = False
        """Whether the encoder has written a reference to a slot into the present record."""
        self._staging = staging
        self._plain = staging.plain
        self._overflow = overflow
        self._capacity = capacity
        self.kept: deque[tuple[int, bytes, bool]] = deque()
        """Records that `"drop_oldest"` keeps until there is room."""
        self._on_drop = on_drop
        self._shared = shared
        self._complained = False
        self.dropped = 0
        self.blocked = 0.0
        """Seconds for which the training thread waited for room."""

    def put(self, record: tuple[Any, ...], staged: bool = False) -> bool:
        """
        Write a record, or follow the policy, which may raise `MailboxFullError`.

        `staged` tells that logs in the record, packed already, refer to slots. Returns False if the
        record was dropped.
        """
        try:
            payload = self._encode(record)
            if self._refers:
                self._refers, staged = False, True
            if not self.kept and self._write(payload, staged=staged):
                return True
        except (ValueError, OverflowError, TypeError, RecursionError) as error:
            return self._put_anew(record, staged, error)
        return self._put_slowly(record, payload, staged)

    def _encode_object(self, value: Any) -> Any:
        plain = self._staging.plain_object(value)
        if type(plain) is msgspec.msgpack.Ext:
            self._refers = True
        return plain

    def _put_anew(self, record: tuple[Any, ...], staged: bool, error: Exception) -> bool:
        """Write a record that MessagePack or the ring refused, with its values made plain."""
        if record[_STEP] not in _STEPS:
            return self._drop(f"the step {record[_STEP]} is outside the 64 bits of a record")
        plain = tuple(self._plain(part) if isinstance(part, Mapping) else part for part in record)
        payload = self._staging.encode(plain, self._encode)
        staged, self._refers = staged or self._refers, False
        if len(payload) > self._companion.ring.largest:
            return self._drop(f"a record of {len(payload)} bytes is too large ({error})")
        return self._put_slowly(record, payload, staged)

    def settle(self) -> None:
        """Write what `"drop_oldest"` has kept, waiting for room."""
        while self.kept:
            _, payload, staged = self.kept.popleft()
            self._wait(payload, staged)
        self._shared.held = False

    def _put_slowly(self, record: tuple[Any, ...], payload: bytes, staged: bool) -> bool:
        policy, kind = self._overflow, record[0]
        asks = len(record) > _WITHOUT_TICKET
        while self.kept and self._write(self.kept[0][1], staged=self.kept[0][2]):
            self.kept.popleft()
        self._shared.held = bool(self.kept)
        if not self.kept and self._write(payload, staged=staged):
            return True
        if policy == "drop_oldest" and not asks:
            self._keep(kind, payload, staged)
            return True
        if policy == "block" or asks or kind in NEVER_DROPPED:
            self.settle()
            return self._wait(payload, staged)
        self._drop("the ring is full: the companion is behind")
        if policy == "raise":
            raise MailboxFullError(
                "the companion is behind and its ring is full; log less often or choose "
                "another overflow policy than 'raise'"
            )
        return False

    def _keep(self, kind: int, payload: bytes, staged: bool) -> None:
        self.kept.append((kind, payload, staged))
        self._shared.held = True
        if len(self.kept) > self._capacity:
            for place, (kept, _, _) in enumerate(self.kept):
                if kept not in NEVER_DROPPED:
                    del self.kept[place]
                    self._drop("the ring is full: the companion is behind")
                    return

    def _wait(self, payload: bytes, staged: bool) -> bool:
        if not self._companion.given_up:
            self._complain("the ring is full: training waits for the companion")
        begin = time.monotonic()
        written = self._companion.wait_for_room(lambda: self._write(payload, staged=staged))
        self.blocked += time.monotonic() - begin
        return written or self._drop("no companion is left to take them")

    def _drop(self, why: str) -> bool:
        self.dropped += 1
        self._on_drop()
        self._complain(f"events for the trackers are dropped: {why}")
        return False

    def _complain(self, what: str) -> None:
        if not self._complained:
            self._complained = True
            logger.warning("%s (said once; statistics() counts it)", what)
