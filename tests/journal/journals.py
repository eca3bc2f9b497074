"""Journals made and read by hand, for tests below the companion."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from hypothesis import strategies as st

from asynccb._journal.reader import JournalReader
from asynccb._journal.writer import JournalWriter
from asynccb._ring.frame import frame

SEGMENT_HEADER = 16

payloads = st.binary(min_size=1, max_size=60)


def frames(records: list[bytes], first: int) -> bytes:
    return b"".join(frame(payload, first + place) for place, payload in enumerate(records))


async def append(writer: JournalWriter, *records: bytes) -> None:
    first = writer.next
    await writer.append(frames(list(records), first), first, first + len(records) - 1)


async def written(folder: Path, *records: bytes, segment_size: int = 1 << 20) -> None:
    """Make a journal, one append for each record."""
    writer = JournalWriter(folder, segment_size)
    await writer.open()
    for record in records:
        await append(writer, record)
    await writer.close()


async def read_with_lost(
    folder: Path, end: int, position: int = 0, most: int = 1000
) -> tuple[dict[int, bytes], int]:
    """Return the records by id, and how many are missing."""
    reader = JournalReader(folder, position)
    found: dict[int, bytes] = {}
    with anyio.fail_after(10):
        try:
            while reader.position < end:
                records = await reader.read(end, most)
                ids = [number for number, _ in records]
                assert ids == sorted(set(ids))
                assert not found.keys() & set(ids)
                found.update(records)
                assert len(found) + reader.lost == reader.position - position
        finally:
            await reader.close()
    return found, reader.lost


async def read_all(folder: Path, end: int, position: int = 0, most: int = 1000) -> list[bytes]:
    found, lost = await read_with_lost(folder, end, position, most)
    assert lost == 0
    return list(found.values())


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Have this process's writes beyond a size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
