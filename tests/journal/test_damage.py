"""What is left of a journal that was torn at any byte, or changed in any bit."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import JournalError
from asynccb._journal.segments import last_record, segments
from asynccb._journal.writer import JournalWriter
from tests.journal.journals import SEGMENT_HEADER, append, payloads, read_with_lost, written

records = st.lists(payloads, min_size=1, max_size=12)
segment_sizes = st.integers(1, 400)


def tear(folder: Path, kept: int) -> None:
    """Leave the first bytes of the journal, as a crash does that loses the last writes."""
    for _, path in segments(folder):
        size = path.stat().st_size
        if kept <= 0:
            path.unlink()
        elif kept < size:
            os.truncate(path, kept)
        kept -= size


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for _, path in segments(folder))


@given(before=records, after=records, segment_size=segment_sizes, share=st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_a_journal_torn_at_any_byte_goes_on_after_its_longest_whole_beginning(
    before: list[bytes], after: list[bytes], segment_size: int, share: float
) -> None:
    async def check(folder: Path) -> None:
        await written(folder, *before, segment_size=segment_size)
        tear(folder, int(share * size_of(folder)))
        writer = JournalWriter(folder, segment_size)
        await writer.open()
        whole = writer.next
        assert whole <= len(before)
        if whole:
            assert last_record(folder) == (whole - 1, before[whole - 1])
        await append(writer, *after)
        await writer.close()
        found, lost = await read_with_lost(folder, writer.next)
        assert list(found.values()) == before[:whole] + after
        assert lost == 0

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(check, Path(folder))


@given(
    before=records,
    segment_size=segment_sizes,
    share=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
@settings(deadline=None, max_examples=300)
def test_a_bit_that_flips_costs_one_record_at_most_and_never_yields_a_wrong_one(
    before: list[bytes], segment_size: int, share: float, bit: int
) -> None:
    async def check(folder: Path) -> None:
        await written(folder, *before, segment_size=segment_size)
        place = int(share * size_of(folder))
        for _, path in segments(folder):
            size = path.stat().st_size
            if place < size:
                break
            place -= size
        data = bytearray(path.read_bytes())
        data[place] ^= 1 << bit
        path.write_bytes(data)

        if place < SEGMENT_HEADER:
            with pytest.raises(JournalError, match=r"is not a segment|has format|is damaged"):
                await read_with_lost(folder, len(before))
            return
        found, lost = await read_with_lost(folder, len(before))
        assert lost <= 1
        assert found == {number: before[number] for number in found}
        writer = JournalWriter(folder, segment_size)
        await writer.open()
        assert len(before) - writer.next == (lost and len(before) - 1 not in found)
        await writer.close()

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(check, Path(folder))


@given(before=records, segment_size=segment_sizes, garbage=st.binary(max_size=200))
@settings(deadline=None, max_examples=60)
def test_whatever_is_appended_to_a_journal_by_others_is_cut(
    before: list[bytes], segment_size: int, garbage: bytes
) -> None:
    async def check(folder: Path) -> None:
        await written(folder, *before, segment_size=segment_size)
        with segments(folder)[-1][1].open("ab") as file:
            file.write(garbage)
        writer = JournalWriter(folder, segment_size)
        await writer.open()
        assert writer.next == len(before)
        await append(writer, b"more")
        await writer.close()
        found, lost = await read_with_lost(folder, writer.next)
        assert (list(found.values()), lost) == ([*before, b"more"], 0)

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(check, Path(folder))
