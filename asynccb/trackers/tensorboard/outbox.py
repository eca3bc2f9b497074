"""
The way of records into event files: gathered, then written in order, each once.

Promises: `flush` leaves every gathered record whole in its file, or raises and keeps what is left;
what has been written is overwritten with the same bytes, never appended to, when it is tried again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from asynccb.trackers.shared.offset_file import ShortFileError, write_at

logger = logging.getLogger("asynccb")

_HINT: Final = (
    "give a directory that can be made and written as logging_dir or in TENSORBOARD_LOGGING_DIR"
)

HIDE_NOTHING: Final = 2**62
"""A session's start at a step that no run reaches."""


@dataclass
class _Pending:
    """Hold records of one file that are not acknowledged yet."""

    file: str
    offset: int
    seconds: float
    """Unix time of the first of them."""
    data: bytearray = field(default_factory=bytearray)


class EventWriter:
    """Write records to `file` from `offset` on: after a flush, where the next record goes."""

    def __init__(self, file: str | None = None, offset: int = 0) -> None:
        self.file = file
        self.offset = offset
        self._outbox: list[_Pending] = []

    def begin(self, file: str, start: int, seconds: float) -> None:
        """Let the next records go to a new file; hide what older ones hold from `start` on."""
        from asynccb.trackers.tensorboard import values as records

        self.file, self.offset = file, 0
        header = bytearray(records.header(seconds, start))
        self._outbox.append(_Pending(file, 0, seconds, header))

    def add(self, record: bytes, seconds: float) -> None:
        """Gather a framed record of that time; a file must have been begun."""
        assert self.file is not None, "begin a file first"
        if not self._outbox:
            self._outbox.append(_Pending(self.file, self.offset, seconds))
        self._outbox[-1].data += record

    async def flush(self) -> None:
        """Write all, with one write per file; raises as `write_at` does."""
        while self._outbox:
            pending = self._outbox[0]
            try:
                await write_at(Path(pending.file), pending.offset, bytes(pending.data), hint=_HINT)
            except ShortFileError:
                self._relocate(pending)
                continue
            del self._outbox[0]
            self.file, self.offset = pending.file, pending.offset + len(pending.data)

    def _relocate(self, pending: _Pending) -> None:
        """Give records a file of their own, where someone else has cut or removed theirs."""
        from asynccb.trackers.tensorboard import values as records

        logger.warning(
            "%s is gone or shorter than what was written to it: what was lost stays lost, and the "
            "run goes on in %s.1",
            pending.file,
            pending.file,
        )
        pending.file += ".1"
        pending.offset = 0
        pending.data[:0] = records.header(pending.seconds, HIDE_NOTHING)
