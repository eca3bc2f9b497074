"""
Kill the training process, its companion, or both, at any moment, and compare the server's points.

A script too, for more of them than the tests have time for: `python tests/faults/kills.py COUNT
[SEED]` starts a real MLflow server, prints each kill that lost or doubled something, and sums up.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # as a script
    sys.path.insert(0, str(ROOT))

from asynccb._ground.events import EVENTS, Event  # noqa: E402
from asynccb._journal.segments import (  # noqa: E402
    SEGMENT_HEADER,
    payload_at,
    segments,
    split_frames,
)
from asynccb._ring.record import decode  # noqa: E402
from tests.support.launching import environment, launch  # noqa: E402
from tests.support.waiting import eventually, is_gone  # noqa: E402
from tests.trackers.mlflow.server import RealMLflow  # noqa: E402
from tests.trackers.mlflow.stores import StoreReader  # noqa: E402

Victim = Literal["trainer", "companion", "both"]
STEPS = 3000
"""Points of a run that nobody kills, at 1,000 a second."""


@dataclass
class Target:
    """Say how a tracker is made for an experiment of its own, and how to read what arrived."""

    tracker: str
    """Public name of the class."""
    arguments: Callable[[str], dict[str, str]]
    """Returns the constructor's arguments for an experiment of that name."""
    ended: Callable[[str], tuple[str, list[tuple[int, float]]] | None]
    """Returns status and points of the experiment's run once it is over, else None."""
    finished: str = "FINISHED"
    crashed: str = "FAILED"


def mlflow_target(server: RealMLflow) -> Target:
    """Return the MLflow tracker itself, without anything before its server."""
    return Target(
        "MLflowCallback",
        lambda name: {"tracking_uri": server.uri, "experiment_name": name},
        lambda name: ended_in(server, name),
    )


@dataclass
class Outcome:
    """Say what one run has come to."""

    target: Target
    victim: Victim
    moments: list[int]
    """Steps after which there was a kill."""
    emitted: int = 0
    """Points that `step` has returned from, as far as the program has lived to say."""
    journaled: int = 0
    """Points in the journal when both were dead."""
    seen: list[tuple[int, float]] = field(default_factory=list)
    status: str = ""
    trouble: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Note what is lost, doubled, or wrong."""
        least = self.journaled if self.victim == "both" else self.emitted
        steps = [step for step, _ in self.seen]
        if doubled := len(steps) - len(set(steps)):
            self.trouble.append(f"{doubled} doubled")
        if (lost := least - len(set(steps))) > 0:
            self.trouble.append(f"{lost} lost")
        if self.seen != [(step, 1 / step) for step in range(1, len(self.seen) + 1)]:
            self.trouble.append("points are not those that were emitted, in order")
        if self.victim == "companion" and len(steps) != STEPS:
            self.trouble.append(f"{len(steps)} points of {STEPS}")
        done = self.victim == "companion"
        expected = self.target.finished if done else self.target.crashed
        if self.status != expected:
            self.trouble.append(f"status {self.status or 'none'}, not {expected}")

    def __str__(self) -> str:
        when = ", ".join(map(str, self.moments))
        what = "; ".join(self.trouble) or "nothing lost, nothing doubled"
        return (
            f"{self.victim} killed after step {when}: emitted {self.emitted}, "
            f"journaled {self.journaled}, on the server {len(self.seen)}: {what}"
        )


def kill_once(target: Target, folder: Path, victim: Victim, chance: random.Random) -> Outcome:
    """Run a training, kill, let everything be delivered, and compare."""
    kills = chance.randint(1, 3) if victim == "companion" else 1
    # A third of them while the companion may not have come to life yet.
    latest = chance.choice([200, STEPS - 100, STEPS - 100])
    moments = sorted(chance.sample(range(1, latest), kills))
    outcome = Outcome(target, victim, moments)
    experiment = f"{target.tracker}-{folder.name}"  # some targets share a server
    runs = folder / "runs"
    arguments = json.dumps(target.arguments(experiment))
    with launch("emit_to", target.tracker, runs, STEPS, arguments) as trainer:
        _kill_at_moments(trainer, outcome)
        outcome.emitted = max([outcome.emitted, *map(int, _whole_lines(trainer))])
        trainer.wait()
    if victim == "both":
        outcome.journaled = journaled(runs)
        if not outcome.journaled:
            return outcome  # the companion had not come to life yet; there is nothing to deliver
        _sync(runs, outcome)
    outcome.status, outcome.seen = eventually(lambda: target.ended(experiment), 60.0)
    outcome.judge()
    return outcome


def _kill_at_moments(trainer: subprocess.Popen[str], outcome: Outcome) -> None:
    assert trainer.stdout is not None
    left = list(outcome.moments)
    for line in trainer.stdout:
        outcome.emitted = int(line)
        if left and outcome.emitted >= left[0]:
            left.pop(0)
            _kill(trainer, outcome.victim)
            if outcome.victim != "companion":
                return


def _kill(trainer: subprocess.Popen[str], victim: Victim) -> None:
    companions = children(trainer.pid)
    if victim != "companion":
        trainer.kill()
    if victim != "trainer":
        for pid in companions:
            os.kill(pid, signal.SIGKILL)
            if victim == "both":
                eventually(lambda pid=pid: is_gone(pid))


def children(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _whole_lines(trainer: subprocess.Popen[str]) -> list[str]:
    assert trainer.stdout is not None
    return [line for line in trainer.stdout.read().splitlines(True) if line.endswith("\n")]


def _sync(runs: Path, outcome: Outcome) -> None:
    """Deliver what the journal holds as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "asynccb", "sync", str(runs)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        outcome.trouble.append(f"asynccb sync: {done.stderr.strip().splitlines()[-1:]}")


