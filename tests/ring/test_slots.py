"""Values on their way from a device, as both processes see them; no device is needed."""

from __future__ import annotations

import copy
import math
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from asynccb._companion.landing import Arrivals
from asynccb._journal.writer import split_frames
from asynccb._lanes.lane import arrived
from asynccb._ring.frame import HEADER
from asynccb._ring.ring import RingReader, RingWriter
from asynccb._ring.slots import COUNT, Kind, Part, Slots
from asynccb._staging.staged import EXTENSION, Layout, Staged, StagedLog


@contextmanager
def both_ends() -> Iterator[tuple[RingWriter, RingReader]]:
    writer = RingWriter(4096)
    reader = RingReader(os.dup(writer.fd))
    try:
        yield writer, reader
    finally:
        reader.close()
        writer.close()


def land(writer: RingWriter, position: int, form: str, *values: object) -> None:
    """Write values as a device would."""
    place = position % COUNT * 8
    packed = struct.pack(f"{len(values)}{form}", *values)
    writer.slots.memory[place : place + len(packed)] = packed


def take(log: StagedLog, slots: Slots) -> None:
    """Take in a log that has landed."""
    (values,) = log.layout.read(slots, log.position, 1)
    log.take(values)


def staged(position: int, *parts: Part) -> StagedLog:
    return StagedLog(position, Layout({str(n): part for n, part in enumerate(parts)}), _never)


def _never(log: StagedLog) -> None:
    raise AssertionError("nothing here waits for a device")


def record(log: StagedLog, *keys: str) -> bytes:
    """Return a record whose logs hold, beside a number, stand-ins for the values of `log`."""
    values = {key: Staged(log, index) for index, key in enumerate(keys)}
    encoder = msgspec.msgpack.Encoder(
        enc_hook=lambda value: msgspec.msgpack.Ext(EXTENSION, value.reference())
    )
    return encoder.encode((13, 5, 7, 0.5, 0, {"host": 1.5, **values}))


def logs(frames: bytes) -> list[dict[str, object]]:
    found = []
    for _, start, _ in split_frames(frames):
        length = HEADER.unpack_from(frames, start - HEADER.size)[0]
        found.append(msgspec.msgpack.decode(frames[start : start + length])[5])
    return found


FLOAT, INTEGER, BOOLEAN = Part(Kind.FLOAT, 0), Part(Kind.INTEGER, 0), Part(Kind.BOOLEAN, 0)


def test_a_record_waits_in_the_ring_until_its_values_have_landed() -> None:
    with both_ends() as (writer, reader):
        arrivals = Arrivals(reader.slots, reader.forms)
        writer.slots.clear(0, 2)
        writer.write(record(staged(0, FLOAT, FLOAT), "loss", "norm"), staged=True)
        writer.write(msgspec.msgpack.encode((13, 5, 8, 0.5, 0, {"later": 1})))
        assert reader.read(arrivals) == (b"", -1, -1)

        land(writer, 0, "d", 0.25)
        assert reader.read(arrivals)[0] == b""
        land(writer, 1, "d", -3.0)

        frames, first, last = reader.read(arrivals)
        assert logs(frames) == [{"host": 1.5, "loss": 0.25, "norm": -3.0}, {"later": 1}]
        assert (first, last) == (0, 1)


def test_the_slots_of_a_record_are_given_back_with_its_room_in_the_ring() -> None:
    with both_ends() as (writer, reader):
        writer.slots.clear(10, 1)
        writer.write(record(staged(10, FLOAT), "loss"), staged=True)
        land(writer, 10, "d", 1.0)
        reader.read(Arrivals(reader.slots, reader.forms))
        assert writer.slots_read == 0

        reader.release()

        assert writer.slots_read == 11


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 5e-324, -0.0, 1.7e308])
def test_a_float_arrives_bit_for_bit(value: float) -> None:
    with both_ends() as (writer, _):
        writer.slots.clear(3, 1)
        land(writer, 3, "d", value)
        log = staged(3, FLOAT)
        assert writer.slots.landed(log.position, log.layout.count)
        take(log, writer.slots)
        assert struct.pack("d", Staged(log, 0).value()) == struct.pack("d", value)


@pytest.mark.parametrize(
    "parts", [(FLOAT, FLOAT), (INTEGER,), (BOOLEAN, FLOAT, Part(Kind.FLOAT, 3))]
)
def test_logs_that_are_alike_are_read_together(parts: tuple[Part, ...]) -> None:
    with both_ends() as (writer, _):
        one = staged(8, *parts).layout
        for slot in range(8, 8 + 5 * one.count):
            land(writer, slot, "q", 3 + slot)
        together = list(one.read(writer.slots, 8, 5))
        assert together == [next(one.read(writer.slots, 8 + n * one.count, 1)) for n in range(5)]
        assert len({repr(values) for values in together}) == (1 if parts == (BOOLEAN,) else 5)


