"""
Read a journal, beside its writer or later.

Promises: each record is returned once, in order, from any position, even if the disk does not have
it yet. Missing or damaged records are skipped and counted, and hide no record behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import aiofiles
import anyio
from aiofiles.threadpool.binary import AsyncBufferedIOBase
from anyio import to_thread

from asynccb._journal.segments import (
    FARTHEST,
    SEGMENT_HEADER,
    check_header,
    find_frame,
    payload_at,
    segments,
    split_frames,
)
from asynccb._journal.tail import Held, Tail

_CHUNK: Final = 1 << 20


class JournalReader:
    """A reader that returns records in order, from any id on."""

    def __init__(self, folder: Path, position: int, tail: Tail | None = None) -> None:
        """Take the journal's folder, the id of the first record, and the end held in memory."""
        self._folder = folder
        self._tail = tail
        self.position = position
        """Id of the next record."""
        self.lost = 0
        """Records that were to be read, but are missing or damaged."""
        self._file: AsyncBufferedIOBase | None = None
        self._first = -1  # id with which the last opened segment begins
        self._buffer = bytearray()

    async def read(self, end: int, most: int) -> list[tuple[int, bytes]]:
        """
        Return up to `most` records below the id `end`, each with its id; at the end, return none.

        The writer must have come as far as `end`. Afterwards `position` is behind the last returned
        record and past all lost ones. Raises OSError, after which it may be called again, and
        `JournalError` for a file that is not a segment of this format.
        """
        records: list[tuple[int, bytes]] = []
        held = None if self._tail is None else self._tail.held
        if held is not None:
            if self.position >= held.begin:
                return self._read_held(held, end, most)
            end = min(end, held.begin)
        while self.position < end and len(records) < most:
            self._take(end, most, records)
            if self.position >= end or len(records) >= most:
                break
            try:
                if not await self._fill(end):
                    self._skip_to(end)
                    self._first = -1  # the segment that ended here may still grow
            except OSError:
                if not records:
                    raise
                break
        return records

    async def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        self._buffer.clear()
        if file is not None:
            with anyio.CancelScope(shield=True):
                await file.close()

    def _read_held(self, held: Held, end: int, most: int) -> list[tuple[int, bytes]]:
        """Return records from memory, which the disk does not have."""
        records: list[tuple[int, bytes]] = []
        for record, payload in held.records(self.position):
            if record >= end or len(records) >= most:
                break
            self._skip_to(record)
            records.append((record, payload))
            self.position += 1
        if len(records) < most:
            self._skip_to(max(self.position, min(end, held.chunks[-1].end)))
        return records

    def _take(self, end: int, most: int, records: list[tuple[int, bytes]]) -> None:
        """Move whole frames from the buffer to `records`."""
        used = 0
        for record, payload, frame_end in split_frames(self._buffer):
            if record >= self.position + FARTHEST:
                break  # damaged
            if record > self.position:
                self._skip_to(min(record, end))
            if record >= end or len(records) >= most:
                break
            used = frame_end
            if record == self.position and frame_end > payload:
                records.append((record, payload_at(self._buffer, payload)))
                self.position += 1
        del self._buffer[:used]

    async def _fill(self, end: int) -> bool:
        """Read on, behind damage or in the next segment; return False if nothing is left."""
        if self._file is not None:
            if data := await self._file.read(_CHUNK):
                self._buffer += data
                return True
            found = await to_thread.run_sync(find_frame, self.position - 1, self._buffer, 8)
            if found is not None:
                del self._buffer[:found]
                return True
            await self.close()
        following = self._segment_to_open()
        if following is None or following[0] >= end:
            return False
        first, path = following
        file = await aiofiles.open(path, "rb")
        try:
            check_header(path, await file.read(SEGMENT_HEADER.size))
        except BaseException:
            await file.close()
            raise
        self._file, self._first = file, first
        if first > self.position:
            self._skip_to(first)
        return True

    def _segment_to_open(self) -> tuple[int, Path] | None:
        """Return the segment that contains the position, or else the next unread segment."""
        later = [(first, path) for first, path in segments(self._folder) if first > self._first]
        holding = [segment for segment in later if segment[0] <= self.position]
        return holding[-1] if holding else next(iter(later), None)

    def _skip_to(self, record: int) -> None:
        self.lost += record - self.position
        self.position = record
