"""
Show the effect of logging every step on the speed of a training on a GPU.

asynccb sends the scalars of each step, 5 or 20 tensors on the device, to TensorBoard, MLflow and
two REST sinks at once; each peer sends them to its one tracker. Trainings: an eager MLP, which the
CPU limits, the same MLP as a CUDA graph, and a small GPT. MLflow's server and the sinks run on
loopback; if MLflow is not installed, a second TensorBoard directory replaces it.

A logger's process alternates blocks of steps with and without logging, in changing order, or weaves
them in short turns (`_gpu_measure.py` explains why). Figures are medians over the pairs, with the
least and the greatest in brackets. Each measured block follows logged steps that are not measured,
so that background work is in progress during the measurement. Values that a logger has not sent at
the end of a block are waited for outside it; `behind` is that time. This favors the peers. So does
`--fetch stack`, which waits for the device once per log; `item` waits once per scalar, as most
training loops do.

How to read the table: `ratio` is steps per second with logging over steps per second without, in
the same pair. `none` logs nothing and shows the precision of the method. `host p99` and `gpu p99`
are ratios too: the 99th percentile of the step time with logging over that without;
`_gpu_measure.py` explains the two clocks. `of all` takes the steps of all pairs together, because a
single block has only a few slow steps.
Goals for asynccb: ratio >= 0.98 for the graph with 5 scalars, >= 0.97 otherwise; p99 <= 1.03.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from _gpu_loggers import FETCHES, LOGGERS, Ready, Servers, missing_for, open_logger
from _gpu_measure import (
    Block,
    Processes,
    Results,
    add_turn,
    describe_gpu,
    find_device,
    make_gpu_parser,
    parse_quick,
    run_block,
    servers_for,
    weave,
)
from _gpu_work import MOST_SCALARS, WORKLOADS, Workload, make_workload
from _measure import Figure, percentile, print_table

BLOCKS: Final = {"eager": 300, "graph": 1500, "gpt": 200}
"""Steps per block."""
TURNS: Final = {"eager": 20, "graph": 1500, "gpt": 10}
"""Steps per turn; the trainings that the CPU limits are woven."""
QUICK: Final = {"rounds": 1, "pairs": 3, "device_pairs": 1, "scalars": [5]}

_clock = time.perf_counter


class Cell(NamedTuple):
    """The settings of one turn."""

    workload: str
    scalars: int
    steps: int
    turn: int
    scale: float
    device: str
    pairs: int
    device_pairs: int


class Pair(NamedTuple):
    """A block without logging and a block with it."""

    without: Block
    logged: Block
    behind: float
    """Seconds after the blocks until the logger had sent the rest."""


class Outcome(NamedTuple):
    """The pairs of a turn; pairs that were timed on the device are separate."""

    timed: list[Pair]
    on_device: list[Pair]


def take_turn(cell: Cell, logger: str, servers: Servers, folder: Path) -> Outcome:
    """Measure one logger in one cell; runs in the logger's own process."""
    work = make_workload(cell.workload, cell.scalars, cell.scale, torch.device(cell.device))
    with open_logger(logger, servers, folder) as ready:
        pairs = _Pairs(work, ready, cell.steps, cell.turn)
        timed = [pairs.run() for _ in range(cell.pairs)]
        on_device = [pairs.run(on_device=True) for _ in range(cell.device_pairs)]
    return Outcome(timed, on_device)


