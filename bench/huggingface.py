"""
Show the cost of logging every step from a `transformers.Trainer`, with its callbacks and with ours.

A small GPT-2, made from a configuration, trains in a `transformers.Trainer` with `logging_steps=1`
and logs to TensorBoard and to a real MLflow server on loopback:

* `nothing`: `report_to="none"`; it shows the precision of the method;
* `asynccb`: our two trackers in one `AsyncCallbacks`;
* `offload`: the TensorBoard and MLflow callbacks of transformers, each on a thread by `offload`;
* `transformers`: the same two callbacks as in the Trainer, on the training thread.

Each contender has its own process. Each pair of blocks of steps, without callbacks and with the
contender's, gives a ratio of steps/s. Before the next pair, all logged values are delivered. The
first steps, while processes and connections start, are not counted. Blocks are woven in short
turns, because the speed of a virtual machine changes within seconds by more than the cost of
logging. Background work then slows both kinds equally, which is acceptable if it runs on cores that
the training does not use. If `--turn` is as long as a block, each block is a separate training, and
the background work counts. On the CPU, PyTorch has one thread.

How to read the table: `ratio` is the median over the pairs of all rounds, with its 95 per cent
confidence interval in brackets. `typical` is the same for the speed of the median step, which a
pause of the machine does not change. `calls us` is the time per step within the hooks of the
contender's callbacks, in microseconds. Its brackets, like those of the steps/s, contain the least
and the greatest pair. `points` is the number of loss values on the MLflow server; a missing or
doubled value stops the bench. Goal for `asynccb`: a ratio of 0.99 or more. `offload` stays below 1
by the cost of a client that holds the GIL, on whichever thread it runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
from _contenders import Place
from _measure import (
    Figure,
    add_mlflow,
    describe_machine,
    make_parser,
    median_interval,
    print_table,
    sum_up_turns,
    take_turns,
    write_result,
)
from _server import mlflow_server

CONTENDERS: Final = ("nothing", "asynccb", "offload", "transformers")


class Pair(NamedTuple):
    """The results of a pair of blocks, without callbacks (`alone`) and with them (`beside`)."""

    alone: float
    """Steps/s."""
    beside: float
    typical: float
    """Speed of the median step with callbacks, divided by its speed without them."""
    calls: float
    """Microseconds per step within the callbacks' hooks, on the training thread."""


class Turn(NamedTuple):
    """The results of one contender's turn."""

    pairs: list[Pair]
    points: int


@dataclass(frozen=True)
class Blocks:
    """One contender's turn."""

    place: Place
    device: str
    pairs: int
    steps: int
    turn: int
    lead_in: int

    def __call__(self, name: str, number: int) -> Turn:
        """Train without and with the contender, in alternation."""
        warnings.simplefilter("ignore")  # from packages that transformers and MLflow import
        # With several GPUs, the Trainer would use them all by DataParallel, at half the speed.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
        from _trainer_ways import SENT, WAYS, Training

        place = self.place.below(f"{name}-{number}")
        experiment = f"{place.folder.parent.name}-{place.folder.name}"  # only of this run
        os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment
        sizes = (self.lead_in, self.steps, self.turn)
        training = Training(self.device, *sizes, place.folder / "out")
        pairs: list[Pair] = []
        with WAYS[name](place) as way:
            self._pair(training, way)  # not counted: includes all one-time work
            for _ in range(self.pairs):
                pairs.append(self._pair(training, way))
        expected = (1 + self.pairs) * (self.lead_in + self.steps)
        return Turn(pairs, count_losses(place.server, experiment, expected) if name in SENT else 0)

    def _pair(self, training: Any, way: Any) -> Pair:
        times = training.time_steps(way.callbacks())
        way.settle()
        alone, beside, within = times
        return Pair(
            self.steps / sum(alone),
            self.steps / sum(beside),
            statistics.median(alone) / statistics.median(beside),
            1e6 * within / self.steps,
        )


