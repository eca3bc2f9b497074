"""
Shared code of the GPU benches: blocks of steps, long-lived processes, options and results.

A block begins and ends with the device idle, so its duration is the time of the work, whether the
CPU or the device is slower. The time of single steps is measured twice:

* On the host, in every block, from the end of one step's launches and log to the end of the next
  step's. If the device is slower, the host runs ahead, and its steps are short until the launch
  queue is full. Compare these times with and without logging, but do not read them as the time of a
  step.
* On the device, from one step's end to the next, by CUDA events. This happens in separate blocks,
  because recording an event costs the host some microseconds.

If the CPU limits a training, the speed of a virtual machine changes within seconds by several times
the cost of logging. Blocks of such a training are woven: short turns with and without logging
alternate, and all turns of one kind form a block. The background work of a logger then slows both
kinds equally. Unwoven blocks show that work, if it runs on cores that the training does not use.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import torch
from _gpu_loggers import Log, Servers, missing_for
from _gpu_sinks import sink_server
from _gpu_work import Workload
from _measure import describe_machine, write_result
from _server import mlflow_server

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LONGEST_BLOCK: Final = 3.0
"""Seconds after which a block ends early, so that slow peers do not take all day."""

_PACKAGES: Final = ("wandb", "msgspec", "httpx")
_clock = time.perf_counter


@dataclass(frozen=True)
class Block:
    """The durations of a block of steps, in seconds."""

    seconds: float
    host: list[float]
    """Time of each step, on the host."""
    device: list[float]
    """Time of each step except the first, on the device; empty if not requested."""

    @property
    def rate(self) -> float:
        """Steps per second."""
        return len(self.host) / self.seconds

    @classmethod
    def joined(cls, turns: Sequence[Block]) -> Block:
        """Return several blocks joined into one."""
        return cls(
            sum(turn.seconds for turn in turns),
            [*chain.from_iterable(turn.host for turn in turns)],
            [*chain.from_iterable(turn.device for turn in turns)],
        )


def run_block(
    work: Workload,
    log: Log | None,
    first: int,
    count: int,
    *,
    on_device: bool = False,
    longest: float = LONGEST_BLOCK,
    collect: bool = True,
) -> Block:
    """
    Run `count` steps, numbered from `first`, and log each unless `log` is None.

    The block ends early after `longest` seconds.
    """
    marks = [_make_event() for _ in range(count)] if on_device else []
    if collect:
        gc.collect()
    work.synchronize()
    host = []
    begin = last = _clock()
    deadline = begin + longest
    for number in range(count):
        scalars = work.step()
        if log is not None:
            log(first + number, scalars)
        if on_device:
            marks[number].record()
        now = _clock()
        host.append(now - last)
        last = now
        if now > deadline:
            break
    work.synchronize()
    seconds = _clock() - begin
    gaps = [a.elapsed_time(b) / 1000 for a, b in pairwise(marks[: len(host)])]
    return Block(seconds, host, gaps)


def weave(
    work: Workload, log: Log | None, first: int, count: int, turn: int, *, on_device: bool = False
) -> tuple[Block, Block]:
    """
    Run `count` steps without logging and `count` steps with it, in turns.

    The kind that begins changes from turn to turn. `first` is the number of the first logged step.
    No turn ends early, because all ranks must run the same steps.
    """
    turns: dict[bool, list[Block]] = {False: [], True: []}
    gc.collect()
    for begun in range(0, count, turn):
        steps = min(turn, count - begun)
        for logged in (False, True) if begun // turn % 2 else (True, False):
            block = run_block(
                work,
                log if logged else None,
                first + begun,
                steps,
                on_device=on_device,
                longest=math.inf,
                collect=False,
            )
            turns[logged].append(block)
    return Block.joined(turns[False]), Block.joined(turns[True])


def _make_event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class Processes(AbstractContextManager["Processes"]):
    """
    Long-lived processes, one for each name, that run calls in their main threads.

    If a call kills its process, the next call starts a new process.
    """

    def __init__(self) -> None:
        self._pools: dict[str, ProcessPoolExecutor] = {}

    def call(
        self,
        name: str,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        """Run the call, wait for its end, and return its outcome: a result or an exception."""
        if name not in self._pools:
            spawn = multiprocessing.get_context("spawn")
            self._pools[name] = ProcessPoolExecutor(1, mp_context=spawn)
        outcome = self._pools[name].submit(function, *args, **kwargs)
        if outcome.exception() is not None:
            self._pools.pop(name).shutdown()
        return outcome

    def __exit__(self, *error: object) -> None:
        for pool in self._pools.values():
            pool.shutdown()


@contextmanager
def servers_for(loggers: Iterable[str], folder: Path, fetch: str) -> Iterator[Servers]:
    """Run the servers that the loggers need, and yield their addresses."""
    wanted = {"asynccb", "MLflow asynchronous"} & set(loggers)
    with ExitStack() as stack:
        mlflow = None
        if wanted and missing_for("MLflow asynchronous") is None:
            mlflow = stack.enter_context(mlflow_server(folder / "mlflow"))
        sink = stack.enter_context(sink_server()) if "asynccb" in wanted else ""
        yield Servers(folder, mlflow, sink, fetch)


def find_device(name: str) -> torch.device:
    """Return the device; raise SystemExit, with a hint, if it needs CUDA and there is none."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device found; use `--device cpu`, but only to try the script out")
    return device


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """Return the result of `describe_machine`, with the device and the GPU benches' packages."""
    about = describe_machine()
    for package in _PACKAGES:
        if importlib.util.find_spec(package):
            about["versions"][package] = importlib.metadata.version(package)
    about["machine"]["device"] = str(device)
    if device.type == "cuda":
        about["machine"]["device"] = torch.cuda.get_device_name(device)
        about["versions"]["cuda"] = torch.version.cuda
    return about


