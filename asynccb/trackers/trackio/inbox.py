"""
Trackio's local inbox: files of records, which `trackio show` imports and removes.

Promises: a file is there whole or not at all. A file that was imported, and is written again after
a crash, changes nothing, since each record has its id. Format of Trackio 0.28 and later, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiofiles
import aiofiles.os
import msgspec

from asynccb._ground.exceptions import AccessError, TransientError
from asynccb.trackers.shared.offset_file import PERMANENT
from asynccb.trackers.trackio.values import Row

_TRIES: Final = 5
"""The importer removes an empty folder, perhaps between our making it and writing into it."""


class TrackioInbox:
    """Write rows for one run into the folder that a dashboard on this machine reads."""

    def __init__(self, directory: str, key: str) -> None:
        self._folder = Path(directory, "inbox", f"asynccb-{key[:16]}")

    async def store(self, rows: Sequence[Row], name: str) -> None:
        """
        Write a file of that name, without its suffix.

        Files are imported in the order of their names. Raises `TransientError` if the disk
        may accept it later, and `AccessError` if it will not.
        """
        data = b"".join(_line(row) for row in rows)
        try:
            for _ in range(_TRIES - 1):
                try:
                    return await self._write(data, name)
                except FileNotFoundError:
                    continue
            await self._write(data, name)
        except OSError as error:
            message = f"{self._folder} cannot be written: {error.strerror}"
            if error.errno in PERMANENT:
                raise AccessError(f"{message}; set TRACKIO_DIR to a folder that can") from error
            raise TransientError(message) from error

    async def _write(self, data: bytes, name: str) -> None:
        await aiofiles.os.makedirs(self._folder, exist_ok=True)
        unfinished = self._folder / f"{name}.tmp"
        async with aiofiles.open(unfinished, "wb") as file:
            await file.write(data)
        await aiofiles.os.replace(unfinished, unfinished.with_suffix(".jsonl"))


def _line(row: Row) -> bytes:
    record = {"v": 1, "kind": row.kind, **msgspec.to_builtins(row)}
    return msgspec.json.encode(record) + b"\n"
