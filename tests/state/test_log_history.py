"""The log history while the numbers of some entries are on their way."""

from __future__ import annotations

import copy
import json
import pickle
import struct
from collections import deque
from dataclasses import asdict, dataclass, field

import pytest

from asynccb import TrainerState
from asynccb._ring.slots import SIZE, Kind, Part, Slots
from asynccb._staging.staged import Layout, Staged, StagedLog
from asynccb._state.log_history import take_in
from asynccb._state.snapshot import snapshot


@dataclass
class Device:
    """Logs of two numbers, and the memory that they land in."""

    slots: Slots = field(default_factory=lambda: Slots(memoryview(bytearray(SIZE))))
    layout: Layout = field(
        default_factory=lambda: Layout({"b": Part(Kind.FLOAT, 0), "a": Part(Kind.FLOAT, 0)})
    )
    logs: list[StagedLog] = field(default_factory=list)

    def log(self, state: TrainerState, others: dict[str, object] | None = None) -> StagedLog:
        log = StagedLog(2 * len(self.logs), self.layout, self.arrive)
        self.slots.clear(log.position, 2)
        self.logs.append(log)
        late = state.__dict__.setdefault("_late", deque())
        late.append((log, ("a", *(others or {}), "b"), others, len(self.logs)))
        return log

    def arrive(self, log: StagedLog) -> None:
        place = log.position * 8
        struct.pack_into("2d", self.slots.memory, place, log.position + 0.5, log.position)
        (values,) = log.layout.read(self.slots, log.position, 1)
        log.take(values)


@pytest.fixture
def device() -> Device:
    return Device()


def test_reading_the_history_shows_logs_that_are_on_their_way_with_stand_ins(
    device: Device,
) -> None:
    state = TrainerState()
    log = device.log(state, {"rate": 0.5})
    (entry,) = state.log_history
    assert [(key, type(value)) for key, value in entry.items()] == [
        ("a", Staged),
        ("rate", float),
        ("b", Staged),
        ("step", int),
    ]
    device.arrive(log)
    assert entry == {"a": 0, "rate": 0.5, "b": 0.5, "step": 1}
    assert type(entry["a"]) is float


def test_an_entry_that_nobody_reads_before_its_numbers_come_has_numbers(device: Device) -> None:
    state = TrainerState()
    first, second = device.log(state), device.log(state)
    device.arrive(first)
    take_in(state)
    assert vars(state)["log_history"] == [{"a": 0.0, "b": 0.5, "step": 1}]
    device.arrive(second)
    take_in(state)
    assert len(vars(state)["log_history"]) == 2


def test_entries_keep_their_order_whatever_is_appended_in_between(device: Device) -> None:
    state = TrainerState()
    late = device.log(state)
    state.log_history.append({"host": 1.0, "step": 2})
    device.log(state)
    assert [list(entry) for entry in state.log_history] == [
        ["a", "b", "step"],
        ["host", "step"],
        ["a", "b", "step"],
    ]
    device.arrive(late)
    assert state.log_history[0] == {"a": 0.0, "b": 0.5, "step": 1}


def test_another_history_has_nothing_of_the_one_before(device: Device) -> None:
    state = TrainerState()
    device.log(state)
    state.log_history = []
    assert state.log_history == []


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_state_has_every_entry(device: Device, copied) -> None:
    state = TrainerState()
    device.arrive(device.log(state))
    assert copied(state).log_history == [{"a": 0.0, "b": 0.5, "step": 1}]


def test_a_state_is_pickled_and_turned_into_json_with_every_entry(device: Device) -> None:
    state = TrainerState(global_step=3)
    device.arrive(device.log(state))
    entries = [{"a": 0.0, "b": 0.5, "step": 1}]
    assert pickle.loads(pickle.dumps(state)).log_history == entries
    device.arrive(device.log(state))
    assert json.loads(json.dumps(asdict(state)))["log_history"][0] == entries[0]


def test_a_snapshot_has_the_entries_of_its_time(device: Device) -> None:
    state = TrainerState()
    device.arrive(device.log(state))
    before = snapshot(state)
    device.arrive(device.log(state))
    assert len(before.log_history) == 1
    assert len(state.log_history) == 2


def test_a_state_begins_with_an_empty_history_or_the_given_one() -> None:
    assert TrainerState().log_history == []
    assert TrainerState(log_history=[{"loss": 1.0}]).log_history == [{"loss": 1.0}]
    assert TrainerState().log_history is not TrainerState().log_history
