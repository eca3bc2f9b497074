"""
Show that misbehaving callbacks do not slow the training down.

A step takes about 5 ms on the CPU, half of it with the GIL, and logs 5 scalars to TensorBoard. Two
dispatchers are open in one process: one has only the tracker, the other has the tracker and the
callbacks of a contender:

* `nothing`: no callback; it shows the precision of the method;
* `slow`: an `async` hook that takes 100 ms per event, at 200 events per second, with
  `overflow = "drop_oldest"`; with `"block"`, the default, training would wait, as requested;
* `raising`: a hook that raises every time;
* `blocking`: a hook that calls `time.sleep(5)`, on the rare event of an evaluation;
* `all three`.

Blocks of steps with the two dispatchers alternate, and each pair of blocks gives a ratio of
steps/s. Before each block, all events so far are delivered and the event loop goes to sleep, so
that no block pays for work of an earlier block. `blocking` sleeps in every second pair, for longer
than the block lasts. Those pairs have a separate row, because no other hook of that event loop runs
in that time.

How to read the table: figures are medians over the pairs of all rounds, with the least and the
greatest pair in brackets. A ratio within the brackets of `nothing` is not a difference. `points` is
the number of points that TensorBoard's own reader found for both dispatchers; a missing, doubled or
wrong point stops the bench. Goal: a ratio of 0.98 or more. Below the table are the closing lines of
each dispatcher, from the last round. The warnings before it are those that a user of these
callbacks would see.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from _contenders import PATIENCE, make_values
from _measure import Figure, describe_machine, make_parser, print_table, take_turns, write_result
from _misbehaving import Blocking, Raising, Slow
from _work import Work
from step import run_steps

from asynccb import (
    CallbackDispatcher,
    Event,
    TensorBoardCallback,
    TrainerCallback,
    TrainingArguments,
)

CONTENDERS: Final = ("nothing", "slow", "raising", "blocking", "all three")
CAPACITY: Final = 20
"""Capacity of a mailbox: small, so that the slow hook's mailbox overflows in every block."""
Points: TypeAlias = dict[str, list[tuple[int, float]]]
"""Step and value of each point, by tag."""


class Pair(NamedTuple):
    """The steps/s of two blocks."""

    alone: float
    beside: float
    blocked: bool
    """Whether the event loop was blocked throughout the second block."""


class Turn(NamedTuple):
    """The results of one contender's turn."""

    pairs: list[Pair]
    points: int
    """Points that TensorBoard's reader found; they are all points that were emitted."""
    closing: str
    """The closing lines of the dispatcher with the misbehaving callbacks."""


class Side:
    """One of the two dispatchers that are compared, and its training."""

    def __init__(self, run: CallbackDispatcher, events: Path, work: Work, rest: float) -> None:
        self._run = run
        self._events = events
        self._work = work
        self._rest = rest

    def speed(self, lead_in: int, steps: int, blocking: Blocking | None) -> float:
        """
        Train and log, first `lead_in` steps without measuring; return the steps/s.

        With `blocking`, that hook blocks the event loop all the time.
        """
        if blocking is not None:
            self._run.emit(Event.EVALUATE, metrics={})
            if not blocking.asleep.wait(PATIENCE):
                raise RuntimeError(f"the blocking hook was not called within {PATIENCE:.0f} s")
        self._train(lead_in)
        speed = steps / sum(self._train(steps))
        if blocking is not None and not blocking.asleep.is_set():
            raise RuntimeError("the steps lasted longer than the blocking hook; use fewer --steps")
        return speed

    def settle(self) -> None:
        """Wait until everything is delivered and the event loop is asleep."""
        if not self._run.flush(timeout=PATIENCE):
            raise RuntimeError(f"not delivered within {PATIENCE:.0f} s: {self._run.statistics()}")
        time.sleep(self._rest)

    def close(self) -> str:
        """Close the dispatcher and return its closing lines."""
        self._run.emit(Event.TRAIN_END)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self._run.close(timeout=PATIENCE)
        return said.getvalue().strip()

    def points(self) -> int:
        """Return the number of points that arrived; RuntimeError unless all emitted points did."""
        return count_points(self._events, self._run.state.global_step)

    def _train(self, count: int) -> list[float]:
        step = self._run.step
        first = self._run.state.global_step + 1
        return run_steps(self._work, lambda _, values: step(logs=values), first, count)


@contextlib.contextmanager
def opened(
    folder: Path, work: Work, rest: float, beside: Sequence[TrainerCallback]
) -> Iterator[Side]:
    """Open a dispatcher with the tracker and the callbacks `beside` it."""
    events = folder / "events"
    callbacks = [TensorBoardCallback(logging_dir=str(events)), *beside]
    args = TrainingArguments(output_dir=str(folder))
    with CallbackDispatcher(callbacks, args=args, capacity=CAPACITY) as run:
        yield Side(run, events, work, rest)


def count_points(events: Path, steps: int) -> int:
    """
    Return the number of points in the event files.

    Raises RuntimeError unless they contain each point of `steps` steps exactly once.
    """
    found, emitted = read_points(events), emitted_points(steps)
    count = sum(map(len, found.values()))
    if found != emitted:
        expected = sum(map(len, emitted.values()))
        raise RuntimeError(
            f"TensorBoard has {count} points, which are not the {expected} that were emitted"
        )
    return count


