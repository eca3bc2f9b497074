"""
Lock files, so that other processes see that the holder of a lock lives.

Promises: the kernel releases a lock when the last process that holds it has ended, however that
process ends. A forked child does not continue to hold it.
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
    """An open file and the lock on it, shared with processes started with its descriptor."""

    def __init__(self, descriptor: int) -> None:
        """Take a descriptor of the file; this object closes it."""
        self._file = FileIO(descriptor)
        in_forked_children(self.let_go)

    @classmethod
    def on(cls, path: Path, flags: int = os.O_CREAT) -> Self:
        """Open a file without locking it yet; a new file is private."""
        return cls(os.open(path, os.O_RDWR | flags, 0o600))

    @property
    def descriptor(self) -> int:
        """The descriptor to pass to a started process that shall hold the lock, too."""
        return self._file.fileno()

    def take(self) -> bool:
        """Lock the file against all others; return False if another process holds a lock."""
        return _lock(self.descriptor, fcntl.LOCK_EX)

    def is_on(self, path: Path) -> bool:
        """Return whether a path still leads to the file."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def let_go(self) -> None:
        """Close the file here; the lock is free once every other holder has ended."""
        self._file.close()


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock on a file; raise FileNotFoundError without a file."""
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
