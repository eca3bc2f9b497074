"""
The end of a journal that the disk does not take, in memory.

Promises: readers find there what the disk has not got, so that trackers are served through a full
disk; bounded in bytes: beyond that what every reader has passed goes first, then the oldest events;
what begins, ends or describes a run stays. One thread writes, any may read.
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
"""Bytes from which on another chunk is begun."""


@dataclass(frozen=True)
class Chunk:
    """Hold whole frames with ids from `first` on and below `end`; some may be missing."""

    first: int
    end: int
    frames: bytes
    thinned: bool = False


@dataclass(frozen=True)
class Held:
    """Hold the end of a journal as it was at one moment."""

    begin: int
    """Id up to which the disk has the journal."""
    chunks: tuple[Chunk, ...]

    def records(self, position: int) -> Iterator[tuple[int, bytes]]:
        """Yield (id, payload) of the records from an id on."""
        for chunk in self.chunks:
            if chunk.end > position:
                for record, start, _ in split_frames(chunk.frames):
                    if record >= position:
                        yield record, payload_at(chunk.frames, start)


class Tail:
    """Hold what comes behind the journal on disk."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.held: Held | None = None
        """What there is now; replaced, never changed."""

    @property
    def end(self) -> int:
        """Id behind the last record; 0 where nothing is held."""
        held = self.held
        return 0 if held is None else held.chunks[-1].end

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """What is held, oldest first."""
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
        """Add frames behind the others; `begin` is the id up to which the disk has the journal."""
        chunks = self.chunks
        if chunks and not chunks[-1].thinned and len(chunks[-1].frames) < _CHUNK:
            merged = Chunk(chunks[-1].first, end, chunks[-1].frames + frames)
            chunks = (*chunks[:-1], merged)
        else:
            chunks = (*chunks, Chunk(first, end, frames))
        self.held = Held(begin, chunks)

    def let_go(self, begin: int) -> None:
        """Forget the first chunk, which the disk has now."""
        chunks = self.chunks[1:]
        self.held = Held(begin, chunks) if chunks else None

    def make_room(self, passed: int) -> int:
        """
        Drop what is too much, and return how many records that somebody may miss.

        Nobody misses those below the id `passed`.
        """
        size = sum(len(chunk.frames) for chunk in self.chunks)
        if self.held is None or size <= self._limit:
            return 0
        missed = 0
        chunks = list(self.chunks)
        for may_be_missed in (False, True):
            for place, chunk in enumerate(chunks):
                if size <= self._limit * 3 // 4:  # room for a while: this is not done every time
                    break
                if chunk.thinned or (chunk.end > passed and not may_be_missed):
                    continue
                frames, dropped = thin(chunk.frames, chunk.first - 1)
                size -= len(chunk.frames) - len(frames)
                missed += dropped if chunk.end > passed else 0
                chunks[place] = Chunk(chunk.first, chunk.end, frames, thinned=True)
        self.held = Held(self.held.begin, tuple(chunks))
        return missed
