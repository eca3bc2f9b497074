"""
Copies values from devices into slots that the companion reads, without waiting.

Promises: one launch for each dtype of a log, however many scalars it has, on the training's stream,
and no other call to the device. A value is the tensor's content at the time of the log, whatever is
written to the tensor later. Nothing is allocated on the device. The training thread waits only if
every slot is in use, and only under `overflow = "block"`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch

from asynccb._compiled.shared import Shared
from asynccb._ground.exceptions import ConfigurationError, MailboxFullError
from asynccb._ground.types import Overflow
from asynccb._ring.slots import COUNT, Kind, Slots
from asynccb._staging.log_form import Form, kind_of
from asynccb._staging.pinned import PinnedSlots
from asynccb._staging.staged import StagedLog

logger = logging.getLogger("asynccb")

_ALIKE: Final = 64
"""Most logs read together."""
_PAUSE: Final = 0.0001
_LOOK: Final = 1.0
"""Seconds of waiting between two checks of whether the device still works."""


class DeviceStaging:
    """The training process's use of the pinned slots; only `settle` may run on other threads."""

    def __init__(
        self, slots: Slots, consumed: Callable[[], int], overflow: Overflow, shared: Shared
    ) -> None:
        """
        Take the slots; `consumed` returns the position below which the companion has read.

        `shared` has the positions of the slots, which compiled code also moves.
        """
        self._slots = slots
        self._consumed = consumed
        self._overflow = overflow
        self._pinned = PinnedSlots(slots.memory)
        self._views: dict[tuple[int, bool], list[torch.Tensor]] = {}
        """0-d tensors of the slots, by device and by whether they hold floats."""
        self.pending: deque[StagedLog] = deque()
        """Logs that have not landed, in the order of their slots."""
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._shared = shared
        self._settled = 0
        self._empty_read()
        self.dropped = 0
        """Number of values dropped because every slot was in use."""
        self.blocked = 0.0
        """Seconds that the training thread has waited for slots, or for numbers it asked for."""

    def stage(self, form: Form, tensors: tuple[torch.Tensor, ...]) -> StagedLog | None:
        """
        Start copying the tensors of a log to slots; return None if the slots are full.

        Raises `ConfigurationError` while the stream is being captured, `MailboxFullError` if the
        slots are full under `overflow = "raise"`, and RuntimeError for tensors that the device
        refuses.
        """
        if torch._C._cuda_isCurrentStreamCapturing():
            raise ConfigurationError(
                "logging a tensor of the device while a CUDA graph is captured would put the copy "
                "into the graph; log the graph's output after its replay"
            )
        count = form.layout.count
        position = self._find_room(count)
        if position is None:
            self.dropped += count
            return None
        # Even if a copy raises: its values must not be mistaken for a later log's.
        self._shared.next_slot = position + count
        place = position % COUNT
        if form.requires_grad:
            tensors = tuple([tensor.detach() for tensor in tensors])
        for device, floating, first, last in form.groups:
            views = self._views.get((device, floating)) or self._find_views(device, floating)
            torch._foreach_copy_(views[place + first : place + last], tensors[first:last])
        if form.rows:
            self._put_rows(place, form, tensors)
        log = StagedLog(position, form.layout, self.arrive, self.settle)
        self.pending.append(log)
        return log

    @property
    def address(self) -> int:
        """Address of the slots that devices write to, the same for every device."""
        return self._pinned.address

    def check(self) -> None:
        """Raise the device's error if the device has failed; waits for nothing."""
        torch.cuda.current_stream().query()

    def settle(self) -> None:
        """Read all values that have landed; only looks at memory, so any thread may call it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            while self.pending and self._take_in(self._alike()):
                pass
        finally:
            self._lock.release()

    def finish(self, deadline: float) -> bool:
        """Wait until all values have landed; return False at the deadline or on a device error."""
        try:
            for now in self._waiting():
                if now > deadline:
                    return False
        except RuntimeError as error:
            logger.error("%d logs are lost: the device has failed (%s)", len(self.pending), error)
            return False
        return True

    def close(self) -> None:
        """Unpin the slots, unless values are still on their way to them."""
        if not self.pending:
            self._views.clear()
            self._pinned.close()

    def _find_views(self, device: int, floating: bool) -> list[torch.Tensor]:
        views = self._pinned.on(device).each(floating=floating)
        self._views[device, floating] = views
        return views

    def _put_rows(self, place: int, form: Form, tensors: Sequence[torch.Tensor]) -> None:
        """Copy the rows, the last of a log's tensors; the log's slots begin at `place`."""
        for index in range(len(tensors) - form.rows, len(tensors)):
            row = tensors[index].reshape(-1)
            start = place + form.layout.offsets[index]
            floating = kind_of(row.dtype) == Kind.FLOAT
            self._pinned.on(row.get_device()).row(start, len(row), floating=floating).copy_(row)

    def _find_room(self, count: int) -> int | None:
        """Return the position of `count` free slots in a row; wait if that is the policy."""
        position = self._shared.next_slot
        if position % COUNT + count > COUNT:
            position += COUNT - position % COUNT
        end = position + count
        if end > self._shared.free_slot:
            self._empty_read()
        return position if end <= self._shared.free_slot or self._wait(end) else None

    def _empty_read(self) -> None:
        """Empty the slots that both processes have read since the last time."""
        # Empty many at once, once a lap: emptying slots for each log would slow its path down.
        self.settle()
        settled = self._settled if self.pending else self._shared.next_slot
        free = min(settled, self._consumed()) + COUNT
        while self._shared.free_slot < free:
            place = self._shared.free_slot % COUNT
            count = min(free - self._shared.free_slot, COUNT - place)
            self._slots.clear(place, count)
            self._pinned.clear(place, count)
            self._shared.free_slot += count

    def _wait(self, end: int) -> bool:
        """Wait until the slots below `end` are free; return False if the policy is to drop."""
        if self._overflow == "raise":
            raise MailboxFullError(
                f"{COUNT} values are on their way from the device; log less often, or choose an "
                "overflow policy other than 'raise'"
            )
        if self._overflow != "block":
            return False
        begin = time.monotonic()
        while end > self._shared.free_slot:
            time.sleep(_PAUSE)
            self._empty_read()
        self.blocked += time.monotonic() - begin
        return True

    def _alike(self) -> list[StagedLog]:
        """Return the first pending log, and logs of the same layout in the slots right after it."""
        pending = self.pending
        logs = [pending[0]]
        layout = logs[0].layout
        end = logs[0].position + layout.count
        for index in range(1, min(len(pending), _ALIKE)):
            log = pending[index]  # the training thread may append meanwhile
            if log.layout is not layout or log.position != end or not end % COUNT:
                break
            logs.append(log)
            end += layout.count
        return logs

    def _take_in(self, logs: list[StagedLog]) -> bool:
        """Read the values of logs of one layout; return False if the first has not landed."""
        first, count = logs[0].position, logs[0].layout.count
        if self._pinned.mirrors:
            self._pinned.mirror(first % COUNT, count * len(logs))
        while not self._slots.landed(first, count * len(logs)):
            if len(logs) == 1:
                return False
            del logs[(len(logs) + 1) // 2 :]
        read = logs[0].layout.read(self._slots, first, len(logs))
        for log, values in zip(logs, read, strict=True):
            log.take(values)
            self.pending.popleft()
        self._settled = first + count * len(logs)
        return True

    def arrive(self, log: StagedLog) -> None:
        """Wait for a log to land; raise the device's error if the device has failed."""
        begin = time.monotonic()
        for _ in self._waiting():
            if log.values is not None:
                break
        self.blocked += time.monotonic() - begin

    def _waiting(self) -> Iterator[float]:
        """
        Read values as they land until all have landed; yield the monotonic time between reads.

        On the training thread, checks every second whether the device still works. Without the
        check, a failed kernel would be waited for endlessly.
        """
        asks = threading.get_ident() == self._thread
        look = time.monotonic() + _LOOK
        self.settle()
        while self.pending:
            now = time.monotonic()
            yield now
            if asks and now > look:
                look = now + _LOOK
                self.check()
            time.sleep(_PAUSE)
            self.settle()
