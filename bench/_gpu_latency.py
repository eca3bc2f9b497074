"""Measuring the time from the end of a step on the device to the arrival in an async hook."""

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
    """The latencies of a training, in seconds."""

    seconds: list[float]
    uncertain: float
    """The possible error of all latencies: the precision with which the clocks are tied."""
    rate: float
    """Steps a second."""


class ArrivalCallback(asynccb.TrainerCallback):
    """Records, on the event-loop thread, when the logs of each step arrive."""

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
    """A CUDA event whose time on the host is known; it ties the device's clock to the host's."""

    event: Any
    time: float
    """Unix time in nanoseconds, the middle of the possible interval."""
    width: int
    """Length of the possible interval in nanoseconds."""

    @classmethod
    def drop(cls) -> Anchor:
        """Return the narrowest of many tries, with the device at rest."""
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
        """Return the time from this event to another one, on the device's clock."""
        return float(self.event.elapsed_time(event)) * 1e6


def make_event() -> Any:
    """Return a CUDA event that records its time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def measure_latency(work: Workload, steps: int, folder: Path) -> Latencies:
    """
    Train for some steps, log each, and return the latencies.

    Raises RuntimeError if a value does not arrive.
    """
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
    # The two clocks run at different speeds: this is host nanoseconds per device nanosecond.
    speed = (after.time - before.time) / before.nanoseconds_to(after.event)
    seconds = []
    for step, end in enumerate(ends, _LEAD_IN + 1):
        ended = before.time + before.nanoseconds_to(end) * speed
        if step not in callback.arrived:
            raise RuntimeError(f"the values of step {step} did not arrive as floats")
        seconds.append((callback.arrived[step] - ended) / 1e9)
    uncertain = max(before.width, after.width) / 2e9
    return Latencies(seconds, uncertain, steps / passed)
