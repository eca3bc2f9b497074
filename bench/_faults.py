"""Measuring the table of `delivery.py --faults`: the speed of a training whose server fails."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from _contenders import PATIENCE
from _faulty_server import ANSWERS, FAULTS, faulty_server
from _measure import Figure, take_turns
from _processes import find_children
from _work import Work
from step import run_steps

from asynccb import CallbackDispatcher, MLflowCallback, TrainingArguments

NO_LOGGING: Final = "no logging"
CONTENDERS: Final = (ANSWERS, *FAULTS, NO_LOGGING)
GOAL: Final = 0.99
"""Least ratio of steps/s with a failing server to steps/s with a server that answers."""
_PATIENCE_WITH_A_FAULT: Final = 1.0
"""Seconds to close a dispatcher whose server accepts nothing."""


class Turn(NamedTuple):
    """The results of one contender's turn."""

    pairs: list[tuple[float, float]]
    """Steps/s with a server that answers, and with the contender's server."""
    closing: str
    """The closing lines of the contender's dispatcher."""


class Side:
    """One of the two trainings that are compared."""

    def __init__(self, run: CallbackDispatcher | None, companions: set[int], work: Work) -> None:
        self._run = run
        self._companions = companions
        self._work = work
        self._step = 0

    def speed(self, lead_in: int, steps: int) -> float:
        """Train and log, first `lead_in` steps without measuring; return the steps/s."""
        self._train(lead_in)
        return steps / sum(self._train(steps))

    def delivers(self, patience: float) -> bool:
        """Return whether all logged values are delivered within `patience` seconds."""
        return self._run is None or self._run.flush(timeout=patience)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Pause the companion, so that its retries cost only its own side."""
        for pid in self._companions:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in self._companions:
                os.kill(pid, signal.SIGCONT)

    def close(self, patience: float) -> str:
        """Close the dispatcher and return its closing lines; RuntimeError if training waited."""
        if self._run is None:
            return ""
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self._run.close(timeout=patience)
        counted = self._run.statistics()
        if counted.dropped or counted.blocked:
            raise RuntimeError(f"the training waited, or events were dropped: {counted}")
        return said.getvalue().strip()

    def _train(self, count: int) -> list[float]:
        run, first = self._run, self._step + 1
        self._step += count
        log = None if run is None else lambda _, values: run.step(logs=values)
        return run_steps(self._work, log, first, count)


@contextlib.contextmanager
def opened(folder: Path, work: Work, address: str | None) -> Iterator[Side]:
    """Open a dispatcher that logs to this address; no dispatcher if the address is None."""
    if address is None:
        yield Side(None, set(), work)
        return
    args = TrainingArguments(output_dir=str(folder))
    others = find_children(os.getpid())
    with CallbackDispatcher([MLflowCallback(tracking_uri=address)], args=args) as run:
        yield Side(run, find_children(os.getpid()) - others, work)


@dataclass(frozen=True)
class Training:
    """One contender's turn."""

    folder: Path
    addresses: Mapping[str, str]
    seconds: float
    steps: int
    lead_in: int
    pairs: int

    def __call__(self, name: str, number: int) -> Turn:
        """Run pairs of blocks, with a server that answers and with the contender's server."""
        logging.getLogger("asynccb").setLevel(logging.ERROR)  # the faults are intended
        folder = self.folder / f"{name}-{number}".replace(" ", "-")
        work = Work(self.seconds)
        with (
            opened(folder / "fine", work, self.addresses[ANSWERS]) as fine,
            opened(folder / "contender", work, self.addresses.get(name)) as other,
        ):
            for side in (fine, other):
                side.speed(self.lead_in, 1)
            pairs = [self._pair(fine, other, number + place) for place in range(self.pairs)]
            failing = name in FAULTS
            patience = _PATIENCE_WITH_A_FAULT if failing else PATIENCE
            if not fine.delivers(PATIENCE) or other.delivers(patience) == failing:
                raise RuntimeError(f"the delivery with {name!r} did not end as expected")
            fine.close(PATIENCE)
            return Turn(pairs, other.close(patience))

    def _pair(self, fine: Side, other: Side, place: int) -> tuple[float, float]:
        speeds = {}
        order = ((fine, other), (other, fine))[place % 2]
        for side, stopped in (order, order[::-1]):
            with stopped.stopped():
                speeds[side] = side.speed(self.lead_in, self.steps)
        return speeds[fine], speeds[other]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds and return the rows of the table."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="asynccb-bench-") as folder,
        faulty_server() as addresses,
    ):
        training = Training(
            Path(folder),
            addresses,
            options.milliseconds / 1000,
            options.block,
            options.lead_in,
            options.pairs,
        )
        for contender, turn in take_turns(options.faults, options.rounds, training):
            turns[contender].append(turn)
    return [summarize(contender, turns[contender]) for contender in options.faults]


def summarize(contender: str, turns: list[Turn]) -> dict[str, Any]:
    """Return a row of the table."""
    pairs = [pair for turn in turns for pair in turn.pairs]
    return {
        "contender": contender,
        "pairs": len(pairs),
        "answered_steps_per_second": Figure.over([fine for fine, _ in pairs]),
        "steps_per_second": Figure.over([other for _, other in pairs]),
        "ratio": Figure.over([other / fine for fine, other in pairs]),
        "closing": turns[-1].closing,
    }


def judge(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each fault: whether its median ratio reaches the goal."""
    return [
        f"within 1 % of a server that answers, {row['contender']}: {row['ratio'].median:.3f}, "
        f"{'met' if row['ratio'].median >= GOAL else 'MISSED'}"
        for row in rows
        if row["contender"] in FAULTS
    ]