class _Pairs:
    """A source of pairs of blocks, whose order changes from pair to pair."""

    def __init__(self, work: Workload, ready: Ready, steps: int, turn: int) -> None:
        self._work = work
        self._ready = ready
        self._steps = steps
        self._turn = turn
        self._next = 1
        self._logged_first = False

    def run(self, *, on_device: bool = False) -> Pair:
        if self._turn < self._steps:
            return self._run_woven(on_device)
        first, self._logged_first = self._logged_first, not self._logged_first
        if first:
            logged, behind = self._run_logged(on_device)
        run_block(self._work, None, 0, self._steps // 3)
        without = run_block(self._work, None, 0, self._steps, on_device=on_device)
        if not first:
            logged, behind = self._run_logged(on_device)
        return Pair(without, logged, behind)

    def _run_woven(self, on_device: bool) -> Pair:
        self._log(self._steps // 3)
        log = self._ready.log
        blocks = weave(self._work, log, self._next, self._steps, self._turn, on_device=on_device)
        self._next += self._steps
        return Pair(*blocks, self._settle())

    def _run_logged(self, on_device: bool) -> tuple[Block, float]:
        self._log(self._steps // 3)
        return self._log(self._steps, on_device), self._settle()

    def _settle(self) -> float:
        begin = _clock()
        self._ready.settle()
        return _clock() - begin

    def _log(self, steps: int, on_device: bool = False) -> Block:
        block = run_block(self._work, self._ready.log, self._next, steps, on_device=on_device)
        self._next += len(block.host)
        return block


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table; a row is yielded again after each turn that updates it."""
    with (
        tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name,
        servers_for(options.loggers, Path(name), options.fetch) as servers,
        Processes() as processes,
    ):
        lacking = {logger: missing_for(logger) for logger in options.loggers}
        able = [logger for logger, lack in lacking.items() if lack is None]
        for workload, scalars in itertools.product(options.workloads, options.scalars):
            cell = Cell(
                workload,
                scalars,
                options.steps or BLOCKS[workload],
                options.turn or TURNS[workload],
                options.scale,
                options.device,
                options.pairs,
                options.device_pairs if options.device != "cpu" else 0,
            )
            outcomes: dict[str, list[Future[Outcome]]] = defaultdict(list)
            for number in range(options.rounds):
                for logger in (*able[number % len(able) :], *able[: number % len(able)]):
                    print(f"{workload}, {scalars} scalars, {number + 1}: {logger}", file=sys.stderr)
                    folder = Path(name, f"{workload}-{scalars}-{number}-{LOGGERS.index(logger)}")
                    outcomes[logger].append(
                        processes.call(logger, take_turn, cell, logger, servers, folder)
                    )
                    yield _row(cell, logger, lacking[logger], outcomes[logger])
            for logger, lack in lacking.items():
                if lack is not None:
                    yield _row(cell, logger, lack, [])


def _row(
    cell: Cell, logger: str, lack: str | None, outcomes: Sequence[Future[Outcome]]
) -> dict[str, Any]:
    about = {"workload": cell.workload, "scalars": cell.scalars, "logger": logger}
    trackers = {"trackers": 4} if logger == "asynccb" else {}
    sizes = {"steps": cell.steps, "turn": min(cell.turn, cell.steps)}
    return {**about, **trackers, **sizes, **_result(lack, outcomes)}


def _result(lack: str | None, outcomes: Sequence[Future[Outcome]]) -> dict[str, Any]:
    """Return the figures of a logger, or the reason why it was skipped or failed."""
    if lack is not None:
        return {"skipped": lack}
    for outcome in outcomes:
        if (error := outcome.exception()) is not None:
            return {"failed": f"{type(error).__name__}: {error}"}
    done = [outcome.result() for outcome in outcomes]
    return summarize(
        [pair for each in done for pair in each.timed],
        [pair for each in done for pair in each.on_device],
    )


def summarize(timed: Sequence[Pair], on_device: Sequence[Pair]) -> dict[str, Any]:
    """Return the figures over the pairs; without `on_device`, the device's are left out."""
    figures: dict[str, Any] = {
        "pairs": len(timed),
        "ratio": Figure.over([pair.logged.rate / pair.without.rate for pair in timed]),
        "ratio_quartiles": _quartiles([pair.logged.rate / pair.without.rate for pair in timed]),
        "steps_per_second": Figure.over([pair.without.rate for pair in timed]),
        "steps_per_second_logged": Figure.over([pair.logged.rate for pair in timed]),
        "behind_seconds": Figure.over([pair.behind for pair in timed]),
        **_step_times("host", [(pair.without.host, pair.logged.host) for pair in timed]),
    }
    if on_device:
        steps = [(pair.without.device, pair.logged.device) for pair in on_device]
        figures |= _step_times("gpu", steps)
    return figures


def _step_times(
    where: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]
) -> dict[str, Any]:
    """Return percentiles in microseconds, and their ratios with logging over without."""
    figures: dict[str, Any] = {}
    plain_steps = [*itertools.chain.from_iterable(plain for plain, _ in pairs)]
    logged_steps = [*itertools.chain.from_iterable(logged for _, logged in pairs)]
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        taken = [(percentile(plain, share), percentile(logged, share)) for plain, logged in pairs]
        figures[f"{where}_{label}_microseconds"] = Figure.over([1e6 * one for one, _ in taken])
        logged_name = f"{where}_{label}_microseconds_logged"
        figures[logged_name] = Figure.over([1e6 * other for _, other in taken])
        figures[f"{where}_{label}_ratio"] = Figure.over([other / one for one, other in taken])
        of_all = percentile(logged_steps, share) / percentile(plain_steps, share)
        figures[f"{where}_{label}_of_all_ratio"] = of_all
    return figures


def _quartiles(values: Sequence[float]) -> list[float]:
    return (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_gpu_parser(__doc__, "gpu_step")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--loggers", nargs="+", choices=LOGGERS, default=list(LOGGERS))
    parser.add_argument("--scalars", nargs="+", type=int, default=[5, 20], help="per step")
    parser.add_argument(
        "--fetch", choices=FETCHES, default=FETCHES[0], help="how peers read scalars"
    )
    parser.add_argument("--rounds", type=int, default=2, help="turns per logger")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of blocks per turn")
    parser.add_argument(
        "--device-pairs", type=int, default=2, help="further pairs, timed on the device"
    )
    parser.add_argument("--steps", type=int, help=f"per block; by default {BLOCKS}")
    add_turn(parser, TURNS)
    options = parse_quick(parser, arguments, QUICK)
    if min(options.rounds, options.pairs) < 1 or options.device_pairs < 0:
        parser.error("--rounds and --pairs must be above 0, --device-pairs 0 or more")
    if options.steps is not None and options.steps < 3:
        parser.error(f"--steps must be 3 or more, not {options.steps}")
    if not all(1 <= count <= MOST_SCALARS for count in options.scalars):
        parser.error(f"--scalars must be from 1 to {MOST_SCALARS}, not {options.scalars}")
    return options


COLUMNS: Final = {
    "ratio": ("ratio", ".3f"),
    "steps/s without": ("steps_per_second", ".0f"),
    "host p50": ("host_p50_ratio", ".3f"),
    "host p99": ("host_p99_ratio", ".3f"),
    "host p99 of all": ("host_p99_of_all_ratio", ".3f"),
    "gpu p50": ("gpu_p50_ratio", ".3f"),
    "gpu p99": ("gpu_p99_ratio", ".3f"),
    "gpu p99 of all": ("gpu_p99_of_all_ratio", ".3f"),
    "behind s": ("behind_seconds", ".2f"),
}


def show(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's cells."""
    name = f"{row['workload']}, {row['scalars']}"
    problem = row.get("skipped") or row.get("failed")
    if problem:
        kind = "skipped" if "skipped" in row else "FAILED"
        return (name, row["logger"], f"{kind}: {problem[:120]}", *[""] * (len(COLUMNS) - 1))
    cells = (_cell(row[key], form) if key in row else "-" for key, form in COLUMNS.values())
    return (name, row["logger"], *cells)


def _cell(figure: Figure | float, form: str) -> str:
    return figure.show(form) if isinstance(figure, Figure) else format(figure, form)


def main() -> None:
    """Measure, print the table and write the result; exit with 1 if a logger has failed."""
    options = parse()
    about = describe_gpu(find_device(options.device))
    results = Results(options, "gpu_step", about, ("workload", "scalars", "logger"))
    for row in measure(options):
        results.add(row)
    print_table(("training", "logger", *COLUMNS), [show(row) for row in results.rows])
    sys.exit(any("failed" in row for row in results.rows))


if __name__ == "__main__":
    main()
