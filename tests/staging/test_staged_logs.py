"""The form that logs with values on their way have in a record."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynccb._ring.ring import RingWriter
from asynccb._ring.slots import COUNT, EMPTY, Kind, Part, Slots
from asynccb._staging.staged import Layout, StagedLog
from asynccb._staging.staged_logs import LogPacker, LogUnpacker, StagedLogs

values = st.one_of(
    st.tuples(st.just("f"), st.floats(allow_nan=False)),
    st.tuples(st.just("i"), st.integers(-(2**63), 2**63 - 1).filter(lambda n: n != EMPTY)),
    st.tuples(st.just("b"), st.booleans()),
    st.tuples(st.just("row"), st.lists(st.floats(allow_nan=False), min_size=2, max_size=5)),
    st.tuples(st.just("plain"), st.one_of(st.integers(-5, 5), st.text(max_size=3), st.none())),
)


def never(*args: Any) -> Any:
    raise AssertionError("everything has landed")


def part_of(kind: str, value: Any) -> Part:
    if kind == "row":
        return Part(Kind.FLOAT, len(value))
    return Part({"f": Kind.FLOAT, "i": Kind.INTEGER, "b": Kind.BOOLEAN}[kind], 0)


def land(slots: Slots, log: StagedLog, logs: dict[str, tuple[str, Any]]) -> None:
    for index, key in enumerate(log.layout.keys):
        kind, value = logs[key]
        numbers = value if kind == "row" else [int(value) if kind == "b" else value]
        form = "q" if kind in "ib" else "d"
        place = (log.position + log.layout.offsets[index]) % COUNT * 8
        packed = struct.pack(f"{len(numbers)}{form}", *numbers)
        slots.memory[place : place + len(packed)] = packed


@given(st.lists(st.dictionaries(st.text(max_size=4), values, min_size=1), max_size=4), st.data())
def test_what_is_packed_is_unpacked_with_keys_in_order_and_each_value_in_its_place(
    run: list[dict[str, tuple[str, Any]]], data: st.DataObject
) -> None:
    ring = RingWriter(4096)
    packer, unpacker = LogPacker(msgspec.msgpack.encode), LogUnpacker(ring.slots)
    position = data.draw(st.integers(0, COUNT * 3).filter(lambda p: p % COUNT < COUNT - 500))
    for logs in run * 2:  # the second time the layouts are known
        staged = [key for key, (kind, _) in logs.items() if kind != "plain"]
        if not staged:
            continue
        order = data.draw(st.permutations(staged))  # slots are in the order of the dtypes
        log = StagedLog(position, Layout({key: part_of(*logs[key]) for key in order}), never)
        given_logs = {key: value for key, (_, value) in logs.items()}
        ring.slots.clear(position, log.layout.count)
        land(ring.slots, log, logs)

        body = packer.pack(StagedLogs.of(given_logs, log)).data
        found, end = unpacker.unpack(memoryview(body), never)

        assert list(found.items()) == [(key, value) for key, (_, value) in logs.items()]
        assert end == position + log.layout.count
    ring.close()


def staged_logs(first: int = 0) -> StagedLogs:
    log = StagedLog(first, Layout({"a": Part(Kind.FLOAT, 0), "b": Part(Kind.FLOAT, 0)}), never)
    return StagedLogs.of({"a": 0, "host": 1.0, "b": 0}, log)


def test_logs_are_whole_while_every_stand_in_is_in_its_place() -> None:
    logs = staged_logs()
    assert logs.is_whole
    logs["host"] = 2.0
    assert logs.is_whole


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: logs.pop("a"),
        lambda logs: logs.update(more=1.0),
        lambda logs: logs.update(a=logs["b"], b=logs["a"]),
        lambda logs: logs.update(a=staged_logs(8)["a"]),
        lambda logs: logs.update(a=0.5),
    ],
)
def test_logs_that_a_hook_has_changed_a_value_of_are_not_whole(change: Any) -> None:
    logs = staged_logs()
    change(logs)
    assert not logs.is_whole


def test_a_history_entry_gets_the_numbers_where_it_still_has_their_stand_ins() -> None:
    logs = staged_logs()
    whole, changed, late = dict(logs), {**logs, "a": "mine"}, dict(logs)
    logs.log.watch(whole)
    logs.log.take([0.5, 1.5])
    logs.log.watch(changed)
    logs.log.watch(late)
    assert whole == late == {"a": 0.5, "host": 1.0, "b": 1.5}
    assert changed == {"a": "mine", "host": 1.0, "b": 1.5}
