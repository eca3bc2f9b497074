"""
Write to a file at an offset.

Promises: what `write_at` has written is whole when it returns, and calling it again with the same
arguments, after any failure in between, leaves the same file.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from anyio import to_thread

from asynccb._ground.exceptions import AccessError, DeliveryError, TransientError

PERMANENT: Final = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""Errors that waiting does not mend; a full disk or a network file system that is away may pass."""


class ShortFileError(Exception):
    """Signal a file that ends before the offset: something else has cut or removed it."""


async def write_at(path: Path, offset: int, data: bytes, *, hint: str) -> None:
    """Do as `write_now`, on a thread; its errors as `classified` has them."""
    try:
        await to_thread.run_sync(write_now, path, offset, data)
    except OSError as error:
        raise classified(path, error, hint) from error


def write_now(path: Path, offset: int, data: bytes) -> None:
    """
    Make the file hold `data` from `offset` on, and nothing behind it.

    Bytes that an earlier try left there are overwritten, not cut off first: they are the same ones,
    and a reader that has already seen them is not disturbed. The file and its directory are made
    where the offset is 0. Raises `ShortFileError` where the file ends before the offset, and
    `OSError`.
    """
    if offset == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "r+b", opener=_open_or_create if offset == 0 else None) as file:
            if file.seek(0, os.SEEK_END) < offset:
                raise ShortFileError
            file.seek(offset)
            file.write(data)
            file.truncate()
    except FileNotFoundError:
        if offset > 0:
            raise ShortFileError from None
        raise


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def classified(path: Path, error: OSError, hint: str) -> DeliveryError:
    """
    Return what it means that a file cannot be written.

    `TransientError` where trying again may help (no space left, an input or output error), and
    where it will not, `AccessError`, which says in the words of `hint` what to do.
    """
    if error.errno in PERMANENT:
        return AccessError(f"cannot write {path}: {error.strerror}; {hint}")
    return TransientError(f"cannot write {path} at the moment: {error.strerror}")
