"""
How far one tracker has come in the journal, with what it needs to go on from there.

Promises: on disk there is the cursor before a delivery or the one after it, never half of one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import aiofiles
import aiofiles.os
import msgspec

from asynccb._exceptions import JournalError


class Cursor(msgspec.Struct):
    """Hold a position in the journal and the lane's memory at that position."""

    position: int = 0
    """Id of the first record that is not acknowledged."""
    run: int | None = None
    """Id of the record that describes the run, kept in a file of its own."""
    values: dict[str, Any] = {}
    """The state's fields, log history aside."""
    attributes: dict[str, Any] = {}
    """The tracker's own, such as run ids and offsets."""
    finished: bool = False
    """Whether the run's end was delivered."""
    delivered: int = 0
    """Hook calls that were acknowledged, over all companions that served the lane."""


_decoder = msgspec.msgpack.Decoder(Cursor)


def load_cursor(path: Path) -> Cursor:
    """Return the cursor in a file, a new one where there is no file."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return Cursor()
    except msgspec.DecodeError as error:
        raise JournalError(f"{path} is no cursor: {error}") from None


async def save_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the cursor in a file."""
    await replace(path, msgspec.msgpack.encode(cursor))


async def replace(path: Path, data: bytes) -> None:
    """Write a file anew and rename it into place: a reader sees the old one or all of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    async with aiofiles.open(temporary, "wb", opener=_private) as file:
        await file.write(data)
    await aiofiles.os.replace(temporary, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
