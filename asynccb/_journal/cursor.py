"""
Store a tracker's position in the journal, with the values that it needs to continue from there.

Promises: the file contains the cursor from before a delivery or from after it, never half of one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import msgspec
from anyio import to_thread

from asynccb._ground.exceptions import JournalError
from asynccb._journal.segments import open_private


class Cursor(msgspec.Struct):
    """A position in the journal, and the lane's memory at that position."""

    position: int = 0
    """Id of the first record that is not acknowledged."""
    run: int | None = None
    """Id of the record that describes the run; that record is kept in a file of its own."""
    values: dict[str, Any] = {}
    """The state's fields, except the log history."""
    attributes: dict[str, Any] = {}
    """The tracker's own values, such as run ids and offsets."""
    finished: bool = False
    """Whether the run's end was delivered."""
    delivered: int = 0
    """Hook calls that were acknowledged, over all companions that served the lane."""
    rejected: int = 0
    """Records that can never be delivered, over all companions."""
    lost: int = 0
    """Records below the position that the journal no longer had."""
    logged: tuple[int, int] = (0, 0)
    """Step of the last log, and the number of logs at that step."""
    sent: tuple[int, int] = (0, 0)
    """The same for the last log that an interrupted training has sent: logs up to it are left out.
    Zeros once the logs are beyond it."""


_decoder = msgspec.msgpack.Decoder(Cursor)


def load_cursor(path: Path) -> Cursor:
    """Return the cursor in a file, or a new cursor if the file does not exist."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return Cursor()
    except msgspec.DecodeError as error:
        raise JournalError(f"{path} is not a cursor: {error}") from None


async def save_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the cursor in a file."""
    await replace(path, msgspec.msgpack.encode(cursor))


async def replace(path: Path, data: bytes) -> None:
    """Call `replace_now` on a thread."""
    await to_thread.run_sync(replace_now, path, data)


def replace_now(path: Path, data: bytes) -> None:
    """
    Write a new file and rename it over the old one: a reader sees either file, always complete.

    The new file is synced first, so that a power cut cannot leave an empty file under the name.
    Raises OSError if the disk refuses; then the old file is still there, and nothing beside it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with open(temporary, "wb", opener=open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
