"""A journal's limit: what makes room, what stays, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ground.events import EVENTS, Event
from asynccb._journal.segments import frames_after, payload_at, segments
from asynccb._journal.thinning import thin
from asynccb._journal.writer import JournalWriter
from asynccb._ring.record import END, HISTORY_BIT, LOST, NEVER_DROPPED, RUN, Record
from tests.journal.journals import append, frames, read_with_lost

LOG = EVENTS.index(Event.LOG)
SAVE = EVENTS.index(Event.SAVE)


def record(kind: int, step: int, changes: dict[str, Any] | None = None) -> bytes:
    return msgspec.msgpack.encode(
        (kind, 1000 * step, step, step / 10, HISTORY_BIT, {"loss": 0.5}, changes)
    )


def decoded(data: bytes) -> dict[int, Record]:
    decode = msgspec.msgpack.Decoder(Record).decode
    return {
        number: decode(payload_at(data, payload)) for number, payload, _ in frames_after(-1, data)
    }


def journal_size(folder: Path) -> int:
    return sum(path.stat().st_size for _, path in segments(folder))


class TestThinning:
    def test_neighbours_that_are_dropped_become_one_record_with_all_their_changes(self) -> None:
        before = [
            record(RUN, 0),
            record(LOG, 1, {"max_steps": 9, "best_metric": 1.0}),
            record(LOG, 2),
            record(LOG, 3, {"best_metric": 0.5}),
            record(SAVE, 3),
            record(LOG, 4),
        ]
        thinned, dropped = thin(frames(before, 0))
        after = decoded(thinned)
        assert dropped == 4
        assert list(after) == [0, 3, 4, 5]
        assert [after[0].kind, after[4].kind] == [RUN, SAVE]
        stand_in = after[3]
        assert (stand_in.kind, stand_in.step, stand_in.time) == (LOST, 3, 3000)
        assert stand_in.changes == {"max_steps": 9, "best_metric": 0.5}
        assert stand_in.flags & HISTORY_BIT == 0
        assert after[5].changes is None

    kinds = st.sampled_from([LOG, SAVE, RUN, END, EVENTS.index(Event.STEP_END)])

    @given(st.lists(st.tuples(kinds, st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)))))
    def test_what_is_kept_is_the_same_bytes_and_the_state_comes_out_the_same(
        self, events: list[tuple[int, dict[str, int]]]
    ) -> None:
        before = [record(kind, step, changes) for step, (kind, changes) in enumerate(events)]
        once, dropped = thin(frames(before, 0))
        assert thin(once) == (once, 0)
        assert dropped == sum(kind not in NEVER_DROPPED for kind, _ in events)

        state: dict[str, int] = {}
        for number, found in decoded(once).items():
            state.update(found.changes or {})
            if found.kind != LOST:
                assert found == msgspec.msgpack.decode(before[number], type=Record)
            expected: dict[str, int] = {}
            for _, changes in events[: number + 1]:
                expected.update(changes)
            assert state == expected

    def test_a_record_that_cannot_be_decoded_is_dropped(self) -> None:
        thinned, dropped = thin(frames([record(RUN, 0), b"\xc1", record(END, 1)], 0))
        assert (list(decoded(thinned)), dropped) == ([0, 2], 1)


class TestLimit:
    LIMIT = 40_000
    SEGMENT = 4_000

    async def fill(self, folder: Path, records: int) -> JournalWriter:
        writer = JournalWriter(folder, self.SEGMENT, limit=self.LIMIT)
        await writer.open()
        await append(writer, record(RUN, 0))
        for step in range(1, records):
            await append(writer, record(SAVE if step % 500 == 0 else LOG, step))
        await writer.close()
        return writer

    async def test_the_oldest_events_make_room_and_those_about_the_run_stay(
        self, tmp_path: Path
    ) -> None:
        writer = await self.fill(tmp_path, 3000)
        assert journal_size(tmp_path) <= self.LIMIT
        found, lost = await read_with_lost(tmp_path, writer.next)
        kinds = {number: msgspec.msgpack.decode(data)[0] for number, data in found.items()}
        assert [n for n, kind in kinds.items() if kind == RUN] == [0]
        assert [n for n, kind in kinds.items() if kind == SAVE] == list(range(500, 3000, 500))
        newest = [n for n, kind in kinds.items() if kind == LOG]
        assert {*newest, *(n for n in kinds if n > newest[0])} == set(range(newest[0], 3000))
        assert 300 < len(newest) < 1000
        assert lost + len(found) == 3000

    async def test_it_is_said_when_it_is_near_and_when_it_is_reached_once_each(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await self.fill(tmp_path / "below", 400)
        assert not caplog.records
        await self.fill(tmp_path / "beyond", 3000)
        near, reached = [message.getMessage() for message in caplog.records]
        assert "is at 80 % of its" in near
        assert "are dropped; each tracker counts the events that it misses" in reached

    async def test_a_reader_that_is_behind_goes_on_with_what_is_left(self, tmp_path: Path) -> None:
        writer = await self.fill(tmp_path, 3000)
        found, lost = await read_with_lost(tmp_path, writer.next, position=100)
        assert min(found) > 100
        assert lost + len(found) == 2900

    async def test_what_was_delivered_makes_room_first(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer = JournalWriter(tmp_path, self.SEGMENT, limit=self.LIMIT)
        await writer.open()
        for step in range(3000):
            await append(writer, record(LOG, step))
            if step % 100 == 0:
                await writer.remove_below(writer.next)
        await writer.close()
        assert not caplog.records

    async def test_a_crash_while_room_is_made_leaves_nothing_behind(self, tmp_path: Path) -> None:
        writer = await self.fill(tmp_path, 10)
        left = tmp_path / "00000000000000000000.segment.0f0f0f0f.new"
        left.write_bytes(b"half")
        await writer.open()
        assert not left.exists()
        await writer.close()
