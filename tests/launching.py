"""Starting the programs in tests/programs as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asynccb

TESTS = Path(__file__).parent


def environment() -> dict[str, str]:
    """Return our environment, with asynccb and the tests' modules importable."""
    paths = [str(Path(asynccb.__file__).parents[1]), str(TESTS)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def command(program: str, *arguments: object) -> list[str]:
    """Return the command line of a program."""
    path = TESTS / "programs" / f"{program}.py"
    return [sys.executable, str(path), *map(str, arguments)]


def launch(program: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a program; its standard output is a pipe of text."""
    return subprocess.Popen(
        command(program, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def output_of(program: str, *arguments: object, timeout: float = 120.0) -> tuple[str, str]:
    """Run a program to its end and return what it wrote to standard output and error."""
    done = subprocess.run(
        command(program, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    return done.stdout, done.stderr
