"""
Show how fast points get to an MLflow server, and what that costs; `--faults`: how a training fares
whose server fails.

The server is a real one, over SQLite, on loopback. A contender logs 5 points a step, as fast as it
can, and then waits until all is acknowledged:

* `asynccb`: `CallbackDispatcher.step` with an `MLflowCallback`;
* `MLflow synchronous`: `mlflow.log_metrics`, which waits for the server;
* `MLflow asynchronous`: the same with `synchronous=False`, and `mlflow.flush_async_logging`;
* `log_batch of 1,000`: `MlflowClient.log_batch`, gathered by hand: what a loop can do at best.

MLflow's own two send a request for each step and are slower by so much that they get fewer steps;
their rate and cost do not depend on how many. Opening, a few steps to get everything to work, and
closing are not counted. Afterwards all points are read back: one missing or wrong stops the bench.

How to read the table: the median over the rounds, in brackets the least and the greatest.
`points/s` is from the first log to the last acknowledgement; `x sync` is that by the synchronous
client's of the same round. Then microseconds of processor time a point: `client` of the training
process with its threads and, for asynccb, its companion; `in training` of the training process
alone; `server` of the server.
Goals: 8 times the synchronous client, and less client time than it and the asynchronous one take.

`--faults` has a table of its own. A step takes about 5 ms on the processor, half of it with
Python's lock, and logs 5 floats to `MLflowCallback`. Two trainings are open in one process, one
whose server answers and one with the contender's: it `answers` too, which shows how exact the
method is; it is `away` (connections are refused), `silent` (accepts and never answers), or answers
`503`, or `429` with `Retry-After`; `no logging` logs nothing, which shows what logging costs.
Blocks of steps with the one and the other alternate, and each pair of blocks gives a ratio of
steps/s; the companion of the one that does not train is stopped meanwhile. Goal: within 1 %; a
ratio within the brackets of `answers` is no difference. Below the table stands what each dispatcher
said at its end, in the last round.
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
"""They send a request a step."""
LEAD_IN: Final = 5
"""Steps that are logged and delivered before the clock starts."""
GOAL: Final = 8.0
"""Times the synchronous client's points/s."""


class Turn(NamedTuple):
    """Hold what one contender's turn gave."""

    points: int
    """Points measured, all of which the server has."""
    seconds: float
    """From the first log to the last acknowledgement."""
    client: float
    """Processor seconds of the training process and what it started."""
    training: float
    """Processor seconds of the training process alone."""
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
        """Log the steps, wait until they are delivered, and read them back."""
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
        """Return the processor seconds of client, training process and server so far."""
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
    """Return a row of the table; without the synchronous client no ratio to it."""
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
    """Return a line for each goal that these contenders can tell about."""
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
    parser.add_argument("--steps", type=int, default=10_000, help="steps a turn")
    parser.add_argument("--client-steps", type=int, default=500, help="those of MLflow's clients")
    faults = parser.add_argument_group("with a server that fails")
    faults.add_argument("--faults", nargs="*", choices=_faults.CONTENDERS, help="by default all")
    faults.add_argument("--pairs", type=int, default=3, help="pairs of blocks a turn")
    faults.add_argument("--block", type=int, default=150, help="steps measured a block")
    faults.add_argument("--lead-in", type=int, default=40, help="steps before them")
    faults.add_argument("--milliseconds", type=float, default=5.0, help="duration of a step")
    options = parser.parse_args(arguments)
    sizes = ("rounds", "steps", "client_steps", "pairs", "block", "lead_in", "milliseconds")
    for name in sizes:
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} is above 0")
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
    """Show the table that is asked for."""
    options = parse()
    if options.faults is None:
        show_delivery(options)
    else:
        show_faults(options)


if __name__ == "__main__":
    main()
