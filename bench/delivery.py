"""
Show how fast points reach an MLflow server, and at what cost; with `--faults`, how a training runs
while its server fails.

The server is a real one, over SQLite, on loopback. A contender logs 5 points per step, as fast as
it can, and then waits until all points are acknowledged:

* `asynccb`: `CallbackDispatcher.step` with an `MLflowCallback`;
* `MLflow synchronous`: `mlflow.log_metrics`, which waits for the server;
* `MLflow asynchronous`: the same with `synchronous=False`, and `mlflow.flush_async_logging`;
* `log_batch of 1,000`: `MlflowClient.log_batch` with points collected by hand, the best that a loop
  can do.

MLflow's two clients send a request per step. They are so much slower that they run fewer steps;
their rate and cost do not depend on the number of steps. Opening, a few steps of lead-in, and
closing are not counted. Afterwards all points are read back; a missing or wrong point stops the
bench.

How to read the table: figures are medians over the rounds, with the least and the greatest in
brackets. `points/s` counts from the first log to the last acknowledgement. `x sync` is that rate
divided by the synchronous client's rate of the same round. The rest is CPU time per point in
microseconds: `client` of the training process with its threads and, for asynccb, its companion;
`in training` of the training process alone; `server` of the server.
Goals: 8 times the synchronous client, and less client time than either of MLflow's two clients.

`--faults` has a separate table. A step takes about 5 ms on the CPU, half of it with the GIL, and
logs 5 floats to `MLflowCallback`. Two trainings are open in one process: one with a server that
answers, the other with the contender's server. That server also `answers`, which shows the
precision of the method; is `away` (refuses connections); is `silent` (accepts and never answers);
or answers `503`, or `429` with `Retry-After`. `no logging` logs nothing, which shows the cost of
logging. Blocks of steps with the two trainings alternate, and each pair of blocks gives a ratio of
steps/s. While one training runs, the companion of the other is stopped. Goal: within 1 %. A ratio
within the brackets of `answers` is not a difference. Below the table are the closing lines of each
dispatcher, from the last round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import _faults
from _contenders import Place, make_values
from _measure import Figure, describe_machine, make_parser, print_table, take_turns, write_result
from _mlflow_points import count_points
from _mlflow_ways import WAYS
from _processes import find_children, find_family, spent_seconds
from _server import mlflow_server

OURS: Final = "asynccb"
SYNCHRONOUS: Final = "MLflow synchronous"
CLIENTS: Final = (SYNCHRONOUS, "MLflow asynchronous")
"""The clients that send a request per step."""
LEAD_IN: Final = 5
"""Steps that are logged and delivered before the clock starts."""
GOAL: Final = 8.0
"""Least ratio to the synchronous client's points/s."""


class Turn(NamedTuple):
    """The results of one contender's turn."""

    points: int
    """Measured points; the server has all of them."""
    seconds: float
    """Time from the first log to the last acknowledgement."""
    client: float
    """CPU seconds of the training process and the processes it started."""
    training: float
    """CPU seconds of the training process alone."""
    server: float


@dataclass(frozen=True)
class Delivery:
    """One contender's turn."""

    place: Place
    server: int
    """Process id of the MLflow server."""
    steps: int
    client_steps: int

    def __call__(self, name: str, number: int) -> Turn:
        """Log the steps, wait until all are delivered, and read the points back."""
        place = self.place.below(f"{name}-{number}")
        experiment = os.environ["MLFLOW_EXPERIMENT_NAME"] = place.folder.name
        last = LEAD_IN + (self.client_steps if name in CLIENTS else self.steps)
        with WAYS[name](place) as (log, settle):
            for step in range(1, LEAD_IN + 1):
                log(step, make_values(step))
            settle()
            spent, begin = self._spent(), time.perf_counter()
            for step in range(LEAD_IN + 1, last + 1):
                log(step, make_values(step))
            settle()
            seconds = time.perf_counter() - begin
            cost = [now - then for now, then in zip(self._spent(), spent, strict=True)]
        counted = count_points(place.server, experiment, last)
        return Turn(counted - LEAD_IN * len(make_values(0)), seconds, *cost)

    def _spent(self) -> tuple[float, float, float]:
        """Return the CPU seconds of client, training process and server so far."""
        own = os.getpid()
        return (
            spent_seconds(find_family(own)),
            spent_seconds({own}),
            spent_seconds(find_family(self.server)),
        )


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds and return the rows of the table."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name:
        folder = Path(name)
        others = find_children(os.getpid())
        with mlflow_server(folder / "mlflow") as address:
            (server,) = find_children(os.getpid()) - others
            turn_of = Delivery(Place(folder, address), server, options.steps, options.client_steps)
            for contender, turn in take_turns(options.contenders, options.rounds, turn_of):
                turns[contender].append(turn)
    synchronous = turns.get(SYNCHRONOUS, [])
    return [summarize(contender, turns[contender], synchronous) for contender in options.contenders]


