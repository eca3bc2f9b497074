"""
Show the cost of all trackers at once to a training, and that each tracker receives every point.

A step takes about 5 ms on the CPU, half of it with the GIL, and logs 5 floats. Two dispatchers are
open in one process: one without trackers, the other with the trackers of a contender. Contenders:
`nothing`, which also has no tracker and shows the precision of the method; `all`, every installed
tracker; or a single tracker, by its name in `report_to`. Trackers that need a server use one on
loopback, in a process that yields to all others: real servers of MLflow and Trackio, and the tests'
own servers for the other trackers.

Each pair of blocks of steps, with the two dispatchers, gives a ratio of steps/s; after it, all
events are delivered. Blocks alternate, so that each block pays for the CPU time of its own trackers
and their servers. That is right if the training shares its cores with them. With a shorter `--turn`
blocks are woven, because the speed of many virtual machines changes within seconds by more than the
cost of logging. Background work then slows both sides equally, which is acceptable if there are
enough cores.

How to read the table: figures are medians over the pairs of all rounds, with the least and the
greatest pair in brackets. A ratio within the brackets of `nothing` is not a difference. Afterwards
all points are read back from every server and folder. A missing, doubled or wrong point, or a run
that is not marked as finished, stops the bench. `points` is the number of points; trackers that
keep no logs (CodeCarbon, Flyte) have none. Goal: a ratio of 0.98 or more for `all`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from _contenders import PATIENCE, make_values
from _flyte_task import in_a_task
from _measure import Figure, describe_machine, make_parser, print_table, take_turns, write_result
from _tracker_host import Opening, hosting, known
from _work import Work
from step import run_steps

import asynccb
from asynccb.trackers.base import Tracker

NOTHING: Final = "nothing"
ALL: Final = "all"
GOAL: Final = 0.98
_SHARED: Final = ("HOME", "PATH", "PYTHONPATH")
"""Environment variables that trackers and servers see in addition to their own."""
_PRECISION: Final = 1e-6
"""Relative tolerance, because some servers store 32-bit floats."""


class Turn(NamedTuple):
    """The results of one contender's turn."""

    pairs: list[tuple[float, float]]
    """Steps/s of two blocks, without trackers and with them."""
    trackers: list[str]
    points: int
    """Points that were read back; they are all points that were logged."""
    closing: str
    """The closing lines of the dispatcher with the trackers."""


class Side:
    """One of the two dispatchers that are compared, and its training."""

    def __init__(self, folder: Path, trackers: Sequence[Tracker], work: Work) -> None:
        args = asynccb.TrainingArguments(output_dir=str(folder))
        self._run = asynccb.CallbackDispatcher(trackers, args=args)
        self._run.emit(asynccb.Event.TRAIN_BEGIN)
        self._work = work

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self._run.state.global_step

    def train(self, count: int) -> float:
        """Train and log; return the duration in seconds."""
        step = self._run.step
        first = self.steps + 1
        return sum(run_steps(self._work, lambda _, values: step(logs=values), first, count))

    def settle(self, rest: float) -> None:
        """Wait until all events are delivered and the companion is idle."""
        if not self._run.flush(timeout=PATIENCE):
            raise RuntimeError(f"not delivered within {PATIENCE:.0f} s: {self._run.statistics()}")
        time.sleep(rest)

    def close(self) -> str:
        """Close the dispatcher and return its closing lines; RuntimeError if it lost events."""
        self._run.emit(asynccb.Event.TRAIN_END)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self._run.close(timeout=PATIENCE)
        counted = self._run.statistics()
        for name, counts in counted.callbacks.items():
            if counts.dropped or counts.failed or counts.rejected or counts.disabled:
                raise RuntimeError(f"{name} did not deliver everything: {counts}")
        return said.getvalue().strip()


def make(openings: Sequence[Opening]) -> Iterator[Tracker]:
    """
    Make the trackers, each with its own variables and folder; at the end, set all variables.

    Trackers read settings when they are made, and credentials when they connect. If two trackers
    read the same variable when they connect, it has the same credential for both.
    """
    for opening in openings:
        os.environ.update(opening.variables)
        with contextlib.chdir(opening.folder):
            tracker: Tracker = getattr(asynccb, opening.cls)(**opening.arguments)
        yield tracker
        for name in opening.variables:
            del os.environ[name]
    for opening in openings:
        os.environ.update(opening.variables)


