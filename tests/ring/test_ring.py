"""The ring between the training process and its companion."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import JournalError
from asynccb._journal.writer import split_frames
from asynccb._ring.frame import HEADER, frame_size
from asynccb._ring.ring import RingReader, RingWriter
from tests.support.launching import launch
from tests.support.waiting import eventually

SMALL = 4096


@contextmanager
def small_ring(*, checked: bool = False) -> Iterator[tuple[RingWriter, RingReader]]:
    writer = RingWriter(SMALL, checked=checked)
    reader = RingReader(os.dup(writer.fd))
    try:
        yield writer, reader
    finally:
        reader.close()
        writer.close()


def payloads(frames: bytes) -> list[tuple[int, bytes]]:
    found = []
    for record, start, _ in split_frames(frames):
        length = HEADER.unpack_from(frames, start - HEADER.size)[0]
        found.append((record, frames[start : start + length]))
    return found


lengths = st.integers(0, SMALL // 2 - HEADER.size)
operations = st.lists(
    st.one_of(lengths, st.sampled_from(["read", "release", "open again"])), max_size=60
)


@given(operations, st.booleans())
@settings(deadline=None, max_examples=200)
def test_what_was_written_is_read_once_and_in_order_whatever_is_done_in_between(
    steps: list[int | str], checked: bool
) -> None:
    with small_ring(checked=checked) as (writer, reader):
        written: list[tuple[int, bytes]] = []
        seen = released = 0
        for step in steps:
            if isinstance(step, int):
                payload = bytes([len(written) % 256]) * step
                if writer.write(payload):
                    written.append((len(written), payload))
            elif step == "read":
                frames, first, last = reader.read()
                assert payloads(frames) == written[seen:]
                if seen < len(written):
                    assert (first, last) == (seen, len(written) - 1)
                seen = len(written)
            elif step == "release":
                reader.release()
                released = seen
            else:
                reader.close()
                reader = RingReader(os.dup(writer.fd))
                seen = released
        assert payloads(reader.read()[0]) == written[seen:]
        assert writer.written == len(written)
        reader.close()


@given(st.lists(lengths, min_size=1, max_size=80))
@settings(deadline=None, max_examples=100)
def test_after_a_release_of_everything_any_record_of_up_to_half_the_ring_fits(
    sizes: list[int],
) -> None:
    with small_ring() as (writer, reader):
        for number, size in enumerate(sizes):
            payload = bytes([number % 256]) * size
            if not writer.write(payload):
                reader.read()
                reader.release()
                assert writer.used == 0
                assert writer.write(payload)


@pytest.mark.parametrize("gap", range(8, 72, 8))
def test_a_record_that_does_not_fit_before_the_end_begins_at_the_start(gap: int) -> None:
    with small_ring() as (writer, reader):
        half = (SMALL - gap) // 2 // 8 * 8
        for size in (half, SMALL - gap - half):
            assert writer.write(b"a" * (size - HEADER.size))
        reader.read()
        reader.release()

        assert writer.write(b"b" * 100)

        assert payloads(reader.read()[0]) == [(2, b"b" * 100)]
        reader.release()
        assert writer.used == 0


def test_a_full_ring_takes_nothing_and_says_so() -> None:
    with small_ring() as (writer, reader):
        while writer.write(b"x" * 100):
            pass
        used, count = writer.used, writer.written

        assert writer.write(b"y" * 100) is False

        assert (writer.used, writer.written) == (used, count)
        assert {payload for _, payload in payloads(reader.read()[0])} == {b"x" * 100}


def test_room_comes_back_with_the_release_and_not_with_the_read() -> None:
    with small_ring() as (writer, reader):
        while writer.write(b"x" * 100):
            pass
        reader.read()
        assert writer.write(b"y" * 100) is False
        reader.release()
        assert writer.write(b"y" * 100) is True


def test_a_reader_that_died_before_it_released_leaves_its_records_to_the_next_one() -> None:
    with small_ring() as (writer, reader):
        for payload in (b"one", b"two"):
            writer.write(payload)
        reader.read()

        second = RingReader(os.dup(writer.fd))

        assert payloads(second.read()[0]) == [(0, b"one"), (1, b"two")]
        second.close()


def test_a_record_whose_bytes_have_not_all_arrived_is_returned_when_they_have() -> None:
    with small_ring(checked=True) as (writer, reader), mmap.mmap(writer.fd, 0) as memory:
        for payload in (b"before", b"arriving", b"behind"):
            writer.write(payload)
        place = memory.find(b"arriving")
        memory[place] = 0
        assert payloads(reader.read()[0]) == [(0, b"before")]
        assert reader.read() == (b"", -1, -1)

        memory[place] = ord("a")

        assert payloads(reader.read()[0]) == [(1, b"arriving"), (2, b"behind")]


def test_releasing_gives_back_nothing_behind_a_record_that_has_not_arrived() -> None:
    with small_ring(checked=True) as (writer, reader), mmap.mmap(writer.fd, 0) as memory:
        writer.write(b"before")
        writer.write(b"arriving")
        memory[memory.find(b"arriving")] = 0
        reader.read()
        reader.release()
        assert writer.used == frame_size(len(b"arriving"))


@pytest.mark.parametrize("checked", [False, True])
def test_another_process_reads_every_record_while_they_are_written(checked: bool) -> None:
    writer = RingWriter(SMALL, checked=checked)
    records = [b"%d " % number * (number % 40) for number in range(3000)]
    with launch("read_ring", writer.fd, len(records), pass_fds=[writer.fd]) as reader:
        for record in records:
            eventually(lambda record=record: writer.write(record))
        output, _ = reader.communicate(timeout=60)
    digest = hashlib.sha256(b"".join(b"%d " % len(record) + record for record in records))
    assert output.split() == [str(len(records)), digest.hexdigest()]
    writer.close()


def test_a_record_that_could_wait_for_room_for_ever_is_refused_at_once() -> None:
    with small_ring() as (writer, _):
        writer.write(b"x" * 200)
        with pytest.raises(ValueError, match="a record of 4000 bytes does not fit a ring of 4096"):
            writer.write(b"x" * 4000)


@pytest.mark.parametrize("capacity", [0, -4096, 1000, 4097])
def test_a_capacity_that_is_no_number_of_pages_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="a multiple of 4096"):
        RingWriter(capacity)


def test_a_descriptor_without_a_ring_is_refused() -> None:
    fd = os.memfd_create("no-ring")
    os.ftruncate(fd, 3 * SMALL)
    with pytest.raises(JournalError, match=f"descriptor {fd} holds no asynccb ring"):
        RingReader(fd)
    os.close(fd)


def test_closing_twice_closes_once() -> None:
    writer = RingWriter(SMALL)
    fd = writer.fd
    writer.close()
    other = os.open(os.devnull, os.O_RDONLY)  # very likely gets the same number
    writer.close()
    os.fstat(other)
    os.close(other)
    assert fd >= 0
    assert writer.fd == -1
