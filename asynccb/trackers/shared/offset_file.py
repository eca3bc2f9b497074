"""
TensorBoard's event files: the framing of records, the names of files, writing at an offset.

Knows nothing of what is in a record. Promises: what `write_at` has written is whole when it
returns, and calling it again with the same arguments, after any failure in between, leaves the same
file.

Format (TFRecord, TensorBoard 2.21), little endian: u64 length, u32 masked CRC-32C of those 8 bytes,
data, u32 masked CRC-32C of the data. A reader stops at a torn last record and goes on when it is
completed, but gives a file up whose records stand behind a torn one.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from anyio import to_thread

from asynccb._ground.exceptions import AccessError, DeliveryError, TransientError

_LENGTH: Final = struct.Struct("<Q")
_CHECKSUM: Final = struct.Struct("<I")
_POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's, with its bits reversed."""
_MASK: Final = 0xA282EAD8
_HINT: Final = (
    "give a directory that can be made and written as logging_dir or in TENSORBOARD_LOGGING_DIR"
)

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


def frame(data: bytes) -> bytes:
    """Return one record: the data with its length and both checksums."""
    length = _LENGTH.pack(len(data))
    return b"".join(
        (length, _CHECKSUM.pack(masked_crc32c(length)), data, _CHECKSUM.pack(masked_crc32c(data)))
    )


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C of the data as event files store it: rotated, plus a constant."""
    crc = _crc32c()(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def file_name(when: int, host: str, key: str, count: int) -> str:
    """
    Return the name of a run's event file, the `count`-th of it, begun at `when` in nanoseconds.

    A run that is resumed within a second has the same key, and must not get the same name. A reader
    takes the files of a directory in the order of their names, hence the time in front.
    """
    host = "".join(c if c.isalnum() or c in "-_." else "_" for c in host) or "localhost"
    seconds, rest = divmod(when, 10**9)
    return f"events.out.tfevents.{seconds:010d}.{host[:64]}.{key[:8]}.{rest:09d}.{count}"


async def write_at(path: Path, offset: int, data: bytes, *, hint: str = _HINT) -> None:
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


@cache
def _crc32c() -> Callable[[bytes], int]:
    """Return the C implementation where it is installed (0.2 us a record instead of 5)."""
    try:
        from google_crc32c import value
    except ImportError:
        return _table_crc32c
    checksum: Callable[[bytes], int] = value
    return checksum


def _table_crc32c(data: bytes) -> int:
    table = _table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    return tuple(_table_entry(byte) for byte in range(256))


def _table_entry(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc
