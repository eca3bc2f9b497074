"""Logs of a known form, by compiled code and by its twin in plain Python."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynccb._ring.frame import HEADER
from asynccb._staging.staging import Staging
from asynccb._state.control import TrainerControl
from asynccb._state.trainer_state import TrainerState
from tests.support.callbacks_for_tests import LogWitness, read_lines
from tests.support.hot_paths import Loop, Route, choose
from tests.support.running import running

WAYS = ["compiled", "plain"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choose(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def loop(way: str) -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@dataclass
class Sight:
    """What a loop leaves behind."""

    answers: list[bool]
    records: list[Any] = field(default_factory=list)
    history: list[Any] = field(default_factory=list)
    step: int = 0
    flags: list[bool] = field(default_factory=list)


NUMBERS = {
    "float": 0.1,
    "integer": -7,
    "boolean": True,
    "float32": np.float32(0.1),
    "float64": np.float64(0.1),
    "float16": np.float16(0.1),
    "int8": np.int8(-3),
    "uint64": np.uint64(1 << 62),
    "bool_": np.bool_(True),
    "nan": math.nan,
    "infinity": -math.inf,
    "zero below": -0.0,
}
DTYPES = [
    getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"),
        *("uint64", "uint32", "uint16", "uint8", "bool"),
    )
]


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_arrives_as_it_would_by_the_general_way(loop: Loop, name: str) -> None:
    value = NUMBERS[name]
    expected = Staging(lambda: loop.ring.slots, lambda: 0, "block").plain({"x": value})["x"]
    loop.forms.learn({"x": value})
    assert loop.known.step({"x": value})
    ((_, _, step, _, _, logs),) = loop.records()
    assert step == 1
    assert same(logs["x"], expected)
    assert same(loop.state.log_history[0]["x"], expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("raw", [0, 1, 3])
def test_a_tensor_in_host_memory_arrives_as_its_item(
    loop: Loop, dtype: torch.dtype, raw: int
) -> None:
    tensor = (torch.tensor([0, 1, 0, 5], dtype=dtype) / 1).to(dtype)[raw]
    loop.forms.learn({"x": tensor})
    assert loop.known.step({"x": tensor})
    (record,) = loop.records()
    assert same(record[5]["x"], tensor.item())
    assert same(loop.state.log_history[0]["x"], tensor.item())


@given(st.integers(0, (1 << 16) - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_float16_arrives_bit_for_bit(way: str, bits: int) -> None:
    loop = Loop()
    for dtype in (torch.float16, torch.bfloat16):
        tensor = torch.tensor(bits, dtype=torch.uint16).view(dtype)
        loop.forms.learn({"x": tensor})
        assert loop.known.log({"x": tensor})
        assert repr(loop.state.log_history[-1]["x"]) == repr(tensor.item())
    loop.close()


def test_the_imaginary_part_of_a_conjugate_has_its_sign(loop: Loop) -> None:
    plain, negative = torch.tensor(2.0), torch.tensor(1 + 2j).conj().imag
    assert negative.is_neg()
    loop.forms.learn({"x": plain})
    assert not loop.known.step({"x": negative}) or loop.state.log_history[0]["x"] == -2.0


@pytest.mark.parametrize(
    "other",
    [
        {"x": "text"},
        {"x": None},
        {"x": 1},
        {"x": [1.0]},
        {"y": 1.0},
        {"x": 1.0, "y": 1.0},
        {},
        {1: 1.0},
        {"x": np.float32(1)},
        {"x": torch.ones(2)},
        {"x": torch.ones(())},
        {"x": torch.ones((), device="meta")},
    ],
    ids=str,
)
def test_a_log_of_another_form_is_declined_and_changes_nothing(
    loop: Loop, other: dict[Any, Any]
) -> None:
    loop.forms.learn({"x": 1.0})
    assert not loop.known.step(other)
    assert not loop.known.log(other)
    assert (loop.state.global_step, loop.state.log_history, loop.records()) == (0, [], [])


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 1 << 70])
def test_an_integer_of_more_than_64_bits_is_declined(loop: Loop, value: int) -> None:
    loop.forms.learn({"x": 1})
    assert not loop.known.log({"x": value})
    assert loop.known.log({"x": (1 << 63) - 1})
    assert [entry["x"] for entry in loop.state.log_history] == [(1 << 63) - 1]


def spoil(loop: Loop, what: str) -> None:
    emitter = loop.emitter
    match what:
        case "another route of on_log":
            emitter["routes"] = {**emitter["routes"], "on_log": Route("log")}
        case "no routes":
            emitter["routes"] = type("Refusing", (dict,), {})(emitter["routes"])
        case "another state":
            emitter["state"] = type("Mine", (TrainerState,), {})()
        case "another control":
            emitter["control"] = type("Mine", (TrainerControl,), {})()
        case "a fault":
            loop.faults.append(ValueError())
        case "a field that changed":
            loop.state.best_metric = 0.5
        case "a step that is no integer":
            loop.state.global_step = 1.0  # type: ignore[assignment]
        case "a step below zero":
            loop.state.global_step = -5
        case "a flag that is no bool":
            loop.control.should_training_stop = 1  # type: ignore[assignment]
        case "records that wait":
            loop.shared.held = True
        case "a look that is due":
            loop.shared.next_look = 0
        case "an epoch that is text":
            loop.state.epoch = "1"  # type: ignore[assignment]
        case "a history that is no list":
            loop.state.__dict__["log_history"] = ()
        case "a history that the companion lacks":
            loop.shared.wants_history = True


@pytest.mark.parametrize(
    "what",
    [
        *("another route of on_log", "no routes", "another state", "another control", "a fault"),
        *("a field that changed", "a step that is no integer", "a step below zero"),
        *("a flag that is no bool", "records that wait", "a look that is due"),
        *("an epoch that is text", "a history that is no list"),
        "a history that the companion lacks",
    ],
)
def test_anything_unusual_is_declined_and_changes_nothing(loop: Loop, what: str) -> None:
    loop.forms.learn({"x": 1.0})
    assert loop.known.log({"x": 1.0})
    spoil(loop, what)
    before = loop.state.global_step
    assert not loop.known.step({"x": 1.0})
    assert not loop.known.log({"x": 1.0})
    assert loop.state.global_step == before
    assert loop.ring.written == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("quiet", False), ("last_boundary", 5), ("_awaits_begin", True), ("_max_steps", 1)],
)
def test_a_step_whose_boundary_is_not_quiet_is_declined(
    loop: Loop, name: str, value: object
) -> None:
    loop.forms.learn({"x": 1.0})
    if name in loop.emitter:
        loop.emitter[name] = value
    else:
        setattr(loop.shared, name, value)
    assert not loop.known.step({"x": 1.0})
    assert not loop.known.step(None)
    assert loop.known.log({"x": 1.0})


def test_a_step_clears_the_flags_of_the_step_before_and_keeps_those_of_the_run(loop: Loop) -> None:
    for flag in ("should_save", "should_evaluate", "should_log", "should_training_stop"):
        setattr(loop.control, flag, True)
    assert loop.known.step(None)
    assert loop.control == TrainerControl(should_training_stop=True)
    assert loop.state.global_step == loop.shared.last_boundary == 1


def test_a_log_without_history_leaves_it_alone(loop: Loop) -> None:
    loop.forms.learn({"x": 1.0})
    assert loop.known.emit({"logs": {"x": 1.0}})
    assert not loop.known.emit({"logs": {"x": 1.0}, "more": 1})
    assert not loop.known.emit({"metrics": {"x": 1.0}})
    assert loop.state.log_history == []
    assert len(loop.records()) == 1


def test_a_ring_without_room_declines_and_changes_nothing(way: str) -> None:
    loop = Loop(capacity=4096)
    loop.forms.learn({"x": 1.0})
    while loop.known.step({"x": 1.0}):
        pass
    steps = loop.state.global_step
    assert steps == loop.ring.written == len(loop.state.log_history) == 4096 // 64
    loop.close()


def test_known_logs_that_are_closed_decline(loop: Loop) -> None:
    loop.forms.learn({"x": 1.0})
    loop.known.close()
    assert not loop.known.step({"x": 1.0})
    assert not loop.known.step(None)
    assert not loop.known.emit({"logs": {"x": 1.0}})


def test_a_form_whose_dtype_has_changed_is_made_anew(loop: Loop) -> None:
    loop.forms.learn({"x": torch.tensor(1.5)})
    later = torch.tensor(2.5, dtype=torch.float64)
    assert not loop.known.log({"x": later})
    loop.forms.learn({"x": later})
    assert loop.known.log({"x": later})
    assert loop.state.log_history == [{"x": 2.5, "step": 0}]


def test_more_forms_than_are_kept_are_learned_one_after_the_other(loop: Loop) -> None:
    for number in range(300):
        logs = {f"x{number}": 1.0}
        loop.forms.learn(logs)
        assert loop.known.log(logs)
        loop.forms.learn(logs)
        assert loop.known.log(logs)
    assert len(loop.records()) == 600


def test_names_that_are_equal_but_other_objects_are_the_same_form(loop: Loop) -> None:
    loop.forms.learn({"loss/0": 1.0})
    assert loop.known.log({"/".join(["loss", "0"]): 2.0})
    assert loop.state.log_history == [{"loss/0": 2.0, "step": 0}]


values = st.one_of(
    st.floats(),
    st.integers(-(1 << 64), 1 << 64),
    st.booleans(),
    st.floats(width=32).map(np.float32),
    st.floats(width=32).map(torch.tensor),
    st.just("text"),
)
logs_of_a_loop = st.dictionaries(st.sampled_from(["a", "b", "ü", "loss"]), values, max_size=4)
calls = st.lists(
    st.tuples(st.sampled_from(["step", "log", "emit", "count", "learn", "change"]), logs_of_a_loop),
    max_size=30,
)


def play(steps: list[tuple[str, Any]]) -> Sight:
    """Return what a loop leaves behind; frames without their times."""
    loop = Loop()
    sight = Sight([])
    for kind, logs in steps:
        match kind:
            case "step":
                sight.answers.append(loop.known.step(dict(logs)))
            case "log":
                sight.answers.append(loop.known.log(dict(logs)))
            case "emit":
                sight.answers.append(loop.known.emit({"logs": dict(logs)}))
            case "count":
                sight.answers.append(loop.known.step(None))
            case "learn":
                loop.forms.learn(dict(logs))
            case "change":
                loop.state.epoch = float(len(logs))
                loop.control.should_save = bool(logs)
    memory = bytearray(loop.ring._map[4096 : 4096 + loop.ring.used])
    place = 0
    while place < len(memory):
        length = HEADER.unpack_from(memory, place)[0] & 0x3FFFFFFF
        memory[place + 16 : place + 24] = bytes(8)
        place += 16 + (length + 7 & ~7)
    sight.records = [bytes(memory), loop.ring.forms._numbers]
    sight.history = [repr(entry) for entry in loop.state.log_history]
    sight.step, sight.flags = loop.state.global_step, list(vars(loop.control).values())
    loop.close()
    return sight


@given(calls)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_both_ways_write_the_same_frames_and_leave_the_same_behind(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, Any]]
) -> None:
    with monkeypatch.context() as patch:
        choose("compiled", patch)
        compiled = play(steps)
    with monkeypatch.context() as patch:
        choose("plain", patch)
        plain = play(steps)
    assert compiled == plain


def test_two_hundred_thousand_logs_leave_no_object_behind(loop: Loop) -> None:
    logs = {"a": 1.0, "b": 2, "t": torch.tensor(1.5), "n": np.float32(2)}
    loop.forms.learn(logs)
    loop.forms.learn({"other": 1.0})

    def log(count: int) -> None:
        for number in range(count):
            loop.known.emit({"logs": logs if number % 3 else {"other": 0.5}})
            loop.known.emit({"logs": {"other": "declined"}})
            loop.known.step({"a": 1.0, "b": "declined", "t": 1, "n": 2})
            loop.ring._words[3] = loop.ring._words[2]  # all is read

    log(100)
    gc.collect()
    tracemalloc.start()
    log(100)
    before = tracemalloc.get_traced_memory()[0]
    log(20_000 if loop.forms.is_compiled else 2_000)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 4096
    assert loop.ring.written > 2_000


def test_hooks_and_history_see_the_same_of_known_and_of_other_logs(
    way: str, tmp_path: Path
) -> None:
    witness = LogWitness(tmp_path / "output")
    with running(witness, directory=tmp_path / "runs") as run:
        for number in range(100):
            run.step(logs={"loss": number / 2, "lr": torch.tensor(number), "n": np.int8(3)})
            if number % 10 == 0:
                run.step(logs={"loss": number / 2, "lr": torch.tensor(number), "n": "text"})
        history = [dict(entry) for entry in run.state.log_history]
        assert run.statistics().events == 110
    found = [{**line["logs"], "step": line["step"]} for line in read_lines(witness.path)]
    assert found == history
    assert [entry["step"] for entry in found] == list(range(1, 111))
