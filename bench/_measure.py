"""
What the benches share: turns in separate processes, percentiles, the table and the result file.

Each contender lives in a process of its own for the whole run, so that neither its threads nor its
imports touch another's figures; one at a time, in turn, they run a block of work. The turns are
taken anew in every round and the first contender changes from round to round, so that a drift of
the machine falls on all alike. Figures are medians over the rounds, with the least and the greatest
beside them.
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
    """Hold one figure over the rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def over(cls, rounds: Sequence[float]) -> Figure:
        """Sum up one value a round."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    def show(self, form: str) -> str:
        """Return the figure as `median (least … greatest)`; `form` is a format for one number."""
        low, high = format(self.least, form), format(self.greatest, form)
        return f"{format(self.median, form)} ({low} … {high})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed."""
    if not values:
        raise ValueError("there is no percentile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """
    Return the bounds within which the median lies of what the values are a sample of.

    That is so in 95 of 100 cases, however the values are spread; of fewer than 6 values the bounds
    are the least and the greatest.
    """
    if not values:
        raise ValueError("there is no interval of no values")
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
    Run `block(name, round)` for every name in every round; yield the name and the result.

    `block` runs in the main thread of the name's own process and must be importable there.
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
    """Return a row a name; `write` gets them after every turn: a run cut short leaves a result."""
    taken: dict[str, list[Block]] = {name: [] for name in names}
    rows: list[Mapping[str, Any]] = []
    for name, turn in turns:
        taken[name].append(turn)
        rows = [summarize(each, blocks) for each, blocks in taken.items() if blocks]
        with redirect_stdout(sys.stderr):  # standard output has the table
            write(rows)
    return rows


def machine_busy() -> float:
    """Return the seconds for which the machine's cores were busy since it started (Linux)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(count for column, count in enumerate(ticks) if column not in _IDLE_COLUMNS)
    return busy / os.sysconf("SC_CLK_TCK")


def describe_machine() -> dict[str, Any]:
    """Return what a reader needs to compare: processor, cores, kernel, load, versions, date."""
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
    except metadata.PackageNotFoundError:  # a contender that is not installed takes no turn
        return None


def make_parser(about: str | None, bench: str, contenders: Sequence[str]) -> ArgumentParser:
    """Return a parser with the options that all benches have."""
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--contenders", nargs="+", choices=contenders, default=list(contenders))
    result = Path(__file__).parent / "results" / f"{bench}.json"
    parser.add_argument("--json", type=Path, default=result, help="where to write the result")
    return parser


def add_mlflow(parser: ArgumentParser) -> None:
    """Add the option to use an MLflow server that runs already."""
    parser.add_argument(
        "--mlflow", default="", metavar="URI", help="a running server; by default one is started"
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown: the first two columns to the left, figures to the right."""
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
    """Write the result file: `about` from `describe_machine`, what was asked for, and the rows."""
    content = {"bench": bench, **about, "settings": dict(settings), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")
    print(f"\nwritten to {path}")


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Figure) else str(value)
