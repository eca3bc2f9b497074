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

from anyio import to_thread

from asynccb.trackers.shared.offset_file import ShortFileError, classified, write_at
from asynccb.trackers.tensorboard.opening import Claim, goes_on, take

logger = logging.getLogger("asynccb")

_HINT: Final = (
    "set logging_dir or TENSORBOARD_LOGGING_DIR to a directory that can be created and written"
)


@dataclass
class _Pending:
    """Records of one file that are not acknowledged yet."""

    name: str
    seconds: float
    """Unix time of the first record."""
    claim: Claim | None = None
    """Finds the directory of a new file; None for that of the file before."""
    start: int | None = None
    """First step whose records in the run's earlier files a new file hides."""
    file: str | None = None
    """Path of the file, once its directory is found."""
    offset: int = 0
    data: bytearray = field(default_factory=bytearray)


class EventWriter:
    """A writer of records to `file`; after a flush, the next record is written at `offset`."""

    def __init__(self, file: str | None = None, offset: int = 0, home: str | None = None) -> None:
        self.file = file
        self.offset = offset
        self.home = home
        """Directory of the run's, or trial's, first training; known after a flush."""
        self._outbox: list[_Pending] = []

    def begin(self, name: str, claim: Claim | None, start: int | None, seconds: float) -> None:
        """
        Direct the next records to a new file.

        Without a claim, it is beside the file before. It hides the records of the run's earlier
        files there from `start` on.
        """
        self._outbox.append(_Pending(name, seconds, claim, start))

    def add(self, record: bytes, seconds: float) -> None:
        """Gather a framed record with its time; a file must have been begun."""
        if not self._outbox:
            assert self.file is not None, "begin a file first"
            name = Path(self.file).name
            self._outbox.append(_Pending(name, seconds, file=self.file, offset=self.offset))
        self._outbox[-1].data += record

    async def flush(self) -> None:
        """Write all records, with one write per file; raise errors as `write_at` does."""
        while self._outbox:
            pending = self._outbox[0]
            if pending.file is None:
                await self._place(pending)
            assert pending.file is not None
            path = Path(pending.file)
            try:
                await write_at(path, pending.offset, bytes(pending.data), hint=_HINT)
            except ShortFileError:
                self._relocate(pending, pending.file)
                continue
            del self._outbox[0]
            self.file, self.offset = pending.file, pending.offset + len(pending.data)

    async def _place(self, pending: _Pending) -> None:
        """Find the directory of a new file, and put the header before its records."""
        from asynccb.trackers.tensorboard import values as records

        claim, start = pending.claim, pending.start
        if claim is None:
            assert self.file is not None  # or there would be no file before
            path = str(Path(self.file).parent / pending.name)
        else:
            base = claim.base if claim.base is not None else self.home
            assert base is not None  # or there would be no first training
            try:
                path = await to_thread.run_sync(take, base, claim, pending.name)
                if start is not None and not await to_thread.run_sync(goes_on, path):
                    start = None
            except OSError as error:
                raise classified(Path(base, pending.name), error, _HINT) from error
            if claim.base is not None:
                self.home = str(Path(path).parent)
        pending.file = path
        pending.data[:0] = records.header(pending.seconds, start)

    def _relocate(self, pending: _Pending, file: str) -> None:
        """Move records to a new file after someone else has cut or removed their file."""
        from asynccb.trackers.tensorboard import values as records

        logger.warning(
            "%s was removed or truncated by another program: the records lost there stay lost, and "
            "the run continues in %s.1",
            file,
            file,
        )
        pending.file = f"{file}.1"
        pending.offset = 0
        pending.data[:0] = records.header(pending.seconds)
