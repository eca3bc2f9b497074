"""Logs of a known form with tensors of a GPU: the kernel that gathers them."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asynccb._publishing.known_logs import DTYPES
from tests.support.callbacks_for_tests import LogWitness, read_lines
from tests.support.hot_paths import Loop, choose
from tests.support.running import running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    choose("compiled", monkeypatch)
    made = Loop(capacity=1 << 20)
    yield made
    torch.cuda.synchronize()
    made.close()


def learned(loop: Loop, logs: dict[str, Any]) -> None:
    """Make the form of logs known, after one of them went the general way."""
    loop.staging.plain(logs)
    loop.forms.learn(logs)


def entry(loop: Loop) -> dict[str, Any]:
    """Return the last entry of the history, once its numbers have landed."""
    device = loop.staging.device
    assert device is not None
    assert device.finish(time.monotonic() + 20)
    return loop.state.log_history[-1]


def bits_of(dtype: torch.dtype) -> list[int]:
    """Return raw values of a dtype: all of the small ones, many of the others."""
    size = torch.empty((), dtype=dtype).element_size()
    if dtype == torch.bool:
        return [0, 1]
    if size == 1:
        return list(range(256))
    generator = torch.Generator().manual_seed(size)
    random = torch.randint(0, 1 << 16, (300, size // 2), generator=generator)
    drawn = [sum(int(part) << 16 * place for place, part in enumerate(row)) for row in random]
    most = (1 << 8 * size) - 1
    return [0, 1, most, most >> 1, (most >> 1) + 1, *drawn]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name.removeprefix("torch."))
def test_each_value_of_a_dtype_lands_as_its_item(loop: Loop, dtype: Any) -> None:
    kind = getattr(torch, dtype.name.removeprefix("torch."))
    size = torch.empty((), dtype=kind).element_size()
    raw = b"".join(bits.to_bytes(size, "little") for bits in bits_of(kind))
    values = torch.frombuffer(bytearray(raw), dtype=torch.uint8).cuda().view(kind)
    scalars = list(values.unbind())
    learned(loop, {"x": scalars[0].clone()})
    for scalar in scalars:
        assert loop.known.log({"x": scalar})
        found, expected = entry(loop)["x"], scalar.item()
        if kind == torch.uint64 and expected >= 1 << 63:
            expected -= 1 << 64  # a slot is signed, as it is for the general way
        assert type(found) is type(expected)
        assert struct.pack("<d" if type(found) is float else "<q", found) == struct.pack(
            "<d" if type(found) is float else "<q", expected
        ) or (found != found and expected != expected)


def test_values_of_all_dtypes_and_of_the_host_come_in_one_log(loop: Loop) -> None:
    logs: dict[str, Any] = {
        dtype.name: torch.tensor(1, device="cuda").to(
            getattr(torch, dtype.name.removeprefix("torch."))
        )
        for dtype in DTYPES
    }
    logs |= {"host": 0.5, "count": 3}
    learned(loop, logs)
    assert loop.known.step(logs)
    assert entry(loop) == {**dict.fromkeys(logs, 1), "host": 0.5, "count": 3, "step": 1}


def test_views_and_parts_of_a_graph_land_as_their_items(loop: Loop) -> None:
    row = torch.arange(5.0, device="cuda", requires_grad=True)
    complex_ = torch.tensor(1 + 2j, device="cuda")
    learned(loop, {"x": torch.tensor(0.0, device="cuda")})
    for value in (row[3], row.sum(), row.detach()[4], complex_.imag, complex_.real):
        assert loop.known.log({"x": value})
        assert entry(loop)["x"] == value.item()
    negative = complex_.conj().imag
    assert negative.is_neg()
    assert not loop.known.log({"x": negative})


def test_a_value_is_that_of_its_stream_and_of_its_time(loop: Loop) -> None:
    learned(loop, {"x": torch.tensor(0.0, device="cuda")})
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        value = torch.zeros((), device="cuda")
        for number in range(200):
            torch.cuda._sleep(20_000)
            value.fill_(number)
            assert loop.known.log({"x": value})
            value.fill_(-1)
    entry(loop)
    assert [line["x"] for line in loop.state.log_history] == [float(n) for n in range(200)]


def test_a_stream_that_is_captured_is_declined(loop: Loop) -> None:
    value = torch.ones((), device="cuda")
    learned(loop, {"x": value})
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = value * 2
        assert not loop.known.log({"x": doubled})
    graph.replay()
    assert loop.known.log({"x": doubled})
    assert entry(loop)["x"] == 2.0


def test_tensors_of_two_devices_come_in_one_log(loop: Loop) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device")
    logs = {"a": torch.tensor(1.5, device="cuda:0"), "b": torch.tensor(2.5, device="cuda:1")}
    learned(loop, logs)
    for current in (0, 1):
        with torch.cuda.device(current):
            assert loop.known.log(logs)
        assert {**entry(loop), "step": 0} == {"a": 1.5, "b": 2.5, "step": 0}


@pytest.mark.parametrize("way", ["compiled", "plain"])
def test_several_laps_of_the_slots_arrive_bit_for_bit(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(way, monkeypatch)
    witness = LogWitness(tmp_path / "output")
    with running(witness, directory=tmp_path / "runs") as run:
        values = torch.rand(10_000, 20, device="cuda")
        for row in values:
            run.step(logs={str(place): value for place, value in enumerate(row.unbind())})
        run.settle()
        history = run.state.log_history
    expected = values.double().tolist()
    assert [list(line.values())[:20] for line in history] == expected
    found = {line["step"]: list(line["logs"].values()) for line in read_lines(witness.path)}
    assert [found[step] for step in range(1, len(expected) + 1)] == expected