def make_gpu_parser(about: str | None, bench: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all GPU benches have."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result = Path(__file__).parent / "results" / f"{bench}.json"
    parser.add_argument("--json", type=Path, default=result, help="where to write the result")
    parser.add_argument("--add", action="store_true", help="keep rows of other cells in the file")
    parser.add_argument("--quick", action="store_true", help="a first look, in a minute or two")
    parser.add_argument("--device", default="cuda", help="`cpu` only tries the script out")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of layers")
    return parser


def add_turn(parser: argparse.ArgumentParser, turns: Mapping[str, int]) -> None:
    """Add the option `--turn` for woven blocks; `turns` are its defaults, by workload."""
    about = f"steps per turn, by default {turns}; as many as a block has: blocks are not woven"
    parser.add_argument("--turn", type=int, help=about)


def parse_quick(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, quick: Mapping[str, Any]
) -> argparse.Namespace:
    """Parse the arguments; `--quick` changes the defaults, not options that were given."""
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**quick)
    options = parser.parse_args(arguments)
    if options.scale <= 0:
        parser.error(f"--scale must be above 0, not {options.scale}")
    turn = getattr(options, "turn", None)
    if turn is not None and turn < 1:
        parser.error(f"--turn must be above 0, not {turn}")
    return options


class Results:
    """
    The result file, rewritten with each row, so that an interrupted run leaves its rows so far.

    Each row contains the date and the cores of its run, because with `--add` a file has rows of
    several runs.
    """

    def __init__(
        self, options: argparse.Namespace, bench: str, about: Mapping[str, Any], keys: Sequence[str]
    ) -> None:
        """Take the arguments of `write_result`; `keys` are the columns that identify a row."""
        self._options = options
        self._bench = bench
        self._about = about
        self._keys = keys
        self.rows: list[Mapping[str, Any]] = []
        self._kept: list[Mapping[str, Any]] = []
        if options.add and options.json.exists():
            self._kept = json.loads(options.json.read_text())["rows"]

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; it replaces an older row of the same cell."""
        row = {**row, "date": self._about["date"], "cores": self._about["machine"]["cores"]}
        self.rows = [*self._others(self.rows, row), row]
        self._kept = [*self._others(self._kept, row), row]
        settings = {key: value for key, value in vars(self._options).items() if key != "json"}
        with redirect_stdout(sys.stderr):
            write_result(self._options.json, self._bench, self._about, settings, self._kept)

    def _others(
        self, rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        """Return the rows that belong to other cells than `row`."""
        name = [row.get(key) for key in self._keys]
        return [old for old in rows if [old.get(key) for key in self._keys] != name]
