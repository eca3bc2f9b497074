"""
Write the durable log of a run: segments of framed records on disk.

Promises: once `append` has returned, its records survive the death of every process, and once
synced, also a power cut. Ids only grow. If a crash tears the tail, the torn bytes are cut when the
journal is next opened. Beyond its limit, the oldest records that may be dropped make room. Folder
and files are private to their owner.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from pathlib import Path
from typing import Final

import aiofiles
import anyio
from aiofiles.threadpool.binary import AsyncFileIO
from anyio import to_thread

from asynccb._journal.cursor import replace_now
from asynccb._journal.segments import (
    SEGMENT_HEADER,
    check_header,
    frames_after,
    is_blank,
    open_private,
    segment_header,
    segment_path,
    segments,
    split_frames,
)
from asynccb._journal.thinning import thin
from asynccb._ring.frame import HEADER

logger = logging.getLogger("asynccb")

SEGMENT_SIZE: Final = 16 << 20
_NEAR: Final = 0.8
"""Share of the limit from which on a warning is logged."""


class JournalWriter:
    """A writer that appends frames to the newest segment; a journal has one writer at a time."""

    def __init__(
        self,
        folder: Path,
        segment_size: int = SEGMENT_SIZE,
        *,
        limit: float = math.inf,
        fsync: float = math.inf,
    ) -> None:
        """
        Take the folder, which need not exist, and the bytes at which a new segment is begun.

        `limit` is in bytes, and exceeded by at most a segment and a batch. If `fsync` is 0, every
        append is synced; if infinity, none. Otherwise it is the seconds between the syncs of
        `keep_synced`.
        """
        self._folder = folder
        self._segment_size = segment_size
        self._limit = limit
        self._fsync = fsync
        self._file: AsyncFileIO | None = None
        self._size = 0
        self._unsynced = False
        self._thinned = 0  # id below which no segment can become smaller
        self._said: set[str] = set()
        self.next = 0
        """Id of the next record, which is the number of records so far."""

    async def open(self, least: int = 0) -> None:
        """Find the end of the journal, cutting a torn tail; no id below `least` is used again."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.glob("*.new"):
            left.unlink()
        existing = segments(self._folder)
        if existing:
            self.next, path = existing[-1]
            if path.stat().st_size < SEGMENT_HEADER.size:
                path.unlink()  # torn while it was being created; the next append creates it anew
            else:
                await to_thread.run_sync(self._cut_tail, path)
                self._file = await aiofiles.open(path, "ab", buffering=0, opener=open_private)
                self._size = path.stat().st_size
        self.next = max(self.next, least)

    async def append(self, frames: bytes, first: int, last: int) -> None:
        """
        Append whole frames with ids from `first` to `last`, except for frames already appended.

        Ids may be missing: readers count them as lost. Raises OSError if the disk refuses; then
        nothing has been appended.
        """
        if last < self.next:
            return
        if first < self.next:
            later = (start for record, start, _ in split_frames(frames) if record >= self.next)
            frames = frames[next(later) - HEADER.size :]
        if self._file is None or self._size >= self._segment_size:
            await self._begin_segment()
        assert self._file is not None
        await self._write(self._file, frames)
        self._size += len(frames)
        self.next = last + 1

    async def keep_synced(self) -> None:
        """Sync every `fsync` seconds until cancelled; return at once if that is 0 or infinite."""
        while 0 < self._fsync < math.inf:
            await anyio.sleep(self._fsync)
            if self._file is not None:
                await self._try_to_sync(self._file)

    async def _sync(self, file: AsyncFileIO) -> None:
        if self._unsynced and self._fsync < math.inf:
            descriptor = os.dup(file.fileno())  # the segment may end during the sync
            self._unsynced = False
            await to_thread.run_sync(_sync_and_close, descriptor, abandon_on_cancel=True)

    async def _try_to_sync(self, file: AsyncFileIO) -> None:
        try:
            await self._sync(file)
        except OSError as error:
            self._say_once("the journal in %s cannot be synced to the disk: %s", error)

    async def close(self) -> None:
        """Close the journal; sync it first unless syncs are switched off."""
        if self._file is not None:
            file, self._file = self._file, None
            await self._try_to_sync(file)
            await file.close()

    async def remove_below(self, record: int) -> None:
        """Delete the segments whose records all have ids below `record`, as far as possible."""
        with contextlib.suppress(OSError):  # such as no descriptor left; the next call retries
            for (_, path), (following, _) in itertools.pairwise(segments(self._folder)):
                if following <= record:
                    path.unlink(missing_ok=True)

    async def _write(self, file: AsyncFileIO, frames: bytes) -> None:
        written = 0
        try:
            while written < len(frames):
                written += await file.write(frames[written:])
            self._unsynced = True
            if self._fsync <= 0:
                await self._sync(file)
        except OSError:
            os.ftruncate(file.fileno(), self._size)
            raise

    async def _begin_segment(self) -> None:
        await self.close()
        await self._make_room()
        path = segment_path(self._folder, self.next)
        self._file = await aiofiles.open(path, "ab", buffering=0, opener=open_private)
        header = segment_header(self.next)
        self._size = 0
        try:
            await self._write(self._file, header)
            self._size = len(header)
            await self._sync(self._file)
            if self._fsync < math.inf:  # the segment's name must survive a power cut, too
                await to_thread.run_sync(_sync_and_close, os.open(self._folder, os.O_RDONLY))
        except OSError:
            await self._file.close()
            self._file = None
            path.unlink(missing_ok=True)
            raise

    async def _make_room(self) -> None:
        """Keep the journal, including one more segment, below its limit."""
        if self._limit == math.inf:
            return
        sizes = {path: path.stat().st_size for _, path in segments(self._folder)}
        excess = sum(sizes.values()) + self._segment_size - self._limit
        if excess > -(1 - _NEAR) * self._limit:
            self._say_once(
                "the journal in %s is at %.0f %% of its %.0f MiB (ASYNCCB_JOURNAL_LIMIT), because "
                "a tracker is behind; beyond the limit the oldest events are dropped",
                100 * _NEAR,
                self._limit / (1 << 20),
            )
        for first, path in segments(self._folder):
            if excess <= 0:
                return
            if first >= self._thinned:
                self._say_once(
                    "the journal in %s is full (%.0f %% of its %.0f MiB, ASYNCCB_JOURNAL_LIMIT): "
                    "the oldest events that a tracker has not received are dropped; each tracker "
                    "counts the events that it misses",
                    100,
                    self._limit / (1 << 20),
                )
                excess -= sizes[path] - await to_thread.run_sync(_thin_segment, path, first)
                self._thinned = first + 1

    def _say_once(self, text: str, *values: object) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning(text, self._folder, *values)

    def _cut_tail(self, path: Path) -> None:
        data = path.read_bytes()
        end = SEGMENT_HEADER.size
        if is_blank(data):
            _write_header(path, self.next)
        else:
            check_header(path, data)
        for record, _, frame_end in frames_after(self.next - 1, data, end):
            self.next, end = record + 1, frame_end
        if end < len(data):
            logger.warning("the journal's last %d bytes were torn and are cut", len(data) - end)
            os.truncate(path, end)


def _write_header(path: Path, first: int) -> None:
    """Write the header that a power cut has erased; intact frames behind it still count."""
    with path.open("r+b") as file:
        file.write(segment_header(first))


def _thin_segment(path: Path, first: int) -> int:
    """Rewrite a segment without the records that may be dropped; return its size in bytes."""
    data = path.read_bytes()
    frames = data[SEGMENT_HEADER.size :]
    thinned = data[: SEGMENT_HEADER.size] + thin(frames, first - 1)[0]
    replace_now(path, thinned)
    return len(thinned)


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
