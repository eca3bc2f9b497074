"""
Hold the end of a journal in memory while the disk refuses it.

Promises: readers find here the records that the disk does not have, so that trackers are served
while the disk is full. The bytes are bounded. Beyond the bound, records that every reader has
passed are dropped first, then the oldest events. Records that begin, end or describe a run stay.
One thread writes, any thread may read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from asynccb._journal.segments import payload_at, split_frames
from asynccb._journal.thinning import thin

LIMIT: Final = 32 << 20
"""Bytes of frames that are held."""
_CHUNK: Final = 256 << 10
"""Bytes of a chunk from which on another chunk is begun."""


@dataclass(frozen=True)
class Chunk:
    """Whole frames with ids from `first` on and below `end`; some ids may be missing."""

    first: int
    end: int
    frames: bytes
    thinned: bool = False


@dataclass(frozen=True)
class Held:
    """The end of a journal at one moment."""

    begin: int
    """Id up to which the disk has the journal."""
    chunks: tuple[Chunk, ...]

    def records(self, position: int) -> Iterator[tuple[int, bytes]]:
        """Yield (id, payload) of the records from the id `position` on."""
        for chunk in self.chunks:
            if chunk.end > position:
                for record, start, _ in split_frames(chunk.frames):
                    if record >= position:
                        yield record, payload_at(chunk.frames, start)


class Tail:
    """The records that come behind the journal on disk."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.held: Held | None = None
        """The current end of the journal; replaced, never changed."""

    @property
    def end(self) -> int:
        """Id behind the last record; 0 if nothing is held."""
        held = self.held
        return 0 if held is None else held.chunks[-1].end

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks that are held, oldest first."""
        return () if self.held is None else self.held.chunks

    @property
    def last(self) -> bytes | None:
        """Payload of the last record, if any is held."""
        found = None
        for chunk in self.chunks[-1:]:
            for _, start, _ in split_frames(chunk.frames):
                found = payload_at(chunk.frames, start)
        return found

    def hold(self, begin: int, frames: bytes, first: int, end: int) -> None:
        """Append frames; `begin` is the id up to which the disk has the journal."""
        chunks = self.chunks
        if chunks and not chunks[-1].thinned and len(chunks[-1].frames) < _CHUNK:
            merged = Chunk(chunks[-1].first, end, chunks[-1].frames + frames)
            chunks = (*chunks[:-1], merged)
        else:
            chunks = (*chunks, Chunk(first, end, frames))
        self.held = Held(begin, chunks)

    def let_go(self, begin: int) -> None:
        """Drop the first chunk, which the disk now has."""
        chunks = self.chunks[1:]
        self.held = Held(begin, chunks) if chunks else None

    def make_room(self, passed: int) -> int:
        """
        Drop records beyond the limit; return how many dropped records a reader may miss.

        No reader misses records below the id `passed`.
        """
        size = sum(len(chunk.frames) for chunk in self.chunks)
        if self.held is None or size <= self._limit:
            return 0
        missed = 0
        chunks = list(self.chunks)
        for may_be_missed in (False, True):
            for place, chunk in enumerate(chunks):
                if size <= self._limit * 3 // 4:  # room for a while, so that not every call drops
                    break
                if chunk.thinned or (chunk.end > passed and not may_be_missed):
                    continue
                frames, dropped = thin(chunk.frames, chunk.first - 1)
                size -= len(chunk.frames) - len(frames)
                missed += dropped if chunk.end > passed else 0
                chunks[place] = Chunk(chunk.first, chunk.end, frames, thinned=True)
        self.held = Held(self.held.begin, tuple(chunks))
        return missed
