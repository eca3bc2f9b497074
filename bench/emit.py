"""
Show the cost of logging to the training thread: the duration of one `emit(on_log)`.

An event with 5 floats goes to the lanes of four trackers: TensorBoard, a real MLflow server on
loopback, and two lanes in the companion that do almost nothing. It is compared with

* `loop.call_soon_threadsafe` and `asyncio.run_coroutine_threadsafe`, once per event, to four queues
  that nobody reads: the least possible cost of an event loop in a thread;
* transformers' dispatcher with its own TensorBoard and MLflow callbacks, to the same server.

`burst` emits without a pause. `paced` emits once per millisecond. In between, the thread works as a
training step does, partly in Python and partly in operators that release the GIL.

How to read the table: microseconds for one call, as the median over the rounds, with the least and
the greatest round in brackets. `nothing` is the cost of the measurement itself; it is not
subtracted. p50 is the cost to a typical step. p99 and max show how often, and for how long, another
thread or process made the training thread wait. Goals: burst p50 <= 3, p99 <= 10; paced p99 <= 60.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from _contenders import OPEN, Log, Place, make_values
from _measure import (
    Figure,
    add_mlflow,
    describe_machine,
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
    "asynccb, 4 lanes",
    "call_soon_threadsafe",
    "run_coroutine_threadsafe",
    "transformers",
)
PAUSE: Final = 0.001
"""Seconds from one paced event to the next."""
PIECE: Final = 0.000_05
"""Seconds of work between two readings of the clock."""
SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}

_clock = time.perf_counter_ns


@dataclass(frozen=True)
class Emit:
    """One contender's turn: fill its lanes, then a burst, then the paced events."""

    place: Place
    events: int
    lead_in: int

    def __call__(self, name: str, number: int) -> dict[str, list[int]]:
        """Return the nanoseconds of each call, by mode."""
        place = self.place.below(f"{name}-{number}")
        work = Work(PIECE)
        with OPEN[name](place) as opened:
            log_paced(opened.log, 0, self.lead_in, work)
            opened.settle()
            burst = log_at_once(opened.log, self.lead_in, self.events)
            opened.settle()
            log_paced(opened.log, self.lead_in + self.events, self.lead_in, work)
            paced = log_paced(opened.log, 2 * self.lead_in + self.events, self.events, work)
            opened.settle()
        return {"burst": burst, "paced": paced}


def log_at_once(log: Log, first: int, count: int) -> list[int]:
    """Log without a pause and return the nanoseconds of each call."""
    gc.collect()
    spent = []
    for step in range(first, first + count):
        values = make_values(step)
        begin = _clock()
        log(step, values)
        spent.append(_clock() - begin)
    return spent


def log_paced(log: Log, first: int, count: int, work: Work) -> list[int]:
    """
    Log once per millisecond, or as often as possible, and work in between.

    Returns the nanoseconds of each call.
    """
    gc.collect()
    spent = []
    due = time.perf_counter()
    for step in range(first, first + count):
        values = make_values(step)
        begin = _clock()
        log(step, values)
        spent.append(_clock() - begin)
        due = max(due, begin / 1e9) + PAUSE
        work.do_until(due)
    return spent


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds and return the rows of the table."""
    rounds: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name:
        folder = Path(name)
        with mlflow_server(folder / "mlflow", running=options.mlflow) as address:
            block = Emit(Place(folder, address), options.events, options.lead_in)
            for contender, spent in take_turns(options.contenders, options.rounds, block):
                for mode, nanoseconds in spent.items():
                    rounds[mode, contender].append([ns / 1000 for ns in nanoseconds])
    return [
        {
            "mode": mode,
            "contender": contender,
            "microseconds": {
                label: Figure.over([percentile(spent, share) for spent in rounds[mode, contender]])
                for label, share in SHARES.items()
            },
        }
        for mode in ("burst", "paced")
        for contender in options.contenders
    ]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "emit", CONTENDERS)
    parser.add_argument(
        "--events", type=int, default=2000, help="events measured per turn and mode"
    )
    parser.add_argument(
        "--lead-in", type=int, default=1200, help="paced events before the measured ones"
    )
    add_mlflow(parser)
    options = parser.parse_args(arguments)
    if min(options.rounds, options.events, options.lead_in) < 1:
        parser.error("--rounds, --events and --lead-in must be above 0")
    return options


def main() -> None:
    """Measure, print the table and write the result."""
    options = parse()
    about = describe_machine()
    rows = measure(options)
    print_table(
        ("mode", "contender", *(f"{label} us" for label in SHARES)),
        [
            (
                row["mode"],
                row["contender"],
                *(row["microseconds"][label].show(".1f") for label in SHARES),
            )
            for row in rows
        ],
    )
    settings = {"rounds": options.rounds, "events": options.events, "pause_seconds": PAUSE}
    write_result(options.json, "emit", about, settings, rows)


if __name__ == "__main__":
    main()
