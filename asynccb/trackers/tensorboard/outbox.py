"""
Gather records, and write them into event files in order, each once.

Promises: `flush` writes every gathered record completely, or raises and keeps the rest. A retry
overwrites earlier bytes with the same bytes and never appends them a second time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from asynccb.trackers.shared.offset_file import ShortFileError, write_at

logger = logging.getLogger("asynccb")

_HINT: Final = (
    "set logging_dir or TENSORBOARD_LOGGING_DIR to a directory that can be created and written"
)

HIDE_NOTHING: Final = 2**62
"""A session's start at a step that no run reaches."""


@dataclass
class _Pending:
    """Records of one file that are not acknowledged yet."""

    file: str
    offset: int
    seconds: float
    """Unix time of the first record."""
    data: bytearray = field(default_factory=bytearray)


class EventWriter:
    """A writer of records to `file`; after a flush, the next record is written at `offset`."""

    def __init__(self, file: str | None = None, offset: int = 0) -> None:
        self.file = file
        self.offset = offset
        self._outbox: list[_Pending] = []

    def begin(self, file: str, start: int, seconds: float) -> None:
        """Direct the next records to a new file; hide older files' records from `start` on."""
        from asynccb.trackers.tensorboard import values as records

        self.file, self.offset = file, 0
        header = bytearray(records.header(seconds, start))
        self._outbox.append(_Pending(file, 0, seconds, header))

    def add(self, record: bytes, seconds: float) -> None:
        """Gather a framed record with its time; a file must have been begun."""
        assert self.file is not None, "begin a file first"
        if not self._outbox:
            self._outbox.append(_Pending(self.file, self.offset, seconds))
        self._outbox[-1].data += record

    async def flush(self) -> None:
        """Write all records, with one write per file; raise errors as `write_at` does."""
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
        """Move records to a new file after someone else has cut or removed their file."""
        from asynccb.trackers.tensorboard import values as records

        logger.warning(
            "%s was removed or truncated by another program: the records lost there stay lost, and "
            "the run continues in %s.1",
            pending.file,
            pending.file,
        )
        pending.file += ".1"
        pending.offset = 0
        pending.data[:0] = records.header(pending.seconds, HIDE_NOTHING)
