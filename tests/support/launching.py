"""Starting the programs in tests/support/programs as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asynccb

TESTS = Path(__file__).parents[1]
PROGRAMS = TESTS / "support" / "programs"


def environment() -> dict[str, str]:
    """Return our environment, with asynccb and the package of the tests importable."""
    paths = dict.fromkeys([str(Path(asynccb.__file__).parents[1]), str(TESTS.parent)])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


_HELD_BACK = """
import os, sys
if "asynccb._companion" in sys.orig_argv:
    os.close(os.open({gate!r}, os.O_RDONLY))
"""


def held_back(folder: Path) -> tuple[dict[str, str], Callable[[], None]]:
    """Return an environment whose companions do not come to life, and what lets one do so."""
    gate = folder / "gate"
    os.mkfifo(gate)
    (folder / "sitecustomize.py").write_text(_HELD_BACK.format(gate=str(gate)))
    env = environment()
    path = os.pathsep.join([str(folder), env["PYTHONPATH"]])
    return {**env, "PYTHONPATH": path}, lambda: os.close(os.open(gate, os.O_WRONLY))


def command(program: str, *arguments: object) -> list[str]:
    """Return the command line of a program: one of `PROGRAMS`, or a path below tests/."""
    folder = TESTS if "/" in program else PROGRAMS
    path = folder / f"{program}.py"
    return [sys.executable, str(path), *map(str, arguments)]


def launch(
    program: str, *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start a program; its standard output is a pipe of text."""
    return subprocess.Popen(
        command(program, *arguments),
        env=environment() if env is None else env,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def be_killed(program: str, *arguments: object, env: dict[str, str] | None = None) -> None:
    """Run a program that kills itself."""
    with launch(program, *arguments, env=env, stderr=subprocess.DEVNULL) as killed:
        killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL


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
