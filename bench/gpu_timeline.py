"""
Show, with PyTorch's profiler, the CUDA calls that logging adds to a training, on any thread.

Some steps run without logging and as many with it. The result contains the number of calls per step
for each function of the CUDA runtime, and the number of threads that made them. The traces
(`<training>-without.json.gz` and `-with.json.gz`, for Perfetto or chrome://tracing) are beside the
result, and the result contains the spans of a few steps for `_plot.py` to draw. The profiler slows
the host down: do not read step times from here.

Calls that wait are `cudaStreamSynchronize`, `cudaEventSynchronize`, `cudaDeviceSynchronize`,
`cudaMemcpy`, and any copy from or to memory that is not pinned. If asynccb adds one, the script
exits with 1.

How to read the table: calls per step without logging, with it, and the difference. An additional
asynchronous call per step is a launch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from _gpu_loggers import FETCHES, LOGGERS, Log, missing_for, open_logger
from _gpu_measure import (
    Results,
    describe_gpu,
    find_device,
    make_gpu_parser,
    parse_quick,
    servers_for,
)
from _gpu_trace import MARK, STEP, Trace, is_waiting
from _gpu_work import WORKLOADS, Workload, make_workload
from _measure import print_table

STEPS: Final = {"eager": 60, "graph": 200, "gpt": 40}
"""Steps in a trace: some tens of milliseconds, enough to include copies to the host."""
QUICK: Final = {"workloads": ["graph"]}
_LEAD_IN: Final = 100
_DRAWN: Final = 3


def record(work: Workload, log: Log | None, first: int, steps: int, path: Path) -> Trace:
    """Run steps under the profiler, write the trace and return it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if work.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        work.synchronize()
        with torch.profiler.record_function(MARK):
            for number in range(first, first + steps):
                with torch.profiler.record_function(STEP):
                    scalars = work.step()
                    if log is not None:
                        log(number, scalars)
        work.synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    return Trace.read(path)


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each training."""
    device = torch.device(options.device)
    with (
        tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name,
        servers_for([options.logger], Path(name), options.fetch) as servers,
    ):
        for workload in options.workloads:
            print(workload, file=sys.stderr)
            work = make_workload(workload, options.scalars, options.scale, device)
            steps = options.steps or STEPS[workload]
            traces = {}
            folder = Path(name, workload)
            with open_logger(options.logger, servers, folder) as ready:
                for kind, log in (("without", None), ("with", ready.log)):
                    for number in range(_LEAD_IN):
                        scalars = work.step()
                        if log is not None:
                            log(1 + number, scalars)
                    path = options.json.parent / f"{workload}-{kind}.json.gz"
                    traces[kind] = record(work, log, 1 + _LEAD_IN, steps, path)
            yield {
                "workload": workload,
                "logger": options.logger,
                "steps": steps,
                "calls": compare(traces["without"], traces["with"], steps),
                "threads": {kind: trace.threads() for kind, trace in traces.items()},
                "spans": {kind: trace.spans(steps // 2, _DRAWN) for kind, trace in traces.items()},
            }


def compare(without: Trace, logged: Trace, steps: int) -> list[dict[str, Any]]:
    """Return the calls per step; calls that wait come first."""
    plain, more = without.calls(), logged.calls()
    names = sorted(plain.keys() | more.keys(), key=lambda name: (not is_waiting(name), name))
    return [
        {
            "call": name,
            "waits": is_waiting(name),
            "without": plain[name] / steps,
            "with": more[name] / steps,
        }
        for name in names
    ]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_gpu_parser(__doc__, "gpu_timeline")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["eager", "graph"])
    loggers = [name for name in LOGGERS if name != "none"]
    parser.add_argument("--logger", choices=loggers, default="asynccb")
    parser.add_argument("--scalars", type=int, default=5, help="per step")
    parser.add_argument(
        "--fetch", choices=FETCHES, default=FETCHES[0], help="how peers read scalars"
    )
    parser.add_argument("--steps", type=int, help=f"per trace; by default {STEPS}")
    options = parse_quick(parser, arguments, QUICK)
    if options.scalars < 1 or (options.steps is not None and options.steps < 1):
        parser.error("--scalars and --steps must be above 0")
    if lack := missing_for(options.logger):
        parser.error(f"--logger {options.logger}: {lack}")
    return options


def main() -> None:
    """Measure, print the table, write the result; exit with 1 if asynccb adds calls that wait."""
    options = parse()
    about = describe_gpu(find_device(options.device))
    results = Results(options, "gpu_timeline", about, ("workload", "logger"))
    for row in measure(options):
        results.add(row)
    cells = [
        (
            row["workload"],
            call["call"] + (" (waits)" if call["waits"] else ""),
            *(format(call[kind], ".2f") for kind in ("without", "with")),
            format(call["with"] - call["without"], "+.2f"),
        )
        for row in results.rows
        for call in row["calls"]
    ]
    print_table(("training", "call", "without", "with", "more"), cells)
    added = [
        f"{row['workload']}: {call['call']}"
        for row in results.rows
        for call in row["calls"]
        if call["waits"] and call["with"] > call["without"]
    ]
    print(f"\n{options.logger} adds calls that wait: {', '.join(added) or 'none'}")
    sys.exit(bool(added) and options.logger == "asynccb")


if __name__ == "__main__":
    main()
