"""
Find a directory of its own for each curve: for a run's first training, and for each further one.

A TensorBoard run is a directory, and a reader joins all event files of one. Its default server
hides the points of a tag from a step on as soon as any file goes back to that step, so that the
second of two trainings in one directory hides the first.

Promises: no two curves share a directory. After a crash, the same file is found again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from asynccb.trackers.tensorboard.event_file import is_later, is_of_run

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BESIDE: Final = "-"
"""Another run's default directory: `<date>_<host>-2`. TensorBoard is pointed at a folder above."""
RUN: Final = f"{os.sep}run-"
"""Another run in a directory that the user named: `<directory>/run-2`. TensorBoard may be pointed
at that directory itself, and shows the folders below it, but no folder beside it."""
TRAINING: Final = f"{os.sep}training-"
"""A run's further training: `<directory of the first>/training-2`."""


@dataclass(frozen=True)
class Claim:
    """A wish for the first free directory of `base`, `base` + `suffix` + "2", and so on."""

    suffix: str
    base: str | None = None
    """None stands for the directory of the run's first training."""
    writer: str = ""
    """Part of the names of files that a `SummaryWriter` of the training process writes."""
    resumes: bool = False
    """Whether a directory with an earlier file of the same run is to be gone on with."""


def take(base: str, claim: Claim, name: str) -> str:
    """
    Return the path of the file `name` in the first free directory; create both.

    A directory is free if it has no event file, but for those of the training's own
    `SummaryWriter`, and for later files of the run, which an earlier process wrote. If that process
    has created this file, too, its path is returned, whatever has been added to or removed from
    other directories since. Raises `OSError`.
    """
    stem = base + claim.suffix
    existing = [directory for directory in (base, *_numbered(stem)) if os.path.isdir(directory)]
    for directory in existing:
        if os.path.lexists(os.path.join(directory, name)):
            return os.path.join(directory, name)
    for directory in existing:
        if claim.resumes and goes_on(os.path.join(directory, name)):
            return os.path.join(directory, name)
    for number in count(1):
        directory = base if number == 1 else f"{stem}{number}"
        os.makedirs(directory, exist_ok=True)
        with _locked(directory):
            if _is_free(directory, name, claim.writer):
                path = os.path.join(directory, name)
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
                return path
    raise AssertionError("numbers do not end")


def goes_on(path: str) -> bool:
    """Return whether an earlier file of the same run is beside a file."""
    directory, name = os.path.split(path)
    return any(other < name and is_of_run(other, name) for other in os.listdir(directory))


def writer_of(host: str, pid: int) -> str:
    """Return the part that names the process in the files of a `SummaryWriter`; "" if unknown."""
    return f".{host}.{pid}." if host and pid else ""


def _numbered(stem: str) -> list[str]:
    """Return the directories that exist of `stem` followed by a number."""
    parent, prefix = os.path.split(stem)
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):  # the latter is raised again when it matters
        return []
    rests = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [f"{stem}{number}" for number in sorted(int(r) for r in rests if r.isdecimal())]


def _is_free(directory: str, name: str, writer: str) -> bool:
    return all(
        "tfevents" not in path.name or (writer and writer in path.name) or is_later(path.name, name)
        for path in Path(directory).iterdir()
    )


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Keep other processes from taking the directory at the same time, if the disk can lock it."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems lock no directories
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