def journaled(runs: Path) -> int:
    """Return how many logs there are in the journals of a folder of runs."""
    return sum(_count_logs(path) for path in runs.glob("*/journal"))


def _count_logs(journal: Path) -> int:
    count = 0
    for _, path in segments(journal):
        data = path.read_bytes()
        for _, start, _ in split_frames(data, SEGMENT_HEADER.size):
            count += decode(payload_at(data, start)).kind == EVENTS.index(Event.LOG)
    return count


def ended_in(
    server: RealMLflow | StoreReader, experiment: str
) -> tuple[str, list[tuple[int, float]]] | None:
    """Return status and points of an experiment's run once it is over."""
    runs = server.runs(experiment)
    assert len(runs) <= 1, f"{len(runs)} runs were made for one training"
    if not runs or runs[0]["info"]["status"] == "RUNNING":
        return None
    run = runs[0]["info"]
    return run["status"], [(s, v) for s, v, _ in server.points(run["run_id"], "loss")]


def kill_many(
    target: Target, folder: Path, count: int, seed: int, say: Callable[[str], None]
) -> list[Outcome]:
    """Kill until there were `count` kills; each victim in turn, each run from the seed alone."""
    outcomes: list[Outcome] = []
    victims: list[Victim] = ["trainer", "companion", "both"]
    while sum(len(outcome.moments) for outcome in outcomes) < count:
        number = len(outcomes)
        case = folder / f"kill-{seed}-{number}"
        case.mkdir()
        chance = random.Random(f"{seed}-{number}")
        outcomes.append(kill_once(target, case, victims[number % 3], chance))
        say(f"{number}: {outcomes[-1]}")
    return outcomes


def main(count: int, seed: int) -> int:
    """Kill that often, and sum up; return 1 where something was lost, doubled or wrong."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = RealMLflow(folder)
        server.start()
        try:
            target = mlflow_target(server)
            outcomes = kill_many(target, folder, count, seed, lambda text: print(text, flush=True))
        finally:
            server.close()
    wrong = [outcome for outcome in outcomes if outcome.trouble]
    kills = sum(len(outcome.moments) for outcome in outcomes)
    print(
        f"seed {seed}: {kills} kills in {len(outcomes)} runs, "
        f"{sum(len(outcome.seen) for outcome in outcomes)} points on the server, "
        f"{len(wrong)} runs with trouble, {time.monotonic() - begin:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int((sys.argv[2:] or ["1"])[0])))