def test_integers_truth_values_and_rows_arrive_as_what_they_were() -> None:
    with both_ends() as (writer, _):
        log = staged(0, INTEGER, BOOLEAN, Part(Kind.FLOAT, 3), BOOLEAN)
        writer.slots.clear(0, log.layout.count)
        land(writer, 0, "q", -(2**62), 1)
        land(writer, 2, "d", 1.0, 2.0, 3.0)
        assert not writer.slots.landed(log.position, log.layout.count)
        land(writer, 5, "q", 0)
        assert writer.slots.landed(log.position, log.layout.count)
        take(log, writer.slots)
        values = [Staged(log, index).value() for index in range(4)]
        assert values == [-(2**62), True, [1.0, 2.0, 3.0], False]
        assert [type(value) for value in values] == [int, bool, list, bool]


def test_values_whose_slots_were_used_again_are_left_out_and_counted_never_mixed_up() -> None:
    with both_ends() as (writer, reader):
        writer.write(record(staged(0, FLOAT, FLOAT), "loss", "norm"), staged=True)
        land(writer, 0, "d", 7.0, 8.0)  # of another log, a lap later
        arrivals = Arrivals(reader.slots, reader.forms)
        arrivals.forget()
        assert logs(reader.read(arrivals)[0]) == [{"host": 1.5}]
        assert arrivals.lost == 2


def test_values_that_a_dead_training_left_on_the_device_are_left_out_and_counted() -> None:
    with both_ends() as (writer, reader):
        arrivals = Arrivals(reader.slots, reader.forms)
        writer.slots.clear(0, 2)
        writer.write(record(staged(0, FLOAT, FLOAT), "loss", "norm"), staged=True)
        land(writer, 0, "d", 0.5)
        assert reader.read(arrivals)[0] == b""

        arrivals.over = True

        assert logs(reader.read(arrivals)[0]) == [{"host": 1.5, "loss": 0.5}]
        assert arrivals.lost == 1


def test_a_reader_that_died_before_the_release_leaves_the_values_to_the_next_one() -> None:
    with both_ends() as (writer, reader):
        writer.slots.clear(0, 1)
        writer.write(record(staged(0, FLOAT), "loss"), staged=True)
        land(writer, 0, "d", 0.5)
        reader.read(Arrivals(reader.slots, reader.forms))
        after = RingReader(os.dup(writer.fd))
        assert logs(after.read(Arrivals(after.slots, after.forms))[0]) == [
            {"host": 1.5, "loss": 0.5}
        ]
        after.close()


def test_a_stand_in_behaves_as_its_number_once_that_is_here() -> None:
    with both_ends() as (writer, _):
        log = staged(0, FLOAT, INTEGER)
        writer.slots.clear(0, 2)
        number, integer = Staged(log, 0), Staged(log, 1)
        assert not number.landed
        assert "on its way" in repr(number)
        land(writer, 0, "d", 0.125)
        land(writer, 1, "q", 3)
        take(log, writer.slots)
        assert number.landed
        assert (float(number), int(integer), bool(number)) == (0.125, 3, True)
        assert number < 0.5
        assert integer > number
        assert number == 0.125
        assert f"{number:.4g}" == "0.125"
        assert repr(number) == "0.125"


async def test_who_waits_for_a_number_on_a_loop_needs_nobody_else_to_take_it_in() -> None:
    with both_ends() as (writer, _):
        landings = iter((False, True))

        def look() -> None:
            if next(landings):
                land(writer, 0, "d", 0.5)
                take(log, writer.slots)

        log = StagedLog(0, Layout({"loss": FLOAT}), _never, look)
        assert await arrived({"loss": Staged(log, 0), "epoch": 1}) == {"loss": 0.5, "epoch": 1}


def test_a_stand_in_waits_for_its_number_when_that_is_asked_for() -> None:
    with both_ends() as (writer, _):

        def arrive(log: StagedLog) -> None:
            land(writer, 0, "d", 2.5)
            take(log, writer.slots)

        writer.slots.clear(0, 1)
        assert float(Staged(StagedLog(0, Layout({"loss": FLOAT}), arrive), 0)) == 2.5


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_a_copy_of_a_stand_in_is_its_number(copied: Callable[[Staged], object]) -> None:
    log = staged(0, FLOAT)
    log.take([0.5])
    assert type(copied(Staged(log, 0))) is float
    assert copied({"loss": Staged(log, 0)}["loss"]) == 0.5
