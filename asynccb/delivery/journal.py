"""
The durable log of a run: segments of framed records on disk.

Promises: what `append` returned from survives the death of every process; ids are consecutive; a
tail torn by a crash is cut when the journal is next opened for writing, and never read. Format
version 1: a segment is named after its first record's id and holds a 16-byte header, then frames as
the ring has them (`_ring.HEADER`, payload, padding to 8). The folder is private to its owner.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedIOBase, AsyncFileIO

from asynccb._exceptions import JournalError
from asynccb._ring import HEADER, checksum, frame_size

logger = logging.getLogger("asynccb")

SEGMENT_SIZE: Final = 64 << 20
_SEGMENT_HEADER: Final = Struct("<8sQ")
_MAGIC: Final = b"asynccb\x01"
_SUFFIX: Final = ".segment"
_CHUNK: Final = 1 << 20


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return the journal's segments with the ids of their first records, oldest first."""
    return sorted((int(path.stem), path) for path in folder.glob(f"*{_SUFFIX}"))


def split_frames(
    data: bytes | bytearray | memoryview, start: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield (id, payload's start, frame's end) of each frame, up to the first that is not whole."""
    view = memoryview(data)
    while start + HEADER.size <= len(view):
        length, crc, record = HEADER.unpack_from(view, start)
        payload, end = start + HEADER.size, start + frame_size(length)
        if end > len(view) or checksum(view[payload : payload + length], record) != crc:
            return
        yield record, payload, end
        start = end


class JournalWriter:
    """Append frames to the newest segment; there is one writer at a time."""

    def __init__(self, folder: Path, segment_size: int = SEGMENT_SIZE) -> None:
        """Take the folder, which need not exist, and the size at which a new segment is begun."""
        self._folder = folder
        self._segment_size = segment_size
        self._file: AsyncFileIO | None = None
        self._size = 0
        self.next = 0
        """Id of the record that comes next, which is the number of records so far."""

    async def open(self) -> None:
        """Find the end of the journal, cutting a torn tail."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        existing = segments(self._folder)
        if existing:
            self.next, path = existing[-1]
            if path.stat().st_size < _SEGMENT_HEADER.size:
                path.unlink()  # torn while it was begun; the next append begins it anew
                return
            self._cut_tail(path)
            self._file = await aiofiles.open(path, "ab", buffering=0, opener=_private)
            self._size = path.stat().st_size

    async def append(self, frames: bytes, first: int, last: int) -> None:
        """
        Append whole frames with the ids `first` to `last`; those that are there already are left
        out.

        Raises OSError where the disk refuses; nothing has been appended then.
        """
        if last < self.next:
            return
        if first < self.next:
            start = next(start for record, start, _ in split_frames(frames) if record == self.next)
            frames = frames[start - HEADER.size :]
        if first > self.next:
            raise JournalError(
                f"records {self.next} to {first - 1} are missing before record {first}"
            )
        if self._file is None or self._size >= self._segment_size:
            await self._begin_segment()
        assert self._file is not None
        await self._write(self._file, frames)
        self._size += len(frames)
        self.next = last + 1

    async def close(self) -> None:
        """Write everything to the disk and let go of it."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            await self._file.close()
            self._file = None

    async def remove_below(self, record: int) -> None:
        """Delete the segments all of whose records have ids below `record`."""
        existing = segments(self._folder)
        for (_, path), (following, _) in itertools.pairwise(existing):
            if following <= record:
                path.unlink(missing_ok=True)

    async def _write(self, file: AsyncFileIO, frames: bytes) -> None:
        written = 0
        try:
            while written < len(frames):
                written += await file.write(frames[written:])
        except OSError:
            os.ftruncate(file.fileno(), self._size)
            raise

    async def _begin_segment(self) -> None:
        await self.close()
        path = self._folder / f"{self.next:020d}{_SUFFIX}"
        self._file = await aiofiles.open(path, "ab", buffering=0, opener=_private)
        header = _SEGMENT_HEADER.pack(_MAGIC, self.next)
        self._size = 0
        try:
            await self._write(self._file, header)
        except OSError:
            await self._file.close()
            self._file = None
            path.unlink(missing_ok=True)
            raise
        self._size = len(header)

    def _cut_tail(self, path: Path) -> None:
        data = path.read_bytes()
        end = _SEGMENT_HEADER.size
        _check_header(path, data)
        for record, _, frame_end in split_frames(data, end):
            self.next, end = record + 1, frame_end
        if end < len(data):
            logger.warning("the journal's last %d bytes were torn and are cut", len(data) - end)
            os.truncate(path, end)


class JournalReader:
    """Read records in order, from any id that is still there."""

    def __init__(self, folder: Path, position: int) -> None:
        """Take the journal's folder and the id of the first record to read."""
        self._folder = folder
        self.position = position
        """Id of the record that comes next."""
        self._file: AsyncBufferedIOBase | None = None
        self._path: Path | None = None
        self._buffer = bytearray()

    async def read(self, end: int, most: int) -> list[tuple[int, bytes]]:
        """
        Return up to `most` records below the id `end`, each with its id; none at the end.

        Raises `JournalError` where a record below `end` is missing or damaged.
        """
        records: list[tuple[int, bytes]] = []
        while len(records) < most and self.position < end:
            found = self._take(end, most - len(records), records)
            if not found and not await self._fill():
                raise JournalError(
                    f"record {self.position} is missing or damaged in {self._folder}"
                )
        return records

    async def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            await self._file.close()
            self._file = None
        self._buffer.clear()

    def _take(self, end: int, most: int, records: list[tuple[int, bytes]]) -> bool:
        """Move whole frames from the buffer to `records`; tell whether the position moved."""
        before, used = self.position, 0
        for record, payload, frame_end in split_frames(self._buffer):
            if record >= end or most <= 0:
                break
            used = frame_end
            if record < self.position:
                continue
            if record > self.position:
                break
            length = HEADER.unpack_from(self._buffer, payload - HEADER.size)[0]
            records.append((record, bytes(self._buffer[payload : payload + length])))
            self.position += 1
            most -= 1
        del self._buffer[:used]
        return self.position > before

    async def _fill(self) -> bool:
        """Read on, in the next segment where one has ended; tell whether there was anything."""
        if self._file is not None:
            data = await self._file.read(_CHUNK)
            if data:
                self._buffer += data
                return True
            await self.close()
        path = self._segment_of(self.position)
        if path is None or path == self._path:
            return False
        self._path = path
        self._file = await aiofiles.open(path, "rb")
        header = await self._file.read(_SEGMENT_HEADER.size)
        _check_header(path, header)
        self._buffer += await self._file.read(_CHUNK)
        return bool(self._buffer)

    def _segment_of(self, record: int) -> Path | None:
        """Return the segment that holds a record, or where it will be."""
        candidates = [path for first, path in segments(self._folder) if first <= record]
        return candidates[-1] if candidates else None


def _check_header(path: Path, data: bytes) -> None:
    if len(data) < _SEGMENT_HEADER.size or not data.startswith(_MAGIC[:7]):
        raise JournalError(f"{path} is no segment of a journal")
    if data[7] != _MAGIC[7]:
        raise JournalError(f"{path} has format {data[7]}; this version of asynccb reads format 1")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
