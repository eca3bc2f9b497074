"""
Write to a file at an offset.

Promises: when `write_at` returns, all of the data is written. After any failure, a second call with
the same arguments leaves the same file.
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
"""Errors that persist; a full disk or an unreachable network file system may recover."""


class ShortFileError(Exception):
    """The file ends before the offset: something else has truncated or removed it."""


async def write_at(path: Path, offset: int, data: bytes, *, hint: str) -> None:
    """Run `write_now` on a thread, and raise its `OSError` as `classified` returns it."""
    try:
        await to_thread.run_sync(write_now, path, offset, data)
    except OSError as error:
        raise classified(path, error, hint) from error


def write_now(path: Path, offset: int, data: bytes) -> None:
    """
    Write `data` at `offset` and cut the file off after it.

    Bytes that an earlier attempt left there are overwritten, not cut off first: they are the same
    bytes, so a reader that has already seen them is not disturbed. If the offset is 0, the file and
    its directory are created. Raises `ShortFileError` if the file ends before the offset, and
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
    Return the delivery error for a failed write.

    It is a `TransientError` if a retry may help (no space left, an input or output error), and
    otherwise an `AccessError`, whose message ends with `hint`, the advice to the user.
    """
    if error.errno in PERMANENT:
        return AccessError(f"cannot write {path}: {error.strerror}; {hint}")
    return TransientError(f"cannot write {path} at the moment: {error.strerror}")
