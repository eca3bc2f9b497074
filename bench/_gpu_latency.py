"""From the end of a step on the device to the arrival of its value in an async hook."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from _gpu_work import Workload

import asynccb

_TRIES: Final = 50
_LEAD_IN: Final = 300
_PATIENCE: Final = 60.0


class Latencies(NamedTuple):
    """Hold what a training gave, in seconds."""

    seconds: list[float]
    uncertain: float
    """How far all of them may be off, since the clocks are tied with this precision."""
    rate: float
    """Steps a second."""


class ArrivalCallback(asynccb.TrainerCallback):
    """Note when the logs of each step arrive, on the event-loop thread."""

    def __init__(self) -> None:
        self.arrived: dict[int, int] = {}
        """Unix time in nanoseconds, by step."""

    async def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if all(isinstance(value, float) for value in (logs or {}).values()):
            self.arrived[state.global_step] = time.time_ns()


class Anchor(NamedTuple):
    """Tie the device's clock to the host's, by an event whose time on the host is known."""

    event: Any
    time: float
    """Unix time in nanoseconds, the middle of what is possible."""
    width: int
    """Nanoseconds between the earliest and the latest that is possible."""

    @classmethod
    def drop(cls) -> Anchor:
        """Take the narrowest of many tries, with the device at rest."""
        return min((cls._try() for _ in range(_TRIES)), key=lambda anchor: anchor.width)

    @classmethod
    def _try(cls) -> Anchor:
        event = make_event()
        torch.cuda.synchronize()
        begin = time.time_ns()
        event.record()
        event.synchronize()
        end = time.time_ns()
        return cls(event, (begin + end) / 2, end - begin)

    def nanoseconds_to(self, event: Any) -> float:
        """Return how much later an event was, on the device's clock."""
        return float(self.event.elapsed_time(event)) * 1e6


def make_event() -> Any:
    """Return an event that takes the time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def measure_latency(work: Workload, steps: int, folder: Path) -> Latencies:
    """Train for some steps, log each, and return the latencies; raises where a value is missing."""
    callback = ArrivalCallback()
    ends = [make_event() for _ in range(steps)]
    with asynccb.CallbackDispatcher([callback], directory=folder) as run:
        for _ in range(_LEAD_IN):
            run.step(logs=work.step())
        before = Anchor.drop()
        begin = time.perf_counter()
        for end in ends:
            scalars = work.step()
            end.record()
            run.step(logs=scalars)
        work.synchronize()
        passed = time.perf_counter() - begin
        if not run.flush(timeout=_PATIENCE):
            raise RuntimeError(f"not delivered within {_PATIENCE:.0f} s: {run.statistics()}")
        after = Anchor.drop()
    # Two clocks tick at different speeds: this is the host's time for one of the device's.
    speed = (after.time - before.time) / before.nanoseconds_to(after.event)
    seconds = []
    for step, end in enumerate(ends, _LEAD_IN + 1):
        ended = before.time + before.nanoseconds_to(end) * speed
        if step not in callback.arrived:
            raise RuntimeError(f"the values of step {step} did not arrive as floats")
        seconds.append((callback.arrived[step] - ended) / 1e9)
    uncertain = max(before.width, after.width) / 2e9
    return Latencies(seconds, uncertain, steps / passed)
