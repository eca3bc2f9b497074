"""The command that delivers a run's journal, as a person can type it here."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def sync_command(directory: str | os.PathLike[str]) -> str:
    """
    Return `asynccb sync DIRECTORY`, quoted for a shell.

    If the `asynccb` on the `PATH` is not the one of this interpreter, or is missing, the command
    names this interpreter instead: `/path/to/python -m asynccb sync DIRECTORY`.
    """
    found = shutil.which("asynccb")
    python = sys.executable or "python3"  # a program that embeds Python may have no executable
    if found is not None and Path(found).parent == Path(python).parent:
        words = ["asynccb"]
    else:
        words = [python, "-m", "asynccb"]
    return shlex.join([*words, "sync", os.fspath(directory)])