def summarize(contender: str, turns: Sequence[Turn], synchronous: Sequence[Turn]) -> dict[str, Any]:
    """Return a row of the table; if the synchronous client did not run, without `x sync`."""
    rates = [turn.points / turn.seconds for turn in turns]
    row: dict[str, Any] = {
        "contender": contender,
        "points": sum(turn.points for turn in turns),
        "points_per_second": Figure.over(rates),
        "client_microseconds": Figure.over([1e6 * t.client / t.points for t in turns]),
        "training_microseconds": Figure.over([1e6 * t.training / t.points for t in turns]),
        "server_microseconds": Figure.over([1e6 * t.server / t.points for t in turns]),
    }
    if synchronous:
        ratios = [rate * t.seconds / t.points for rate, t in zip(rates, synchronous, strict=True)]
        row["times_synchronous"] = Figure.over(ratios)
    return row


def judge(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each goal for which the contenders are among the rows."""
    found = {row["contender"]: row for row in rows}
    if OURS not in found:
        return []
    ours, lines = found[OURS], []
    if SYNCHRONOUS in found:
        times = ours["times_synchronous"]
        met = "met" if times.median >= GOAL else "MISSED"
        lines.append(
            f"{GOAL:.0f} times the synchronous client's points/s: {times.median:.1f}, {met}"
        )
    cost = ours["client_microseconds"].median
    for client in CLIENTS:
        if client in found:
            theirs = found[client]["client_microseconds"].median
            met = "met" if cost < theirs else "MISSED"
            lines.append(
                f"less client time a point than {client}: {cost:.1f} us, {theirs:.1f} us, {met}"
            )
    return lines


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "delivery", tuple(WAYS))
    parser.set_defaults(rounds=3)
    parser.add_argument("--steps", type=int, default=10_000, help="steps per turn")
    parser.add_argument(
        "--client-steps", type=int, default=500, help="the same for MLflow's clients"
    )
    faults = parser.add_argument_group("with a server that fails")
    faults.add_argument("--faults", nargs="*", choices=_faults.CONTENDERS, help="by default all")
    faults.add_argument("--pairs", type=int, default=3, help="pairs of blocks per turn")
    faults.add_argument("--block", type=int, default=150, help="steps measured per block")
    faults.add_argument("--lead-in", type=int, default=40, help="steps before the measured ones")
    faults.add_argument("--milliseconds", type=float, default=5.0, help="duration of a step")
    options = parser.parse_args(arguments)
    sizes = ("rounds", "steps", "client_steps", "pairs", "block", "lead_in", "milliseconds")
    for name in sizes:
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if options.faults is not None:
        options.faults = options.faults or list(_faults.CONTENDERS)
        if options.json == parser.get_default("json"):
            options.json = options.json.with_stem("delivery_faults")
    return options


def show_delivery(options: argparse.Namespace) -> None:
    """Measure, print the table and the goals, and write the result."""
    about = describe_machine()
    rows = measure(options)
    columns = {
        "points/s": ("points_per_second", ",.0f"),
        "x sync": ("times_synchronous", ".1f"),
        "client us": ("client_microseconds", ".1f"),
        "in training": ("training_microseconds", ".1f"),
        "server us": ("server_microseconds", ".0f"),
    }
    print_table(
        ("contender", "points", *columns),
        [
            (
                row["contender"],
                str(row["points"]),
                *(row[key].show(form) if key in row else "" for key, form in columns.values()),
            )
            for row in rows
        ],
    )
    print("", *judge(rows), sep="\n")
    settings = {
        "rounds": options.rounds,
        "steps": options.steps,
        "client_steps": options.client_steps,
    }
    write_result(options.json, "delivery", about, settings, rows)


def show_faults(options: argparse.Namespace) -> None:
    """Measure, print the table and the closing lines, and write the result."""
    about = describe_machine()
    rows = _faults.measure(options)
    columns = {
        "answered steps/s": ("answered_steps_per_second", ".1f"),
        "steps/s": ("steps_per_second", ".1f"),
        "ratio": ("ratio", ".3f"),
    }
    print_table(
        ("contender", "pairs", *columns),
        [
            (
                row["contender"],
                str(row["pairs"]),
                *(row[key].show(form) for key, form in columns.values()),
            )
            for row in rows
        ],
    )
    print("", *_faults.judge(rows), sep="\n")
    for row in rows:
        if row["closing"]:
            print(f"\n{row['contender']}:\n{row['closing']}")
    settings = {
        "rounds": options.rounds,
        "pairs": options.pairs,
        "block": options.block,
        "lead_in": options.lead_in,
        "step_milliseconds": options.milliseconds,
    }
    write_result(options.json, "delivery_faults", about, settings, rows)


def main() -> None:
    """Show the requested table."""
    options = parse()
    if options.faults is None:
        show_delivery(options)
    else:
        show_faults(options)


if __name__ == "__main__":
    main()
