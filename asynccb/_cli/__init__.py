"""
The command line: `asynccb ls | sync | clean DIR`.

Promises: each takes a run's folder, or a folder with runs somewhere below; exit status 0 says that
nothing is left to do, 1 that something is, 2 that the command cannot work or a run cannot be read,
130 that Ctrl-C ended it.

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
        print("asynccb: interrupted; what was delivered stays delivered", file=sys.stderr)
        return 130
    except OSError as error:  # of the output alone: what is wrong with a run is said with it
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # whose reader has what it wants
            print(f"asynccb {options.command}: its output is lost: {error}", file=sys.stderr)
        return 2
    return status


def _run(options: argparse.Namespace) -> int:
    if not os.path.isdir(options.directory):
        print(f"asynccb {options.command}: {options.directory} is no folder", file=sys.stderr)
        return 2
    runs, errors = find_runs(options.directory)
    for error in errors:
        print(f"asynccb {options.command}: a folder is left out: {error}", file=sys.stderr)
    if not (runs or errors):
        print(f"{options.directory} holds no run: all is delivered, or none was journaled")
    status = _work(options, runs) if runs else 0
    return 2 if errors else status


def _work(options: argparse.Namespace, runs: list[Path]) -> int:
    if options.command == "ls":
        return ls(options.directory, runs)
    if options.command == "clean":
        return clean(runs, undelivered=options.undelivered, dry_run=options.dry_run)
    return sync(runs, options.tracker, options.timeout)


def _drop_output() -> None:
    """Have what is buffered go nowhere, where it would be written once more at the exit."""
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
        "deliver what is left; 0: all is delivered, 1: something is left, 2: it cannot work",
    )
    sync.add_argument("--tracker", metavar="NAME", help="only to this one, as `ls` names it")
    sync.add_argument(
        "--timeout", type=_seconds, metavar="S", help="stop after S seconds (default: never)"
    )
    clean = _add(
        commands, "clean", "remove runs of which everything is delivered, never a live one"
    )
    clean.add_argument(
        "--undelivered", action="store_true", help="also those with undelivered records: they go"
    )
    clean.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.add_argument(
        "directory", metavar="DIR", type=Path, help="a run's folder, or one with runs below it"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 on")
    return seconds
