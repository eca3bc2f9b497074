"""Several ranks: under `torchrun`, or forked from one process, to be killed at will."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.launching import PROGRAMS, environment, output_of


def torchrun(script: Path, *arguments: object, processes: int = 2, timeout: float = 180.0) -> None:
    """Run a script on several ranks; end them all where they hang."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={processes}", str(script), *map(str, arguments)]
    with subprocess.Popen(
        command,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its ranks
            raise
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors
    assert "Warning" not in errors, errors


def torchrun_ranks(
    folder: Path,
    function: str,
    *arguments: object,
    world: int = 2,
    backend: str = "gloo",
    timeout: float = 180.0,
) -> list[Any]:
    """Run `module.function(rank, world, *arguments)` under `torchrun`; return all results."""
    module, _, name = function.rpartition(".")
    script = PROGRAMS / "one_rank.py"
    given = [backend, module, name, folder, *arguments]
    torchrun(script, *given, processes=world, timeout=timeout)
    return _results(folder, world)


def run_ranks(
    folder: Path,
    function: str,
    *arguments: object,
    world: int = 2,
    backend: str = "gloo",
    timeout: float = 180.0,
) -> list[Any]:
    """
    Run `module.function(rank, world, *arguments)` on every rank; return the results, by rank.

    None for a rank that was killed or stopped. Arguments come as text. A rank that raises, or
    writes a traceback, fails the test.
    """
    module, _, name = function.rpartition(".")
    given = (backend, module, name, world, folder, *arguments)
    said, errors = output_of("ranks", *given, timeout=timeout)
    assert not said, errors
    assert "Traceback" not in errors, errors
    return _results(folder, world)


def _results(folder: Path, world: int) -> list[Any]:
    files = [Path(folder, f"rank-{rank}.json") for rank in range(world)]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]
