"""The durable log of a run."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import JournalError
from asynccb._journal.reader import JournalReader
from asynccb._journal.segments import last_record, segments
from asynccb._journal.writer import JournalWriter
from asynccb._ring.frame import frame_size
from tests.journal.journals import (
    SEGMENT_HEADER,
    append,
    files_no_larger_than,
    frames,
    payloads,
    read_all,
    read_with_lost,
    written,
)


@given(
    batches=st.lists(st.lists(payloads, min_size=1, max_size=6), max_size=12),
    segment_size=st.integers(1, 400),
    restarts=st.sets(st.integers(0, 11)),
    most=st.integers(1, 7),
    position=st.integers(0, 40),
)
@settings(deadline=None, max_examples=60)
def test_any_records_come_back_from_any_position_whatever_the_segments_and_restarts(
    batches: list[list[bytes]],
    segment_size: int,
    restarts: set[int],
    most: int,
    position: int,
) -> None:
    async def check(folder: Path) -> None:
        writer = JournalWriter(folder, segment_size)
        await writer.open()
        for number, batch in enumerate(batches):
            await append(writer, *batch)
            if number in restarts:
                await writer.close()
                writer = JournalWriter(folder, segment_size)
                await writer.open()
        await writer.close()
        everything = [record for batch in batches for record in batch]
        assert writer.next == len(everything)
        begin = min(position, len(everything))
        assert await read_all(folder, writer.next, begin, most) == everything[begin:]

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(check, Path(folder, "journal"))


@given(
    ranges=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=20),
    segment_size=st.integers(1, 400),
)
@settings(deadline=None, max_examples=60)
def test_ranges_that_overlap_what_is_there_add_each_record_once(
    ranges: list[tuple[int, int]], segment_size: int
) -> None:
    async def check(folder: Path) -> None:
        writer = JournalWriter(folder, segment_size)
        await writer.open()
        for first, more in ranges:
            begin = min(first, writer.next)
            records = [b"record %d" % number for number in range(begin, begin + more + 1)]
            await writer.append(frames(records, begin), begin, begin + more)
        await writer.close()
        expected = [b"record %d" % number for number in range(writer.next)]
        assert await read_all(folder, writer.next) == expected

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(check, Path(folder, "journal"))


class TestTornTails:
    LAST = b"the record that was being written"

    @pytest.mark.parametrize("kept", range(frame_size(len(LAST))))
    async def test_a_tail_torn_at_any_byte_is_cut_and_written_anew(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int
    ) -> None:
        await written(tmp_path, b"first", b"second", self.LAST)
        ((_, path),) = segments(tmp_path)
        os.truncate(path, path.stat().st_size - frame_size(len(self.LAST)) + kept)

        writer = JournalWriter(tmp_path)
        await writer.open()

        assert writer.next == 2
        assert (f"last {kept} bytes were torn" in caplog.text) is (kept > 0)
        await append(writer, b"third", b"fourth")
        await writer.close()
        assert await read_all(tmp_path, 4) == [b"first", b"second", b"third", b"fourth"]

    @pytest.mark.parametrize("kept", [*range(SEGMENT_HEADER + 1), None])
    async def test_a_segment_torn_within_its_header_or_left_as_zeros_is_begun_anew(
        self, tmp_path: Path, kept: int | None
    ) -> None:
        size = SEGMENT_HEADER + frame_size(len(b"first"))
        await written(tmp_path, b"first", b"second", segment_size=size)
        path = segments(tmp_path)[-1][1]
        if kept is None:
            path.write_bytes(bytes(path.stat().st_size))
        else:
            os.truncate(path, kept)
        assert last_record(tmp_path) == (0, b"first")

        writer = JournalWriter(tmp_path, size)
        await writer.open()

        assert writer.next == 1
        await append(writer, b"second again")
        await writer.close()
        assert await read_all(tmp_path, 2) == [b"first", b"second again"]

    async def test_a_torn_tail_is_never_read(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first", self.LAST)
        ((_, path),) = segments(tmp_path)
        os.truncate(path, path.stat().st_size - 1)
        assert await read_with_lost(tmp_path, 2) == ({0: b"first"}, 1)

    @pytest.mark.parametrize("zeros", [8, 16, 64, 4096])
    async def test_zeros_that_a_power_cut_has_left_are_no_records(
        self, tmp_path: Path, zeros: int
    ) -> None:
        await written(tmp_path, b"first")
        ((_, path),) = segments(tmp_path)
        os.truncate(path, SEGMENT_HEADER)  # the header was synced, the record was not
        os.truncate(path, SEGMENT_HEADER + zeros)
        assert await read_with_lost(tmp_path, 1) == ({}, 1)

        writer = JournalWriter(tmp_path)
        await writer.open()
        assert writer.next == 0
        await append(writer, b"first again")
        await writer.close()
        assert await read_all(tmp_path, 1) == [b"first again"]

    @pytest.mark.parametrize("blank", [SEGMENT_HEADER, 4096])
    async def test_a_newest_segment_of_which_a_power_cut_has_left_zeros_costs_what_it_has_zeroed(
        self, tmp_path: Path, blank: int
    ) -> None:
        records = [b"x" * 2000, b"first" * 500, b"second" * 500, b"third" * 500]
        await written(tmp_path, *records[:1])
        writer = JournalWriter(tmp_path, 1)
        await writer.open()
        await append(writer, *records[1:])
        await writer.close()
        path = segments(tmp_path)[-1][1]
        path.write_bytes(bytes(blank) + path.read_bytes()[blank:])
        left = {0: records[0], 3: records[3]} if blank > 3000 else dict(enumerate(records))
        assert last_record(tmp_path) == (3, records[3])

        writer = JournalWriter(tmp_path)
        await writer.open()
        assert writer.next == 4
        await writer.close()
        assert await read_with_lost(tmp_path, 4) == (left, 4 - len(left))

    async def test_whole_records_behind_a_damaged_one_are_not_cut(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first", b"second", b"third")
        ((_, path),) = segments(tmp_path)
        data = bytearray(path.read_bytes())
        data[data.find(b"second")] ^= 1
        path.write_bytes(data)

        writer = JournalWriter(tmp_path)
        await writer.open()
        assert writer.next == 3
        await append(writer, b"fourth")
        await writer.close()
        expected = {0: b"first", 2: b"third", 3: b"fourth"}
        assert await read_with_lost(tmp_path, 4) == (expected, 1)


class TestAppending:
    async def test_ids_that_are_left_out_are_counted_by_readers(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first")
        writer = JournalWriter(tmp_path)
        await writer.open()
        await writer.append(frames([b"late"], 5), 5, 8)
        assert writer.next == 9
        await append(writer, b"later")
        await writer.close()
        expected = {0: b"first", 5: b"late", 9: b"later"}
        assert await read_with_lost(tmp_path, 10) == (expected, 7)

    async def test_ids_that_were_used_before_a_power_cut_are_not_used_again(
        self, tmp_path: Path
    ) -> None:
        await written(tmp_path, b"first")
        writer = JournalWriter(tmp_path)
        await writer.open(least=7)  # a cursor had come that far
        await append(writer, b"after")
        await writer.close()
        assert await read_with_lost(tmp_path, 8) == ({0: b"first", 7: b"after"}, 6)

    async def test_what_a_full_disk_refused_can_be_appended_again(self, tmp_path: Path) -> None:
        writer = JournalWriter(tmp_path)
        await writer.open()
        await append(writer, b"first")
        ((_, path),) = segments(tmp_path)
        size = path.stat().st_size
        with files_no_larger_than(size + 10), pytest.raises(OSError, match="File too large"):
            await append(writer, b"second")
        assert path.stat().st_size == size
        await append(writer, b"second")
        await writer.close()
        assert await read_all(tmp_path, 2) == [b"first", b"second"]

    async def test_a_segment_that_a_full_disk_refused_can_be_begun_again(
        self, tmp_path: Path
    ) -> None:
        writer = JournalWriter(tmp_path, segment_size=1)
        await writer.open()
        await append(writer, b"first")
        with files_no_larger_than(8), pytest.raises(OSError, match="File too large"):
            await append(writer, b"second")
        await append(writer, b"second")
        await writer.close()
        assert await read_all(tmp_path, 2) == [b"first", b"second"]

    async def test_folder_and_segments_are_private_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            await written(tmp_path / "journal", b"first", b"second", segment_size=1)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
        modes = {stat.S_IMODE(path.stat().st_mode) for _, path in segments(tmp_path / "journal")}
        assert modes == {0o600}


class TestRemoving:
    async def test_only_segments_wholly_below_a_record_are_removed(self, tmp_path: Path) -> None:
        await written(tmp_path, *(b"x" * 10,) * 9, segment_size=3 * frame_size(10))
        assert [first for first, _ in segments(tmp_path)] == [0, 3, 6]
        writer = JournalWriter(tmp_path)
        await writer.open()

        await writer.remove_below(5)

        assert [first for first, _ in segments(tmp_path)] == [3, 6]
        assert len(await read_all(tmp_path, 9, position=5)) == 4
        await writer.close()

    async def test_the_newest_segment_stays_so_that_ids_go_on(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first", b"second", segment_size=1)
        writer = JournalWriter(tmp_path, segment_size=1)
        await writer.open()
        await writer.remove_below(2)
        await writer.close()
        again = JournalWriter(tmp_path)
        await again.open()
        assert again.next == 2
        await again.close()

    async def test_a_reader_in_a_removed_segment_reads_on(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first", b"second", b"third", segment_size=1)
        reader = JournalReader(tmp_path, 0)
        assert await reader.read(3, 1) == [(0, b"first")]
        writer = JournalWriter(tmp_path)
        await writer.open()
        await writer.remove_below(1)
        assert await reader.read(3, 5) == [(1, b"second"), (2, b"third")]
        await reader.close()
        await writer.close()

    async def test_a_position_that_was_removed_is_lost_and_counted(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first", b"second", segment_size=1)
        writer = JournalWriter(tmp_path)
        await writer.open()
        await writer.remove_below(1)
        await writer.close()
        assert await read_with_lost(tmp_path, 2) == ({1: b"second"}, 1)


class TestReading:
    async def test_a_reader_follows_a_writer_that_goes_on(self, tmp_path: Path) -> None:
        writer = JournalWriter(tmp_path, segment_size=500)
        await writer.open()
        records = [b"record %d" % number for number in range(400)]
        found: list[bytes] = []

        async def follow() -> None:
            reader = JournalReader(tmp_path, 0)
            while len(found) < len(records):
                found.extend(payload for _, payload in await reader.read(writer.next, 7))
                await anyio.lowlevel.checkpoint()
            await reader.close()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                for record in records:
                    await append(writer, record)
        await writer.close()
        assert found == records

    async def test_a_record_larger_than_what_is_read_at_once_comes_back(
        self, tmp_path: Path
    ) -> None:
        large = os.urandom(3 << 20)
        await written(tmp_path, b"before", large, b"after")
        assert await read_all(tmp_path, 3) == [b"before", large, b"after"]

    @pytest.mark.parametrize("segment_size", [1, 1 << 20], ids=["own segment", "same segment"])
    @pytest.mark.parametrize("byte", [0, 4, 8, 16, 20], ids=["length", "crc", "id", "data", "more"])
    async def test_a_damaged_record_is_skipped_and_counted_and_hides_none(
        self, tmp_path: Path, segment_size: int, byte: int
    ) -> None:
        await written(tmp_path, b"first", b"a second", b"third", segment_size=segment_size)
        path = [path for first, path in segments(tmp_path) if first <= 1][-1]
        data = bytearray(path.read_bytes())
        data[data.find(b"a second") - 16 + byte] ^= 1
        path.write_bytes(data)

        assert await read_with_lost(tmp_path, 3) == ({0: b"first", 2: b"third"}, 1)

    async def test_a_missing_segment_is_skipped_and_counted(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first", b"second", b"third", segment_size=1)
        segments(tmp_path)[1][1].unlink()
        assert await read_with_lost(tmp_path, 3) == ({0: b"first", 2: b"third"}, 1)

    async def test_an_empty_folder_has_no_records_and_misses_what_is_asked_for(
        self, tmp_path: Path
    ) -> None:
        assert await read_all(tmp_path, 0) == []
        assert await read_with_lost(tmp_path, 1) == ({}, 1)

    async def test_a_reader_that_found_nothing_sees_what_comes_later(self, tmp_path: Path) -> None:
        await written(tmp_path, b"first")
        reader = JournalReader(tmp_path, 0)
        assert await reader.read(3, 10) == [(0, b"first")]  # two more were dropped, say
        writer = JournalWriter(tmp_path)
        await writer.open(least=3)
        await append(writer, b"fourth")
        await writer.close()
        assert await reader.read(4, 10) == [(3, b"fourth")]
        assert reader.lost == 2
        await reader.close()

    @pytest.mark.parametrize(
        ("start", "complaint"),
        [
            (b"something else entirely", "is not a segment of a journal"),
            (b"asynccb\x02" + bytes(8), "has format 2; this version of asynccb reads format 1"),
            (b"asynccb\x01\x01" + bytes(7), "differs from its name"),
        ],
    )
    async def test_a_file_that_is_no_segment_is_refused_by_reader_and_writer(
        self, tmp_path: Path, start: bytes, complaint: str
    ) -> None:
        (tmp_path / f"{0:020d}.segment").write_bytes(start)
        with pytest.raises(JournalError, match=complaint):
            await read_all(tmp_path, 1)
        with pytest.raises(JournalError, match=complaint):
            await JournalWriter(tmp_path).open()

    async def test_other_files_in_the_folder_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        await written(tmp_path, b"first")
        assert await read_all(tmp_path, 1) == [b"first"]
        assert (tmp_path / "notes.txt").read_text() == "mine"
