"""
Show the cost to the training thread of logging scalars from a GPU, and how late they arrive.

Cost: the time of one call for 1, 5 or 20 scalars (0-d tensors of 32-bit floats):

* `item`: `.item()` on each; `stack`: `torch.stack(...).tolist()`, one wait for all;
* `pinned`: a copy of each to pinned memory on the training's stream, which does not wait;
* `asynccb`: `CallbackDispatcher.step(logs=...)` to one callback in the companion, including all
  staging, encoding and publishing; `numbers` is the same with floats in the host's memory, so that
  the difference is the cost of staging.

`idle` calls with the device at rest. `busy` launches steps of the CUDA graph (`--queued`) just
before the call, and the ways that wait have to wait for the end of these steps.

Latency: the time from the end of a step on the GPU to the arrival of its value in an async hook on
the event-loop thread, at every step of an eager and of a captured training. A CUDA event measures
the end of a step. The device's clock is tied to the host's before and after the training: with the
device at rest, an event is recorded and waited for, so its time is between two times of the host.
The narrowest of many such tries counts, and the drift in between is assumed to be linear.
`uncertain` is half the wider of the two intervals. Goal: p99 <= 50 ms.

How to read the tables: percentiles over all calls, or over all steps.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from _gpu_latency import measure_latency
from _gpu_measure import Results, describe_gpu, find_device, make_gpu_parser, parse_quick
from _gpu_work import MOST_SCALARS, Scalars, Workload, make_workload
from _lanes import CountCallback
from _measure import percentile, print_table

import asynccb

Call: TypeAlias = Callable[[Scalars], object]

WAYS: Final = ("item", "stack", "pinned", "asynccb", "numbers")
SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
QUICK: Final = {"calls": 200, "scalars": [5], "steps": 1000}

_LEAD_IN: Final = 50
_clock = time.perf_counter_ns


@contextmanager
def open_way(name: str, count: int, folder: Path) -> Iterator[Call]:
    """Prepare one of the ways to log `count` scalars."""
    if name == "item":
        yield lambda scalars: [scalar.item() for scalar in scalars.values()]
    elif name == "stack":
        yield lambda scalars: torch.stack(tuple(scalars.values())).tolist()
    elif name == "pinned":
        yield _copy_to_pinned(count)
    else:
        with asynccb.CallbackDispatcher([CountCallback], directory=folder) as run:
            if name == "asynccb":
                yield lambda scalars: run.step(logs=scalars)
            else:
                numbers = {f"metric_{number}": 0.5 + number for number in range(count)}
                yield lambda scalars: run.step(logs=numbers)


def _copy_to_pinned(count: int) -> Call:
    slots = torch.empty(count, pin_memory=torch.cuda.is_available()).unbind()

    def copy(scalars: Scalars) -> None:
        for slot, scalar in zip(slots, scalars.values(), strict=True):
            slot.copy_(scalar, non_blocking=True)

    return copy


def time_calls(work: Workload, call: Call, calls: int, queued: int) -> list[int]:
    """Return the nanoseconds of each call; `queued` steps are launched just before it."""
    gc.collect()
    scalars = work.step()
    spent = []
    for number in range(_LEAD_IN + calls):
        work.synchronize()
        for _ in range(queued):
            scalars = work.step()
        begin = _clock()
        call(scalars)
        passed = _clock() - begin
        if number >= _LEAD_IN:
            spent.append(passed)
    work.synchronize()
    return spent


def measure_costs(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of scalars, load, and way."""
    device = torch.device(options.device)
    for count in options.scalars:
        work = make_workload(
            "graph" if device.type == "cuda" else "eager", count, options.scale, device
        )
        for (load, queued), way in product((("idle", 0), ("busy", options.queued)), WAYS):
            print(f"{count} scalars, {load}: {way}", file=sys.stderr)
            with open_way(way, count, folder / f"{count}-{load}-{way}") as call:
                spent = time_calls(work, call, options.calls, queued)
            figures = {label: percentile(spent, share) / 1000 for label, share in SHARES.items()}
            yield {
                "figure": "cost",
                "scalars": count,
                "load": load,
                "way": way,
                "microseconds": figures,
            }


def measure_latencies(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each training."""
    for workload in ("eager", "graph"):
        print(f"latency: {workload}", file=sys.stderr)
        work = make_workload(workload, 5, options.scale, torch.device(options.device))
        found = measure_latency(work, options.steps, folder / workload)
        figures = {
            label: 1000 * percentile(found.seconds, share) for label, share in SHARES.items()
        }
        yield {
            "figure": "latency",
            "workload": workload,
            "steps": len(found.seconds),
            "steps_per_second": found.rate,
            "milliseconds": figures,
            "uncertain_milliseconds": 1000 * found.uncertain,
        }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_gpu_parser(__doc__, "gpu_staging")
    parser.add_argument("--scalars", nargs="+", type=int, default=[1, 5, 20], help="per call")
    parser.add_argument("--calls", type=int, default=2000, help="calls per way")
    parser.add_argument("--queued", type=int, default=1, help="steps launched before a busy call")
    parser.add_argument("--steps", type=int, default=10_000, help="steps to measure the latency of")
    options = parse_quick(parser, arguments, QUICK)
    if min(options.calls, options.queued, options.steps) < 1:
        parser.error("--calls, --queued and --steps must be above 0")
    if not all(1 <= count <= MOST_SCALARS for count in options.scalars):
        parser.error(f"--scalars must be from 1 to {MOST_SCALARS}, not {options.scalars}")
    return options


def show_costs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of costs."""
    print_table(
        ("load", "way", "scalars", *(f"{label} us" for label in SHARES)),
        [
            (
                row["load"],
                row["way"],
                str(row["scalars"]),
                *(format(figure, ".1f") for figure in row["microseconds"].values()),
            )
            for row in rows
        ],
    )


def show_latencies(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of latencies."""
    print_table(
        ("training", "steps", "steps/s", *(f"{label} ms" for label in SHARES), "uncertain ms"),
        [
            (
                row["workload"],
                str(row["steps"]),
                format(row["steps_per_second"], ".0f"),
                *(format(figure, ".2f") for figure in row["milliseconds"].values()),
                format(row["uncertain_milliseconds"], ".3f"),
            )
            for row in rows
        ],
    )


def main() -> None:
    """Measure, print the tables and write the result."""
    options = parse()
    device = find_device(options.device)
    keys = ("figure", "scalars", "load", "way", "workload")
    results = Results(options, "gpu_staging", describe_gpu(device), keys)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name:
        for row in measure_costs(options, Path(name)):
            results.add(row)
        show_costs(results.rows)
        if device.type == "cuda":
            latencies = list(measure_latencies(options, Path(name)))
            for row in latencies:
                results.add(row)
            print()
            show_latencies(latencies)


if __name__ == "__main__":
    main()
