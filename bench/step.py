"""
Show what logging every step does to the speed of a training.

A step takes about 5 ms on the processor, half of it in Python, which holds the lock, half in
PyTorch's operators, which drop it, in alternation. After each step 5 scalars go to TensorBoard and
to a real MLflow server on loopback at once, by asynccb and by transformers' callbacks; beside them
TensorBoard's `SummaryWriter` and MLflow, synchronous and asynchronous, each alone.

In each turn a contender's process runs steps without logging, then with it, then without again;
the step time with logging is compared with that of the steps before and after, in the same process.
The contender has been logging for longer than asynccb gathers events when the measuring begins,
so that what happens in the background happens while it is measured.

`--layout` says who may run where, since on few cores the server takes time from the training:

* `free`: the kernel decides;
* `split`: the training thread has the first core to itself, and everything else (the server, the
  companion, the peers' threads) shares the others: what then remains is the cost of the calls and
  of Python's lock;
* `niced`: as `free`, but the server gives way to all others.

How to read the table: the median over the rounds, in brackets the least and the greatest round.
`nothing` logs nothing and shows how exact the method is; a figure within its brackets is no
difference. `others` is how many cores everything but the training thread kept busy meanwhile.
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
    """Hold what one contender's turn gave: seconds a step, and cores that others kept busy."""

    without: list[float]
    logged: list[float]
    others: float


@dataclass(frozen=True)
class Training:
    """One contender's turn."""

    place: Place
    core: int | None
    """Core that the training thread has to itself, or None."""
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
        # What is opened here inherits where it may run; only then the thread moves to its own core.
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
    """Train for some steps and return the seconds that each took, its logging included."""
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
    """Keep the calling thread, and what it starts, on these cores; None leaves it where it is."""
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
    """Return by how many percent a figure is greater with logging than without."""
    return 100 * (figure(turn.logged) / figure(turn.without) - 1)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "step", CONTENDERS)
    parser.add_argument("--steps", type=int, default=600, help="steps measured a turn")
    parser.add_argument("--lead-in", type=int, default=400, help="logged steps before them")
    parser.add_argument("--milliseconds", type=float, default=5.0, help="duration of a step")
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    add_mlflow(parser)
    options = parser.parse_args(arguments)
    if min(options.rounds, options.lead_in, options.milliseconds) <= 0 or options.steps < 2:
        parser.error("--rounds, --lead-in and --milliseconds are above 0, --steps above 1")
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
