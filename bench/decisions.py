"""
Show the cost of a callback that decides: a step takes 50 ms, and a decision takes 20 ms.

Half of a step is Python, which holds the GIL, and half is PyTorch, which releases it. After each
step an async hook is asked whether to stop, and takes 20 ms to answer, as if it asked a server. It
runs on the event-loop thread or in the companion, with `lag=1` (its decision is applied a step
later) or `lag=0` (the loop waits for it within the step). `nobody` decides nothing and is the
baseline for the others.

Each contender runs in its own process, in turn. In a turn, blocks of steps with its callback
alternate with blocks without a dispatcher, in pairs. A figure is the median of the pairs' ratios,
so that a drift of the machine affects both sides.

How to read the table: steps per second, and by how many percent that is slower than without a
dispatcher. Figures are medians over the rounds, with the least and the greatest round in brackets.
A figure within the brackets of `nobody` is not a difference. Goal: less than 2 % with `lag=1`. With
`lag=0` a decision cannot cost less than the 20 ms that it takes. `waited` is the time that the
training waited, in ms per step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final, NamedTuple

from _deciders import DECIDERS
from _measure import (
    Figure,
    describe_machine,
    make_parser,
    print_table,
    sum_up_turns,
    take_turns,
    write_result,
)
from _work import Work

from asynccb import CallbackDispatcher

CONTENDERS: Final = tuple(DECIDERS)


class Turn(NamedTuple):
    """The results of one turn: seconds per step in pairs of blocks, and seconds waited per step."""

    pairs: list[tuple[float, float]]
    """With the callback, and without a dispatcher."""
    waited: float


@dataclass(frozen=True)
class Training:
    """One contender's turn."""

    step: float
    """Seconds."""
    think: float
    """Duration of a decision in seconds."""
    blocks: int
    steps: int

    def __call__(self, name: str, number: int) -> Turn:
        """Run one block that is not counted, then pairs of blocks."""
        work = Work(self.step)
        callbacks = [decider(self.think) for decider in DECIDERS[name]]
        with (
            tempfile.TemporaryDirectory(prefix="asynccb-bench-") as folder,
            CallbackDispatcher(callbacks, directory=folder) as run,
        ):
            self._block(work, run)
            before = self._waited(run)
            pairs = [(self._block(work, run), self._block(work, None)) for _ in range(self.blocks)]
            waited = (self._waited(run) - before) / (self.blocks * self.steps)
        return Turn(pairs, waited)

    def _block(self, work: Work, run: CallbackDispatcher | None) -> float:
        begin = time.perf_counter()
        for _ in range(self.steps):
            work.do()
            if run is not None:
                run.step()
        return (time.perf_counter() - begin) / self.steps

    @staticmethod
    def _waited(run: CallbackDispatcher) -> float:
        return sum(counts.waited for counts in run.statistics().callbacks.values())


def summarize(contender: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "contender": contender,
        "steps_per_second": Figure.over([median(1 / pair[0] for pair in t.pairs) for t in turns]),
        "slower_percent": Figure.over(
            [100 * (1 - median(without / own for own, without in turn.pairs)) for turn in turns]
        ),
        "waited_milliseconds": Figure.over([1000 * turn.waited for turn in turns]),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "decisions", CONTENDERS)
    parser.add_argument("--blocks", type=int, default=10, help="pairs of blocks per turn")
    parser.add_argument("--steps", type=int, default=20, help="steps per block")
    parser.add_argument("--milliseconds", type=float, default=50.0, help="duration of a step")
    parser.add_argument("--think", type=float, default=20.0, help="duration of a decision, in ms")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.blocks, options.steps, options.milliseconds) <= 0:
        parser.error("--rounds, --blocks, --steps and --milliseconds must be above 0")
    return options


def main() -> None:
    """Measure, print the table and write the result."""
    options = parse()
    about = describe_machine()
    training = Training(
        options.milliseconds / 1000, options.think / 1000, options.blocks, options.steps
    )
    settings = {
        "rounds": options.rounds,
        "blocks": options.blocks,
        "steps": options.steps,
        "step_milliseconds": options.milliseconds,
        "think_milliseconds": options.think,
    }
    turns = take_turns(options.contenders, options.rounds, training)
    write = partial(write_result, options.json, "decisions", about, settings)
    rows = sum_up_turns(turns, options.contenders, summarize, write)
    columns = {
        "steps/s": ("steps_per_second", ".2f"),
        "slower by %": ("slower_percent", "+.1f"),
        "waited ms": ("waited_milliseconds", ".2f"),
    }
    print_table(
        ("contender", *columns),
        [
            (row["contender"], *(row[key].show(form) for key, form in columns.values()))
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
