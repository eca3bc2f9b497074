"""
Shared code of the benches: turns in separate processes, percentiles, the table, the result file.

Each contender has its own process for the whole run, so that its threads and imports do not affect
the figures of the others. The contenders run their blocks of work one after the other. Every round
repeats all turns, and the first contender changes from round to round, so that a drift of the
machine affects all contenders equally. Figures are medians over the rounds, with the least and the
greatest beside them.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar

import asynccb

Block = TypeVar("Block")

_PACKAGES: Final = ("torch", "mlflow", "transformers", "tensorboard")
_IDLE_COLUMNS: Final = (3, 4)  # of the first line of /proc/stat: idle, and waiting for a disk


@dataclass(frozen=True)
class Figure:
    """One figure over the rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def over(cls, rounds: Sequence[float]) -> Figure:
        """Return the figure over one value per round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    def show(self, form: str) -> str:
        """Return the figure as `median (least … greatest)`; `form` is a format for one number."""
        low, high = format(self.least, form), format(self.greatest, form)
        return f"{format(self.median, form)} ({low} … {high})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed."""
    if not values:
        raise ValueError("cannot take a percentile of an empty sequence")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """
    Return a 95 per cent confidence interval for the median of the population of the values.

    It holds for any distribution. For fewer than 6 values, the bounds are the least and the
    greatest, and the confidence is lower.
    """
    if not values:
        raise ValueError("cannot take an interval of an empty sequence")
    ordered, count = sorted(values), len(values)
    outside, place = 0.0, -1
    while (outside := outside + 2 * math.comb(count, place + 1) / 2**count) <= 0.05:
        place += 1
    place = max(0, place)
    return ordered[place], ordered[-1 - place]


def take_turns(
    names: Sequence[str], rounds: int, block: Callable[[str, int], Block]
) -> Iterator[tuple[str, Block]]:
    """
    Run `block(name, round)` for every name in every round; yield each name and result.

    `block` runs in the main thread of the process of that name and must be importable there.
    """
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)) for name in names
        }
        for number in range(rounds):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
                yield name, workers[name].submit(block, name, number).result()


def sum_up_turns(
    turns: Iterable[tuple[str, Block]],
    names: Sequence[str],
    summarize: Callable[[str, Sequence[Block]], Mapping[str, Any]],
    write: Callable[[Sequence[Mapping[str, Any]]], None],
) -> list[Mapping[str, Any]]:
    """
    Return one row per name.

    `write` receives the rows after every turn, so that an interrupted run leaves a result.
    """
    taken: dict[str, list[Block]] = {name: [] for name in names}
    rows: list[Mapping[str, Any]] = []
    for name, turn in turns:
        taken[name].append(turn)
        rows = [summarize(each, blocks) for each, blocks in taken.items() if blocks]
        with redirect_stdout(sys.stderr):  # standard output is for the table
            write(rows)
    return rows


def machine_busy() -> float:
    """Return the core seconds that the machine was busy since it started (Linux)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(count for column, count in enumerate(ticks) if column not in _IDLE_COLUMNS)
    return busy / os.sysconf("SC_CLK_TCK")


def describe_machine() -> dict[str, Any]:
    """Return the data to compare results by: processor, cores, kernel, load, versions, date."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": models[0] if models else platform.processor(),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            "asynccb": asynccb.__version__,
            **{package: version for package in _PACKAGES if (version := _version(package))},
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a contender that is not installed does not run
        return None


def make_parser(about: str | None, bench: str, contenders: Sequence[str]) -> ArgumentParser:
    """Return a parser with the options that all benches share."""
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--contenders", nargs="+", choices=contenders, default=list(contenders))
    result = Path(__file__).parent / "results" / f"{bench}.json"
    parser.add_argument("--json", type=Path, default=result, help="where to write the result")
    return parser


def add_mlflow(parser: ArgumentParser) -> None:
    """Add the option for an MLflow server that is already running."""
    parser.add_argument(
        "--mlflow", default="", metavar="URI", help="a running server; by default one is started"
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown: the first two columns left-aligned, figures right-aligned."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        sides = ["<" if column < 2 else ">" for column in range(len(cells))]
        padded = (format(c, f"{s}{w}") for c, s, w in zip(cells, sides, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    print(line(heads))
    print(line(["-" * width for width in widths]))
    for row in rows:
        print(line(row))


def write_result(
    path: Path,
    bench: str,
    about: Mapping[str, Any],
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write the result file: `about` from `describe_machine`, the settings, and the rows."""
    content = {"bench": bench, **about, "settings": dict(settings), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")
    print(f"\nwritten to {path}")


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Figure) else str(value)
