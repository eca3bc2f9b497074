"""
Show the effect of logging every step on the speed of a training.

A step takes about 5 ms on the CPU, half of it in Python, which holds the GIL, and half in PyTorch's
operators, which release it, in alternation. After each step, asynccb and the callbacks of
transformers send 5 scalars to TensorBoard and to a real MLflow server on loopback at once.
TensorBoard's `SummaryWriter` and MLflow, synchronous and asynchronous, are each measured alone.

In each turn, a contender's process runs steps without logging, then with it, then without again.
The step time with logging is compared with that of the steps before and after, in the same process.
When the measurement begins, the contender has been logging for longer than asynccb collects events,
so that background work is in progress during the measurement.

`--layout` sets which cores the processes may use, because with few cores the server takes time from
the training:

* `free`: the kernel decides;
* `split`: the training thread has the first core to itself, and all others (the server, the
  companion, the peers' threads) share the other cores; the remaining cost is that of the calls and
  of the GIL;
* `niced`: as `free`, but the server yields to all other processes.

How to read the table: figures are medians over the rounds, with the least and the greatest round in
brackets. `nothing` logs nothing and shows the precision of the method; a figure within its brackets
is not a difference. `others` is the number of cores that were busy with other work than the
training thread during the measurement.
Goals for asynccb: mean +1 %, p99 +3 %.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Final, NamedTuple

from _contenders import OPEN, Log, Place, make_values
from _measure import (
    Figure,
    add_mlflow,
    describe_machine,
    machine_busy,
    make_parser,
    percentile,
    print_table,
    take_turns,
    write_result,
)
from _server import mlflow_server
from _work import Work

CONTENDERS: Final = (
    "nothing",
    "asynccb",
    "transformers",
    "SummaryWriter",
    "MLflow asynchronous",
    "MLflow synchronous",
)
LAYOUTS: Final = ("free", "split", "niced")

_clock = time.perf_counter


class Turn(NamedTuple):
    """The results of a contender's turn: seconds per step, and cores busy with other work."""

    without: list[float]
    logged: list[float]
    others: float


@dataclass(frozen=True)
class Training:
    """One contender's turn."""

    place: Place
    core: int | None
    """Core that only the training thread uses, or None."""
    seconds: float
    steps: int
    lead_in: int

    def __call__(self, name: str, number: int) -> Turn:
        """Run steps without logging, with it, and without."""
        place = self.place.below(f"{name}-{number}")
        work = Work(self.seconds)
        with confined(self.core):
            run_steps(work, None, 0, 20)
            before = run_steps(work, None, 0, self.steps // 2)
        # Threads and processes that start here inherit the allowed cores. Only after that does the
        # training thread move to its own core.
        with OPEN[name](place) as opened:
            opened.log(0, make_values(0))
            opened.settle()
            with confined(self.core):
                run_steps(work, opened.log, 1, self.lead_in)
                busy, own, begin = machine_busy(), time.thread_time(), _clock()
                logged = run_steps(work, opened.log, 1 + self.lead_in, self.steps)
                own, passed = time.thread_time() - own, _clock() - begin
                others = (machine_busy() - busy - own) / passed
        with confined(self.core):
            after = run_steps(work, None, 0, self.steps - self.steps // 2)
        return Turn(before + after, logged, max(0.0, others))


def run_steps(work: Work, log: Log | None, first: int, count: int) -> list[float]:
    """Train for some steps and return the seconds of each step, including its logging."""
    gc.collect()
    spent = []
    for step in range(first, first + count):
        begin = _clock()
        work.do()
        if log is not None:
            log(step, make_values(step))
        spent.append(_clock() - begin)
    return spent


@contextmanager
def confined(*cores: int | None) -> Iterator[None]:
    """
    Keep the calling thread, and the threads and processes it starts, on these cores.

    With None, the cores do not change.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core for core in cores if core is not None} or allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure(options: argparse.Namespace, layout: str) -> list[dict[str, Any]]:
    """Run all rounds of one layout and return its rows of the table."""
    first, *rest = sorted(os.sched_getaffinity(0))
    split = layout == "split"
    turns: dict[str, list[Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(confined(*(rest if split else ())))
        niceness = 19 if layout == "niced" else 0
        address = stack.enter_context(mlflow_server(folder / "mlflow", niceness, options.mlflow))
        training = Training(
            Place(folder, address),
            first if split else None,
            options.milliseconds / 1000,
            options.steps,
            options.lead_in,
        )
        for contender, turn in take_turns(options.contenders, options.rounds, training):
            turns[contender].append(turn)
    return [summarize(layout, contender, turns[contender]) for contender in options.contenders]


def summarize(layout: str, contender: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "layout": layout,
        "contender": contender,
        "mean_milliseconds": Figure.over([1000 * mean(turn.logged) for turn in turns]),
        "mean_percent": Figure.over([_more(turn, mean) for turn in turns]),
        "p50_percent": Figure.over([_more(turn, median) for turn in turns]),
        "p99_milliseconds": Figure.over([1000 * _p99(turn.logged) for turn in turns]),
        "p99_percent": Figure.over([_more(turn, _p99) for turn in turns]),
        "others_cores": Figure.over([turn.others for turn in turns]),
    }


def _p99(seconds: Sequence[float]) -> float:
    return percentile(seconds, 0.99)


def _more(turn: Turn, figure: Callable[[Sequence[float]], float]) -> float:
    """Return the increase of a figure through logging, in percent."""
    return 100 * (figure(turn.logged) / figure(turn.without) - 1)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "step", CONTENDERS)
    parser.add_argument("--steps", type=int, default=600, help="steps measured per turn")
    parser.add_argument(
        "--lead-in", type=int, default=400, help="logged steps before the measured ones"
    )
    parser.add_argument("--milliseconds", type=float, default=5.0, help="duration of a step")
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    add_mlflow(parser)
    options = parser.parse_args(arguments)
    if min(options.rounds, options.lead_in, options.milliseconds) <= 0 or options.steps < 2:
        parser.error("--rounds, --lead-in and --milliseconds must be above 0, --steps above 1")
    if "split" in options.layout and len(os.sched_getaffinity(0)) < 2:
        parser.error("--layout split needs two cores")
    return options


def main() -> None:
    """Measure, print the table and write the result."""
    options = parse()
    about = describe_machine()
    rows = [row for layout in options.layout for row in measure(options, layout)]
    columns = {
        "mean ms": ("mean_milliseconds", ".2f"),
        "mean %": ("mean_percent", "+.1f"),
        "p50 %": ("p50_percent", "+.1f"),
        "p99 ms": ("p99_milliseconds", ".2f"),
        "p99 %": ("p99_percent", "+.1f"),
        "others": ("others_cores", ".2f"),
    }
    print_table(
        ("layout", "contender", *columns),
        [
            (row["layout"], row["contender"], *(row[key].show(f) for key, f in columns.values()))
            for row in rows
        ],
    )
    settings = {
        "rounds": options.rounds,
        "steps": options.steps,
        "lead_in": options.lead_in,
        "step_milliseconds": options.milliseconds,
    }
    write_result(options.json, "step", about, settings, rows)


if __name__ == "__main__":
    main()