def count_points(opening: Opening, runs: dict[str, list[tuple[int, str, Any]]], steps: int) -> int:
    """
    Return the number of logged points that were found.

    Raises RuntimeError unless there is exactly one run, finished, with each logged point once.
    Points that the tracker adds itself are ignored. If a tracker keeps a value without steps, it
    must have it once, with the last value.
    """
    if not opening.keeps_logs:
        return 0
    if [status.partition("#")[0] for status in runs] != [opening.finished]:
        raise RuntimeError(f"{opening.name} has the runs {list(runs)}, not one {opening.finished}")
    (values,) = runs.values()
    prefix = opening.loss.removesuffix("loss")
    count = 0
    for name, last in make_values(steps).items():
        found = [(step, value) for step, shown, value in values if shown == prefix + name]
        expected = [(step, make_values(step)[name]) for step in range(1, steps + 1)]
        if not found:
            found = [(steps, value) for _, shown, value in values if shown == name]
            expected = [(steps, last)]
        if not _are_equal(found, expected):
            raise RuntimeError(
                f"{opening.name} has {len(found)} points of {name}, which are not the "
                f"{len(expected)} that were logged"
            )
        count += len(found)
    return count


def _are_equal(found: list[tuple[int, Any]], expected: list[tuple[int, float]]) -> bool:
    return [step for step, _ in found] == [step for step, _ in expected] and all(
        math.isclose(value, other, rel_tol=_PRECISION)
        for (_, value), (_, other) in zip(found, expected, strict=True)
    )


@dataclass(frozen=True)
class Training:
    """One contender's turn."""

    folder: Path
    names: Sequence[str]
    """The trackers of the contender `all`."""
    seconds: float
    steps: int
    """Steps per block."""
    lead_in: int
    per_turn: int
    """Steps per turn, after which the other side runs; equal to `steps` if not woven."""
    pairs: int
    rest: float

    def __call__(self, name: str, number: int) -> Turn:
        """Run pairs of blocks, without trackers and with them; read all points back."""
        folder = self.folder / f"{name}-{number}"
        folder.mkdir()
        names = {NOTHING: [], ALL: list(self.names)}.get(name, [name])
        _clear_environment(folder)
        if "flyte" in names:
            turn: Turn = in_a_task(lambda: self.turn(folder, names))
            return turn
        return self.turn(folder, names)

    def turn(self, folder: Path, names: Sequence[str]) -> Turn:
        """Run the pairs of blocks for these trackers."""
        work = Work(self.seconds)
        with hosting(folder, names) if names else contextlib.nullcontext() as host:
            openings = [] if host is None else list(host.openings)
            alone = Side(folder / "alone", [], work)
            beside = Side(folder / "beside", list(make(openings)), work)
            for side in (alone, beside):
                side.train(2 * self.lead_in)  # until all connections are open
                side.settle(self.rest)
            pairs = [self._pair(alone, beside, place) for place in range(self.pairs)]
            alone.close()
            closing = beside.close().replace(f"{folder}/", "")
            points = 0
            for opening in openings:
                assert host is not None
                points += count_points(opening, host.read(opening.name), beside.steps)
        return Turn(pairs, [opening.name for opening in openings], points, closing)

    def _pair(self, alone: Side, beside: Side, place: int) -> tuple[float, float]:
        seconds = {alone: 0.0, beside: 0.0}
        woven = self.per_turn < self.steps
        for number in range(self.steps // self.per_turn):
            for side in (alone, beside) if (place + number) % 2 == 0 else (beside, alone):
                if number == 0:
                    side.train(self.lead_in)
                seconds[side] += side.train(self.per_turn)
                if not woven:
                    side.settle(self.rest)
        if woven:
            beside.settle(self.rest)
        return self.steps / seconds[alone], self.steps / seconds[beside]


def _clear_environment(folder: Path) -> None:
    """Remove all variables that could change the trackers' behavior, and use an empty home."""
    kept = {name: os.environ[name] for name in _SHARED if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("LD_", "OMP"))}
    home = folder / "home"
    home.mkdir()
    os.environ.clear()
    os.environ.update({**kept, "HOME": str(home)})


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds and return the rows of the table."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as folder:
        training = Training(
            Path(folder),
            options.trackers,
            options.milliseconds / 1000,
            options.steps,
            options.lead_in,
            options.turn or options.steps,
            options.pairs,
            options.rest,
        )
        for contender, turn in take_turns(options.contenders, options.rounds, training):
            turns[contender].append(turn)
    return [summarize(contender, turns[contender]) for contender in options.contenders]


