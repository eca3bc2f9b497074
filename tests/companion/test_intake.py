"""From the ring to the journal, where the disk refuses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from asynccb._companion.intake import Intake
from asynccb._companion.landing import Arrivals
from asynccb._ground.events import EVENTS, Event
from asynccb._journal.reader import JournalReader
from asynccb._journal.tail import Tail
from asynccb._journal.writer import JournalWriter
from asynccb._ring.record import LOST, RUN
from asynccb._ring.ring import RingReader, RingWriter
from tests.journal.journals import files_no_larger_than, read_with_lost

CAPACITY = 64 << 10
LOG = EVENTS.index(Event.LOG)


def record(kind: int, step: int) -> bytes:
    return msgspec.msgpack.encode((kind, 0, step, 0.0, 0, {"text": "x" * 1000}))


@pytest.fixture
def ring() -> Iterator[tuple[RingWriter, RingReader]]:
    writer = RingWriter(CAPACITY)
    reader = RingReader(os.dup(writer.fd))
    yield writer, reader
    reader.close()
    writer.close()


async def written(intake: Intake) -> None:
    """Take until the disk has taken everything, too."""
    with anyio.fail_after(20):
        while await intake.take() or not intake.is_empty:
            await anyio.sleep(0.01)


async def read_on(reader: JournalReader, end: int) -> list[int]:
    """Return the ids of the records that a lane reads."""
    ids: list[int] = []
    while reader.position < end:
        ids += [number for number, _ in await reader.read(end, 50)]
    return ids


class TestFullDisk:
    async def test_what_fits_the_ring_waits_there_and_is_not_lost(
        self, tmp_path: Path, ring: tuple[RingWriter, RingReader], caplog: pytest.LogCaptureFixture
    ) -> None:
        writer, reader = ring
        journal = JournalWriter(tmp_path)
        await journal.open()
        intake = Intake(reader, Arrivals(reader.slots, reader.forms), journal)
        with files_no_larger_than(100):
            for step in range(20):
                assert writer.write(record(LOG, step))
                assert await intake.take()
        assert reader.used > 20_000  # a companion that dies now loses nothing
        assert intake.taken == 20
        assert not intake.is_empty
        await written(intake)
        assert reader.used == 0
        assert intake.is_empty
        await journal.close()
        found, lost = await read_with_lost(tmp_path, 20)
        assert (list(found), lost) == (list(range(20)), 0)
        assert [r.getMessage().partition(" (")[0] for r in caplog.records] == [
            "the journal cannot be written",
            "the journal can be written again; 0 events were dropped meanwhile",
        ]

    async def test_lanes_read_what_the_disk_has_and_then_what_it_has_not(
        self, tmp_path: Path, ring: tuple[RingWriter, RingReader]
    ) -> None:
        writer, reader = ring
        journal = JournalWriter(tmp_path)
        await journal.open()
        intake = Intake(reader, Arrivals(reader.slots, reader.forms), journal)
        lane = JournalReader(tmp_path, 0, intake.tail)
        for step in range(10):
            assert writer.write(record(LOG, step))
        await written(intake)
        assert await read_on(lane, 5) == list(range(5))
        with files_no_larger_than(100):
            for step in range(10, 500):
                assert writer.write(record(LOG, step))
                assert await intake.take()
            assert await read_on(lane, intake.taken) == list(range(5, 500))
            for step in range(500, 520):
                assert writer.write(record(LOG, step))
                await intake.take()
            assert await read_on(lane, 505) == list(range(500, 505))
        await written(intake)
        for step in range(520, 530):
            assert writer.write(record(LOG, step))
        await written(intake)
        assert await read_on(lane, 530) == list(range(505, 530))
        assert lane.lost == 0
        await lane.close()
        await journal.close()
        found, lost = await read_with_lost(tmp_path, 530)
        assert (list(found), lost) == (list(range(530)), 0)

    async def test_memory_is_bounded_the_oldest_events_go_and_what_is_about_the_run_is_kept(
        self, tmp_path: Path, ring: tuple[RingWriter, RingReader], caplog: pytest.LogCaptureFixture
    ) -> None:
        writer, reader = ring
        journal = JournalWriter(tmp_path)
        await journal.open()
        limit = 500_000
        intake = Intake(reader, Arrivals(reader.slots, reader.forms), journal, tail=Tail(limit))
        total = 2000
        with files_no_larger_than(100):
            for step in range(total):
                assert writer.write(record(RUN if step % 500 == 0 else LOG, step))
                await intake.take()
                assert sum(len(chunk.frames) for chunk in intake.tail.chunks) < limit + 2000
        await written(intake)
        await journal.close()
        assert journal.next == total

        found, lost = await read_with_lost(tmp_path, total)
        kinds = {number: msgspec.msgpack.decode(payload)[0] for number, payload in found.items()}
        assert [number for number, kind in kinds.items() if kind == RUN] == [0, 500, 1000, 1500]
        stand_ins = [number for number, kind in kinds.items() if kind == LOST]
        dropped = lost + len(stand_ins)
        assert total - 500 < dropped < total
        assert not [number for number in stand_ins if number > total - 100]
        assert f"{dropped} events were dropped meanwhile" in caplog.text

    async def test_what_every_lane_has_passed_goes_first_and_is_no_loss(
        self, tmp_path: Path, ring: tuple[RingWriter, RingReader], caplog: pytest.LogCaptureFixture
    ) -> None:
        writer, reader = ring
        journal = JournalWriter(tmp_path)
        await journal.open()
        tail = Tail(500_000)
        lane = JournalReader(tmp_path, 0, tail)
        intake = Intake(
            reader,
            Arrivals(reader.slots, reader.forms),
            journal,
            tail=tail,
            passed=lambda: lane.position,
        )
        with files_no_larger_than(100):
            for step in range(3000):
                assert writer.write(record(LOG, step))
                await intake.take()
                if step % 100 == 99:
                    await read_on(lane, intake.taken)
        assert lane.position == 3000
        assert lane.lost == 0
        await written(intake)
        assert "0 events were dropped meanwhile" in caplog.text
        await journal.close()

    async def test_where_the_next_segment_cannot_be_begun(
        self, tmp_path: Path, ring: tuple[RingWriter, RingReader]
    ) -> None:
        writer, reader = ring
        journal = JournalWriter(tmp_path / "journal", segment_size=1)
        await journal.open()
        intake = Intake(reader, Arrivals(reader.slots, reader.forms), journal)
        assert writer.write(record(LOG, 0))
        await written(intake)
        (tmp_path / "journal").rename(tmp_path / "away")
        assert writer.write(record(LOG, 1))
        begin = time.monotonic()
        await intake.take()
        assert not intake.is_empty
        (tmp_path / "away").rename(tmp_path / "journal")
        await written(intake)
        assert time.monotonic() - begin < 20
        await journal.close()
        found, lost = await read_with_lost(tmp_path / "journal", 2)
        assert (list(found), lost) == ([0, 1], 0)
