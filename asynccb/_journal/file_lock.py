"""
Locks on files, by which processes tell others that they live.

Promises: the kernel gives a lock back when the last process that holds it has ended, however that
ends; a forked child does not go on holding it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from io import FileIO
from pathlib import Path
from typing import Self

from asynccb._ground.lifetime import in_forked_children


class FileLock:
    """Hold a file open, and the lock on it, with each process that is started with it."""

    def __init__(self, descriptor: int) -> None:
        """Take a descriptor of the file, which is ours from now on."""
        self._file = FileIO(descriptor)
        in_forked_children(self.let_go)

    @classmethod
    def on(cls, path: Path, flags: int = os.O_CREAT) -> Self:
        """Open a file, which is made private; it is not locked yet."""
        return cls(os.open(path, os.O_RDWR | flags, 0o600))

    @property
    def descriptor(self) -> int:
        """What a process is started with that is to hold the lock, too."""
        return self._file.fileno()

    def take(self) -> bool:
        """Lock the file against all others; return False where one of them has done so."""
        return _lock(self.descriptor, fcntl.LOCK_EX)

    def is_on(self, path: Path) -> bool:
        """Tell whether a path still leads to the file."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def let_go(self) -> None:
        """Close the file here; the lock is free when every other holder has ended."""
        self._file.close()


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock on a file; raises FileNotFoundError without one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
