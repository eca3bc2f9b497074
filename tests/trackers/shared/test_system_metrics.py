"""Samples of a machine and a process, from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from asynccb._state.run_description import RunDescription
from asynccb.trackers.shared.system_metrics import SystemSampler, is_live
from tests.support.launching import environment
from tests.support.waiting import eventually
from tests.trackers.lane import description


def test_a_process_that_works_is_seen_to() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        sampler = SystemSampler(busy.pid)
        first = sampler.sample()
        assert "cpu" not in first  # it takes two looks
        values = eventually(lambda: v if (v := sampler.sample()).get("cpu", 0) > 0 else None)
    finally:
        busy.kill()
        busy.wait()
    assert 0 < values["cpu"] <= 100
    assert 0 < values["memory_percent"] < 100
    assert values["proc.memory.rssMB"] > 1
    assert values["proc.memory.availableMB"] > 1
    assert 0 < values["proc.memory.percent"] < 100
    assert values["proc.cpu.threads"] == 1
    gone = sampler.sample()
    assert "proc.cpu.threads" not in gone


LOOK = """
import json, os
from asynccb.trackers.shared.system_metrics import SystemSampler
print(json.dumps(SystemSampler(os.getpid()).sample()))
"""


@pytest.mark.usefixtures("gpus")
def test_gpus_are_named_by_their_place_among_those_that_the_training_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment(), capture_output=True, check=True
    )
    values = json.loads(done.stdout)
    assert {name: value for name, value in values.items() if name.startswith("gpu")} == {
        "gpu.0.gpu": 97.0,
        "gpu.0.temp": 61.0,
        "gpu.0.memoryAllocatedBytes": float(2 << 30),
        "gpu.0.memoryAllocated": 2.5,
        "gpu.0.powerWatts": 350.5,
    }


def test_a_run_is_live_in_the_process_that_its_training_has_started() -> None:
    usual = description()
    assert not is_live(usual)
    ours = RunDescription(usual.key, 0, usual.args, host=socket.gethostname(), pid=os.getppid())
    assert is_live(ours)
    other = RunDescription(usual.key, 0, usual.args, host="elsewhere", pid=os.getppid())
    assert not is_live(other)
