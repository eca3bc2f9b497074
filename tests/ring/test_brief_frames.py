"""Logs that the training writes in brief, and of which the companion makes records."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynccb._companion.landing import Arrivals
from asynccb._journal.writer import split_frames
from asynccb._ring.frame import HEADER, frame_size
from asynccb._ring.frame_writer import BRIEF
from asynccb._ring.ring import RingReader, RingWriter
from asynccb._ring.slots import COUNT, Kind, Part
from asynccb._staging.staged import Layout
from asynccb._staging.staged_logs import pack_layout
from tests.support.callbacks_for_tests import LogWitness, read_lines
from tests.support.hot_paths import choose
from tests.support.running import companion_of, running

SMALL = 4096
ON_LOG = 13
FLOATS = Layout({"loss": Part(Kind.FLOAT, 0), "norm": Part(Kind.FLOAT, 0)})
FORM = pack_layout(["loss", "host", "norm"], FLOATS, {"host": Kind.INTEGER})
HOST = pack_layout(
    ["x", "n", "yes"], Layout({}), {"x": Kind.FLOAT, "n": Kind.INTEGER, "yes": Kind.BOOLEAN}
)


class Ends:
    """Both ends of a small ring."""

    def __init__(self) -> None:
        self.writer = RingWriter(SMALL, checked=False)
        self.open()

    def open(self) -> None:
        self.reader = RingReader(os.dup(self.writer.fd))
        self.arrivals = Arrivals(self.reader.slots, self.reader.forms)

    def land(self, position: int, *values: float) -> None:
        place = position % COUNT * 8
        self.writer.slots.memory[place : place + 8 * len(values)] = struct.pack(
            f"{len(values)}d", *values
        )

    def read(self) -> list[tuple[int, list[Any]]]:
        """Return ids and records that the reader finds, as the journal gets them."""
        frames, _, _ = self.reader.read(self.arrivals)
        found = []
        for number, start, _ in split_frames(frames):
            length = HEADER.unpack_from(frames, start - HEADER.size)[0]
            found.append((number, msgspec.msgpack.decode(frames[start : start + length])))
        return found

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choose(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def ends(way: str) -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()


def brief(
    ends: Ends, form: int, step: int, *, position: int = 0, host: int = 9, epoch: float = 0.5
) -> bool:
    """Write a log of `FORM` at time 5, with flags 3."""
    packed = struct.pack("<q", host)
    return ends.writer.frames.write_brief(form, 5, step, 3, position, epoch, packed, True)


def test_a_brief_log_becomes_the_record_that_it_stands_for_when_its_values_have_landed(
    ends: Ends,
) -> None:
    form = ends.writer.forms.add(FORM)
    ends.writer.slots.clear(8, 2)
    assert brief(ends, form, 7, position=8)
    assert ends.read() == []

    ends.land(8, 0.25, -1.0)

    ((number, record),) = ends.read()
    assert (number, record) == (0, [ON_LOG, 5, 7, 0.5, 3, {"loss": 0.25, "host": 9, "norm": -1}])
    assert list(record[5]) == ["loss", "host", "norm"]
    ends.reader.release()
    assert ends.writer.slots_read == 10
    assert ends.writer.used == 0


def test_a_companion_that_is_started_later_makes_the_same_record(ends: Ends) -> None:
    form = ends.writer.forms.add(FORM)
    ends.land(0, 1.0, 2.0)
    brief(ends, form, 7)
    first = ends.read()
    ends.reader.close()

    ends.open()

    assert ends.read() == first != []


def test_values_that_a_dead_training_left_on_the_device_are_left_out_of_a_brief_log(
    ends: Ends,
) -> None:
    form = ends.writer.forms.add(FORM)
    ends.writer.slots.clear(0, 2)
    brief(ends, form, 7)
    ends.land(0, 0.5)

    ends.arrivals.over = True

    assert ends.read() == [(0, [ON_LOG, 5, 7, 0.5, 3, {"loss": 0.5, "host": 9}])]
    assert ends.arrivals.lost == 1


def test_numbers_of_the_host_are_in_the_frame_itself(ends: Ends) -> None:
    form = ends.writer.forms.add(HOST)
    numbers = struct.pack("<dqq", 0.1, -(1 << 63), 1)
    assert ends.writer.frames.write_brief(form, 5, 7, 0, 0, 0.0, numbers, False)
    expected = {"x": 0.1, "n": -(1 << 63), "yes": True}
    assert ends.read() == [(0, [ON_LOG, 5, 7, 0.0, 0, expected])]
    ends.reader.release()
    assert ends.writer.slots_read == 0


def test_a_ring_whose_frames_are_checked_has_no_brief_ones() -> None:
    writer = RingWriter(SMALL, checked=True)
    assert writer.number_form(FORM) == 0
    writer.close()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("brief"), st.integers(-(1 << 63), (1 << 63) - 1)),
        st.tuples(st.just("whole"), st.integers(0, 600)),
        st.sampled_from([("read", 0), ("release", 0), ("open again", 0)]),
    ),
    max_size=80,
)


@given(operations)
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_brief_and_whole_records_are_read_once_and_in_the_order_they_were_written(
    way: str, steps: list[tuple[str, int]]
) -> None:
    ends = Ends()
    form = ends.writer.forms.add(FORM)
    written: list[list[Any]] = []
    seen = released = 0
    for kind, size in steps:
        number = len(written)
        record = [ON_LOG, 5, number, 0.5, 3]
        if kind == "brief":
            ends.land(2 * number, float(number), 0.5)
            if brief(ends, form, number, position=2 * number, host=size):
                written.append([*record, {"loss": float(number), "host": size, "norm": 0.5}])
        elif kind == "whole":
            record.append({"text": "x" * size})
            if ends.writer.write(msgspec.msgpack.encode(record)):
                written.append(record)
        elif kind == "release":
            ends.reader.release()
            released = seen
        elif kind == "open again":
            ends.reader.close()
            ends.open()
            seen = released
        else:
            assert ends.read() == list(enumerate(written))[seen:]
            seen = len(written)
    assert ends.read() == list(enumerate(written))[seen:]
    assert ends.writer.written == len(written)
    ends.close()


@pytest.mark.parametrize("killed", [False, True])
def test_brief_logs_reach_the_hooks_of_a_companion_also_of_one_that_was_started_later(
    tmp_path: Path, killed: bool, way: str
) -> None:
    witness = LogWitness(tmp_path / "output")
    with running(witness, directory=tmp_path / "runs") as run:
        run.step(logs={"plain": 1.0})
        companion = companion_of(run)
        ring = companion.ring
        form = ring.number_form(FORM)
        if not form:
            pytest.skip("this machine reorders stores, so that its rings have no brief frames")
        for step in range(2, 302):
            place = 2 * step * 8
            ring.slots.memory[place : place + 16] = struct.pack("2d", step, 0.5)
            host = struct.pack("<q", step)
            assert ring.frames.write_brief(form, 5, step, 0, 2 * step, 0.5, host, True)
            if killed and step == 150:
                os.kill(companion.pid, signal.SIGKILL)
        assert run.flush(30)
    found = {line["step"]: line["logs"] for line in read_lines(witness.path)}
    expected = {step: {"loss": step, "host": step, "norm": 0.5} for step in range(2, 302)}
    assert found == {1: {"plain": 1.0}, **expected}


def test_a_brief_log_takes_as_much_of_the_ring_as_its_fields(ends: Ends) -> None:
    form = ends.writer.forms.add(FORM)
    assert brief(ends, form, 7)
    assert ends.writer.used == frame_size(BRIEF.size + 8) == 64


def test_a_ring_without_room_takes_no_brief_frame(ends: Ends) -> None:
    form = ends.writer.forms.add(FORM)
    while brief(ends, form, 7):
        pass
    assert ends.writer.used == SMALL
    assert ends.writer.written == SMALL // 64