def summarize(contender: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """Return a row of the table."""
    pairs = [pair for turn in turns for pair in turn.pairs]
    return {
        "contender": contender,
        "trackers": turns[-1].trackers,
        "pairs": len(pairs),
        "alone_steps_per_second": Figure.over([alone for alone, _ in pairs]),
        "beside_steps_per_second": Figure.over([beside for _, beside in pairs]),
        "ratio": Figure.over([beside / alone for alone, beside in pairs]),
        "points": sum(turn.points for turn in turns),
        "closing": turns[-1].closing,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    names = known()
    parser = make_parser(__doc__, "twelve", (NOTHING, ALL, *names))
    parser.set_defaults(rounds=2, contenders=[NOTHING, ALL])
    parser.add_argument(
        "--trackers", nargs="+", choices=names, default=names, help="the trackers of `all`"
    )
    parser.add_argument("--pairs", type=int, default=10, help="pairs of blocks per turn")
    parser.add_argument("--steps", type=int, default=400, help="steps measured per block")
    parser.add_argument("--lead-in", type=int, default=20, help="steps before the measured ones")
    parser.add_argument(
        "--turn", type=int, help="steps per turn; by default as many as a block has"
    )
    parser.add_argument("--milliseconds", type=float, default=5.0, help="duration of a step")
    parser.add_argument("--rest", type=float, default=1.0, help="seconds between blocks")
    options = parser.parse_args(arguments)
    sizes = (options.rounds, options.pairs, options.steps, options.lead_in, options.milliseconds)
    if min(*sizes, options.rest) <= 0:
        parser.error("--rounds and all other numbers must be above 0")
    if options.turn is not None and (options.turn < 1 or options.steps % options.turn):
        parser.error(
            f"--steps must be a multiple of --turn, not {options.steps} and {options.turn}"
        )
    return options


def judge(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line about the goal, if `all` took part."""
    ratios = {row["contender"]: row["ratio"].median for row in rows}
    if ALL not in ratios:
        return []
    met = "met" if ratios[ALL] >= GOAL else "MISSED"
    return [f"{GOAL} of the steps/s without a tracker: {ratios[ALL]:.3f}, {met}"]


def main() -> None:
    """Measure, print the table and the closing lines, and write the result."""
    options = parse()
    about = describe_machine()
    rows = measure(options)
    columns = {
        "steps/s alone": ("alone_steps_per_second", ".1f"),
        "with them": ("beside_steps_per_second", ".1f"),
        "ratio": ("ratio", ".3f"),
    }
    print_table(
        ("contender", "trackers", "pairs", *columns, "points"),
        [
            (
                row["contender"],
                str(len(row["trackers"])),
                str(row["pairs"]),
                *(row[key].show(form) for key, form in columns.values()),
                str(row["points"]),
            )
            for row in rows
        ],
    )
    print("", *judge(rows), sep="\n")
    for row in rows:
        if row["closing"]:
            print(f"\n{row['contender']}:\n{row['closing']}")
    settings = {
        "rounds": options.rounds,
        "pairs": options.pairs,
        "steps": options.steps,
        "lead_in": options.lead_in,
        "turn": options.turn or options.steps,
        "step_milliseconds": options.milliseconds,
        "rest_seconds": options.rest,
    }
    write_result(options.json, "twelve", about, settings, rows)


if __name__ == "__main__":
    main()
