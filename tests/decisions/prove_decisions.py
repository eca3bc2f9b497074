"""
Show at length that decisions depend on nothing but the run; the suite has a handful of each.

    python prove_decisions.py schedules 10000    answers in any order: one trace for each plan
    python prove_decisions.py ranks 200          torchrun, half on 2 ranks and half on 4
    python prove_decisions.py kills 50           killed anywhere and resumed: one outcome

An option `--seed` takes other cases. Ends with a line that says how many there were, and with
status 1 at the first that is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.decisions import schedules
from tests.decisions.deciding_training import draw_kill, go_on, kill_and_go_on
from tests.distributed import rank_runs
from tests.distributed.ranks import torchrun_ranks

ORDERS = 5
"""Orders in which a plan's answers come."""


def prove_schedules(count: int, seed: int, folder: Path) -> str:
    plans = -(-count // ORDERS)
    for number in range(seed, seed + plans):
        schedules.check(number, ORDERS, folder)
        for made in folder.iterdir():
            shutil.rmtree(made)
    return f"{plans * ORDERS} schedules, {plans} plans in {ORDERS} orders each"


def prove_ranks(count: int, seed: int, folder: Path) -> str:
    half = -(-count // 2)
    meetings = 0
    for world in (2, 4):
        place, seeds = folder / str(world), range(seed, seed + half)
        place.mkdir()
        given = ("tests.distributed.rank_runs.decide_at_random", seeds.start, half)
        runs = torchrun_ranks(place, *given, world=world, timeout=3600.0)
        rank_runs.check(runs, seeds, world)
        meetings += sum(run["meetings"] for run in runs[0])
    return f"{2 * half} runs, half of them on 2 ranks and half on 4, with {meetings} meetings"


def prove_kills(count: int, seed: int, folder: Path) -> str:
    with contextlib.redirect_stdout(None):
        whole = go_on(folder / "whole")
        for number in range(seed, seed + count):
            step, event = draw_kill(random.Random(number))
            directory = folder / f"{number}-{step}-{event}"
            assert kill_and_go_on(directory, step, event) == whole, (step, event)
            print(f"killed at {event} of step {step}", file=sys.stderr, flush=True)
            shutil.rmtree(directory)
    return f"{count} kills, each run resumed to the same weights, history and trace"


PROOFS: dict[str, Callable[[int, int, Path], str]] = {
    "schedules": prove_schedules,
    "ranks": prove_ranks,
    "kills": prove_kills,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=PROOFS)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        said = PROOFS[options.what](options.count, options.seed, Path(name))
    print(f"seed {options.seed}: {said}; {time.monotonic() - begin:.0f} s")