def emitted_points(steps: int) -> Points:
    """Return the points that training for `steps` steps logs, as TensorBoard's 32-bit floats."""
    points: Points = defaultdict(list)
    for step in range(1, steps + 1):
        for name, value in make_values(step).items():
            points[f"train/{name}"].append((step, ctypes.c_float(value).value))
    return points


def read_points(folder: Path) -> Points:
    """Return the points that TensorBoard's own reader finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


@dataclass(frozen=True)
class Training:
    """One contender's turn."""

    folder: Path
    seconds: float
    steps: int
    lead_in: int
    pairs: int
    sleep: float
    rest: float

    def __call__(self, name: str, number: int) -> Turn:
        """Run pairs of blocks: with only the tracker, and with misbehaving callbacks too."""
        folder = self.folder / f"{name}-{number}".replace(" ", "-")
        work = Work(self.seconds)
        blocking = Blocking(self.sleep) if name in ("blocking", "all three") else None
        beside = [
            kind() for kind in (Slow, Raising) if name in (kind.__name__.lower(), "all three")
        ]
        with (
            opened(folder / "alone", work, self.rest, ()) as alone,
            opened(
                folder / "beside", work, self.rest, [*beside, *filter(None, [blocking])]
            ) as both,
        ):
            for side in (alone, both):
                side.settle()  # until the companions have started, which takes a core for a second
            pairs = [self._pair(alone, both, place, blocking) for place in range(self.pairs)]
            alone.close()
            closing = both.close()
            return Turn(pairs, alone.points() + both.points(), closing)

    def _pair(self, alone: Side, both: Side, place: int, blocking: Blocking | None) -> Pair:
        blocked_by = blocking if place % 2 else None
        speeds = {}
        # Each side goes first equally often, also among the blocked pairs.
        for side in (alone, both) if place // 2 % 2 == 0 else (both, alone):
            sleeper = blocked_by if side is both else None
            speeds[side] = side.speed(self.lead_in, self.steps, sleeper)
            side.settle()
        return Pair(speeds[alone], speeds[both], blocked_by is not None)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds and return the rows of the table."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as folder:
        training = Training(
            Path(folder),
            options.milliseconds / 1000,
            options.steps,
            options.lead_in,
            options.pairs,
            options.sleep,
            options.rest,
        )
        for contender, turn in take_turns(options.contenders, options.rounds, training):
            turns[contender].append(turn)
    return [row for contender in options.contenders for row in summarize(contender, turns)]


def summarize(contender: str, turns: dict[str, list[Turn]]) -> Iterator[dict[str, Any]]:
    """Yield a contender's rows of the table: for a running and for a blocked event loop."""
    its = turns[contender]
    for blocked in (False, True):
        pairs = [pair for turn in its for pair in turn.pairs if pair.blocked == blocked]
        if pairs:
            yield {
                "contender": contender,
                "loop": "blocked" if blocked else "running",
                "pairs": len(pairs),
                "alone_steps_per_second": Figure.over([pair.alone for pair in pairs]),
                "beside_steps_per_second": Figure.over([pair.beside for pair in pairs]),
                "ratio": Figure.over([pair.beside / pair.alone for pair in pairs]),
                "points": sum(turn.points for turn in its),
                "closing": its[-1].closing,
            }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "contained", CONTENDERS)
    parser.set_defaults(rounds=2)
    parser.add_argument("--pairs", type=int, default=10, help="pairs of blocks per turn")
    parser.add_argument("--steps", type=int, default=200, help="steps measured per block")
    parser.add_argument("--lead-in", type=int, default=20, help="steps before the measured ones")
    parser.add_argument("--milliseconds", type=float, default=5.0, help="duration of a step")
    parser.add_argument("--sleep", type=float, default=5.0, help="seconds that blocking sleeps")
    parser.add_argument(
        "--rest",
        type=float,
        default=1.0,
        help="seconds that an event loop needs to go to sleep without events, with a margin",
    )
    options = parser.parse_args(arguments)
    counts = (options.rounds, options.pairs, options.steps, options.lead_in)
    if min(*counts, options.milliseconds, options.sleep, options.rest) <= 0:
        parser.error("--rounds and all other numbers must be above 0")
    return options


def main() -> None:
    """Measure, print the table and the closing lines, and write the result."""
    options = parse()
    about = describe_machine()
    rows = measure(options)
    columns = {
        "steps/s alone": ("alone_steps_per_second", ".1f"),
        "beside it": ("beside_steps_per_second", ".1f"),
        "ratio": ("ratio", ".3f"),
    }
    print_table(
        ("contender", "event loop", "pairs", *columns, "points"),
        [
            (
                row["contender"],
                row["loop"],
                str(row["pairs"]),
                *(row[key].show(form) for key, form in columns.values()),
                str(row["points"]),
            )
            for row in rows
        ],
    )
    for contender, closing in {row["contender"]: row["closing"] for row in rows}.items():
        print(f"\n{contender}:\n{closing}")
    settings = {
        "rounds": options.rounds,
        "pairs": options.pairs,
        "steps": options.steps,
        "lead_in": options.lead_in,
        "step_milliseconds": options.milliseconds,
        "sleep_seconds": options.sleep,
        "rest_seconds": options.rest,
        "capacity": CAPACITY,
    }
    write_result(options.json, "contained", about, settings, rows)


if __name__ == "__main__":
    main()
