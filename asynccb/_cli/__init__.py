"""
The command line: `asynccb ls | sync | clean DIR`.

Promises: each command accepts a run's folder, or a folder with runs somewhere below it. Exit status
0 means that nothing is left to do, 1 that something is left, 2 that the command cannot work or a
run cannot be read, 130 that Ctrl-C ended the command.

May import: _ground, _journal, _companion.sync.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from asynccb._cli.clean import clean
from asynccb._cli.ls import ls
from asynccb._cli.sync import sync
from asynccb._journal.overview import find_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        status = _run(options)
        print(end="", flush=True)
    except KeyboardInterrupt:
        print("asynccb: interrupted; delivered records stay delivered", file=sys.stderr)
        return 130
    except OSError as error:  # of the output only: a run's own errors are printed with the run
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # the reader has read enough
            print(f"asynccb {options.command}: its output is lost: {error}", file=sys.stderr)
        return 2
    return status


def _run(options: argparse.Namespace) -> int:
    if not os.path.isdir(options.directory):
        print(f"asynccb {options.command}: {options.directory} is not a folder", file=sys.stderr)
        return 2
    runs, errors = find_runs(options.directory)
    for error in errors:
        print(f"asynccb {options.command}: a folder is left out: {error}", file=sys.stderr)
    if not (runs or errors):
        print(f"{options.directory} holds no run: all are delivered, or none was journaled")
    status = _work(options, runs) if runs else 0
    return 2 if errors else status


def _work(options: argparse.Namespace, runs: list[Path]) -> int:
    if options.command == "ls":
        return ls(options.directory, runs)
    if options.command == "clean":
        return clean(runs, undelivered=options.undelivered, dry_run=options.dry_run)
    return sync(runs, options.tracker, options.timeout)


def _drop_output() -> None:
    """Discard the buffered output, which Python would otherwise try to write again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asynccb",
        description="Look after the journals of runs: list them, deliver them, remove them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "ls", "list runs, and how many records each tracker is behind")
    sync = _add(
        commands,
        "sync",
        "deliver the remaining records; exit status 0: all delivered, 1: some remain, 2: failed",
    )
    sync.add_argument(
        "--tracker", metavar="NAME", help="deliver only to this tracker, as `ls` names it"
    )
    sync.add_argument(
        "--timeout", type=_seconds, metavar="S", help="stop after S seconds (default: never)"
    )
    clean = _add(commands, "clean", "remove runs that are completely delivered, never a live one")
    clean.add_argument(
        "--undelivered",
        action="store_true",
        help="also remove runs with undelivered records, losing those",
    )
    clean.add_argument(
        "--dry-run", action="store_true", help="print what would be removed, and remove nothing"
    )
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.add_argument(
        "directory", metavar="DIR", type=Path, help="a run's folder, or a folder with runs below it"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return seconds
