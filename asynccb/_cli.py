"""The command line: `asynccb sync DIR`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import stamina.instrumentation
from tqdm import tqdm

from asynccb._companion._sync import Synced, sync_run
from asynccb._exceptions import JournalError


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command; return 0 if everything is delivered, 1 if something is left, 2 for bad input.

    `asynccb sync DIR` takes a run's folder or a folder of such folders.
    """
    parser = argparse.ArgumentParser(prog="asynccb", description="Look after journals of runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="deliver what is left in a run's journal")
    sync.add_argument("directory", type=Path, help="a run's folder, or a folder of such folders")
    sync.add_argument("--timeout", type=float, metavar="S", help="give up after S seconds a run")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stamina.instrumentation.set_on_retry_hooks(())  # lanes log their retries themselves
    return _sync(options.directory, options.timeout)


def _sync(directory: Path, timeout: float | None) -> int:
    runs = sorted(path.parent for path in directory.glob("**/run.json"))
    if not runs:
        print(f"asynccb sync: {directory} holds no run of asynccb", file=sys.stderr)
        return 2
    results = [_sync_run(run, timeout) for run in runs]
    return max(results)


def _sync_run(run: Path, timeout: float | None) -> int:
    with tqdm(desc=run.name, unit="record") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            synced = anyio.run(partial(sync_run, run, timeout, show))
        except JournalError as error:
            print(f"asynccb sync: {error}", file=sys.stderr)
            return 2
    for name, result in synced.items():
        print(f"{name}: {_describe(result)}")
    if not synced:
        print(f"{run}: nothing is left to deliver")
    return 1 if any(result.pending for result in synced.values()) else 0


def _describe(result: Synced) -> str:
    left = f", {result.pending} left" if result.pending else ""
    where = f" -> {result.address}" if result.address else ""
    return f"{result.delivered} records delivered{left}{where}"


if __name__ == "__main__":
    sys.exit(main())