def count_losses(server: str, experiment: str, expected: int) -> int:
    """Return the number of losses in an experiment; RuntimeError unless it is `expected`."""
    with httpx.Client(base_url=f"{server}/api/2.0/mlflow/", trust_env=False, timeout=60) as client:
        query = {"experiment_name": experiment}
        found = client.get("experiments/get-by-name", params=query).raise_for_status().json()
        body = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        runs = client.post("runs/search", json=body).raise_for_status().json()["runs"]
        count = 0
        for run in runs:
            asked = {"run_id": run["info"]["run_id"], "metric_key": "loss", "max_results": 25_000}
            page = client.get("metrics/get-history", params=asked).raise_for_status().json()
            count += len(page.get("metrics", ()))
    if count != expected:
        raise RuntimeError(f"MLflow has {count} losses of {experiment} instead of {expected}")
    return count


def summarize(contender: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """Return a row of the table."""
    pairs = [pair for turn in turns for pair in turn.pairs]
    ratios, typical = [pair.beside / pair.alone for pair in pairs], [pair.typical for pair in pairs]
    return {
        "contender": contender,
        "ratio": Figure.over(ratios),
        "ratio_interval": median_interval(ratios),
        "typical": Figure.over(typical),
        "typical_interval": median_interval(typical),
        "calls_microseconds": Figure.over([pair.calls for pair in pairs]),
        "steps_per_second": Figure.over([pair.beside for pair in pairs]),
        "steps_per_second_without": Figure.over([pair.alone for pair in pairs]),
        "points": sum(turn.points for turn in turns),
    }


def show_confident(row: Mapping[str, Any], name: str) -> str:
    """Return a figure of a row with its confidence interval."""
    low, high = row[f"{name}_interval"]
    return f"{row[name].median:.4f} ({low:.4f} … {high:.4f})"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_parser(__doc__, "huggingface", CONTENDERS)
    add_mlflow(parser)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of blocks per turn")
    parser.add_argument("--steps", type=int, default=300, help="steps measured per block")
    parser.add_argument("--turn", type=int, default=20, help="steps per turn")
    parser.add_argument(
        "--lead-in", type=int, default=100, help="logged steps before the measured ones"
    )
    options = parser.parse_args(arguments)
    sizes = (options.rounds, options.pairs, options.steps, options.turn, options.lead_in)
    if min(sizes) < 1:
        parser.error("--rounds, --pairs, --steps, --turn and --lead-in must be above 0")
    if options.turn < options.steps and options.steps % options.turn:
        parser.error(
            f"--steps must be a multiple of --turn, not {options.steps} and {options.turn}"
        )
    return options


def main() -> None:
    """Measure, print the table and write the result."""
    options = parse()
    about = describe_machine()
    if options.device == "cuda":
        import torch

        about["machine"]["device"] = torch.cuda.get_device_name()
    names = ("device", "rounds", "pairs", "steps", "turn", "lead_in")
    settings = {each: getattr(options, each) for each in names}
    write = partial(write_result, options.json, "huggingface", about, settings)
    with tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name:
        folder = Path(name)
        with mlflow_server(folder / "mlflow", running=options.mlflow) as address:
            blocks = Blocks(
                Place(folder, address),
                options.device,
                options.pairs,
                options.steps,
                options.turn,
                options.lead_in,
            )
            turns = take_turns(options.contenders, options.rounds, blocks)
            rows = sum_up_turns(turns, options.contenders, summarize, write)
    print_table(
        ("contender", "ratio", "typical", "calls us", "steps/s", "without", "points"),
        [
            (
                row["contender"],
                show_confident(row, "ratio"),
                show_confident(row, "typical"),
                row["calls_microseconds"].show(".0f"),
                row["steps_per_second"].show(".1f"),
                row["steps_per_second_without"].show(".1f"),
                str(row["points"]),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
