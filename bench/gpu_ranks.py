"""
Show the cost of logging every step in a training on several GPUs, with DDP over NCCL.

Like `gpu_step.py`, but only for asynccb: each rank runs the same callbacks, as in a user's script,
and the four trackers send from the first rank. All ranks alternate steps with and without logging,
in short turns (`_gpu_measure.py` explains why) or in blocks (`--turn`), in step with one another.
Servers run on loopback.

How to read the table: `ratio` is steps per second with logging over steps per second without, in
the same pair, on the first rank. Figures are medians over the pairs, with the least and the
greatest in brackets. `none` logs nothing and shows the precision of the method. Goal for asynccb:
ratio >= 0.98.
`--device cpu` only tries the script out, over gloo.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from _gpu_loggers import Ready, Servers, open_logger
from _gpu_measure import (
    Block,
    Results,
    add_turn,
    describe_gpu,
    find_device,
    make_gpu_parser,
    parse_quick,
    run_block,
    servers_for,
    weave,
)
from _gpu_work import Workload, make_workload
from _measure import print_table
from gpu_step import COLUMNS, Pair, show, summarize

LOGGERS: Final = ("none", "asynccb")
BLOCKS: Final = {"eager": 300, "gpt": 150}
"""Steps per block."""
TURNS: Final = {"eager": 20, "gpt": 10}
"""Steps per turn."""
QUICK: Final = {"pairs": 6, "workloads": ["eager"], "scalars": [5]}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = make_gpu_parser(__doc__, "gpu_ranks")
    parser.add_argument("--ranks", type=int, default=2, help="at most the number of GPUs")
    parser.add_argument("--workloads", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--scalars", nargs="+", type=int, default=[5, 20], help="per step")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of blocks per logger")
    parser.add_argument("--steps", type=int, help=f"per block; by default {BLOCKS}")
    add_turn(parser, TURNS)
    options = parse_quick(parser, arguments, QUICK)
    if options.ranks < 2 or options.pairs < 1:
        parser.error("--ranks must be 2 or more, --pairs 1 or more")
    return options


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table, one for each training, number of scalars and logger."""
    with (
        tempfile.TemporaryDirectory(prefix="asynccb-bench-") as name,
        servers_for(["asynccb"], Path(name), "stack") as servers,
    ):
        for workload in options.workloads:
            for scalars in options.scalars:
                folder = Path(name, f"{workload}-{scalars}")
                folder.mkdir()
                work = {
                    "workload": workload,
                    "scalars": scalars,
                    "steps": options.steps or BLOCKS[workload],
                    "turn": options.turn or TURNS[workload],
                    "pairs": options.pairs,
                    "scale": options.scale,
                    "device": options.device,
                    "servers": [str(folder), *servers[1:]],
                }
                yield from _run_ranks(options.ranks, work, folder / "rows.pickle")


def _run_ranks(count: int, work: dict[str, Any], result: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={count}", __file__, "--rank", json.dumps(work), str(result)]
    subprocess.run(command, check=True)
    rows: list[dict[str, Any]] = pickle.loads(result.read_bytes())
    about = {"ranks": count} | {key: work[key] for key in ("workload", "scalars", "steps", "turn")}
    return [about | row for row in rows]


def be_a_rank(work: dict[str, Any], result: Path) -> None:
    """Run all blocks as one of the ranks; the first rank writes the rows."""
    cuda = work["device"] != "cpu"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    training = make_workload(work["workload"], work["scalars"], work["scale"], device)
    servers = Servers(Path(work["servers"][0]), *work["servers"][1:])
    rows = []
    for logger in LOGGERS:
        folder = servers.folder / f"{servers.folder.name}-{logger}-{dist.get_rank()}"
        with open_logger(logger, servers, folder) as ready:
            run = _run_pairs if work["turn"] >= work["steps"] else _weave_pairs
            pairs = list(run(training, ready, work))
        trackers = {"trackers": 4} if logger == "asynccb" else {}
        rows.append({"logger": logger, **trackers, **summarize(pairs, [])})
    if dist.get_rank() == 0:
        result.write_bytes(pickle.dumps(rows))
    dist.destroy_process_group()


def _weave_pairs(training: Workload, ready: Ready, work: dict[str, Any]) -> Iterator[Pair]:
    """Yield pairs of woven blocks."""
    steps, begun = work["steps"], 1
    for _ in range(work["pairs"]):
        run_block(training, ready.log, begun, steps // 3, longest=math.inf)
        blocks = weave(training, ready.log, begun + steps // 3, steps, work["turn"])
        begun += steps // 3 + steps
        yield Pair(*blocks, _settle(ready))


def _settle(ready: Ready) -> float:
    begin = time.perf_counter()
    ready.settle()
    behind = time.perf_counter() - begin
    dist.barrier()
    return behind


def _run_pairs(training: Workload, ready: Ready, work: dict[str, Any]) -> Iterator[Pair]:
    """Yield pairs of blocks; every rank runs the same steps, or the ranks would wait forever."""
    steps, begun = work["steps"], 1

    def run(log: Any, length: int) -> Block:
        nonlocal begun
        block = run_block(training, log, begun, length, longest=math.inf)
        begun += length if log is not None else 0
        return block

    for number in range(work["pairs"]):
        blocks, behind = {}, 0.0
        for logged in (False, True) if number % 2 else (True, False):
            log = ready.log if logged else None
            run(log, steps // 3)
            blocks[logged] = run(log, steps)
            if logged:
                behind = _settle(ready)
        yield Pair(blocks[False], blocks[True], behind)


def main() -> None:
    """Measure, print the table and write the result."""
    if sys.argv[1:2] == ["--rank"]:
        be_a_rank(json.loads(sys.argv[2]), Path(sys.argv[3]))
        return
    options = parse()
    about = describe_gpu(find_device(options.device))
    results = Results(options, "gpu_ranks", about, ("ranks", "workload", "scalars", "logger"))
    for row in measure(options):
        results.add(row)
    print_table(("training", "logger", *COLUMNS), [show(row) for row in results.rows])


if __name__ == "__main__":
    main()
