"""
Large files in parts, as W&B's storage takes them.

Promises: a file is read once for its sums and once to be sent, never whole into memory.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiofiles
import aiofiles.os

from asynccb.delivery.bodies import CHUNK

LARGE: Final = 2 << 30
"""Bytes from which on a file goes in parts; a storage takes 5 GB at once."""
PART: Final = 100 << 20


def part_sums(path: Path) -> tuple[str, int, list[str]]:
    """Return a file's MD5 in base64, its size, and if it is large, its parts' MD5 in hex."""
    whole = hashlib.md5(usedforsecurity=False)
    large = path.stat().st_size >= LARGE
    parts: list[str] = []
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(PART if large else CHUNK):
            whole.update(chunk)
            size += len(chunk)
            if large:
                parts.append(hashlib.md5(chunk, usedforsecurity=False).hexdigest())
    return base64.b64encode(whole.digest()).decode(), size, parts


@dataclass(frozen=True)
class PartBody:
    """Send one part of a file."""

    file: Path
    number: int
    """Counted from 0."""

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the part's bytes."""
        start = self.number * PART
        size = min(PART, (await aiofiles.os.stat(self.file)).st_size - start)
        return size, "application/octet-stream", self._chunks(start, size)

    async def _chunks(self, start: int, left: int) -> AsyncIterator[bytes]:
        async with aiofiles.open(self.file, "rb") as stream:
            await stream.seek(start)
            while left > 0:
                chunk = await stream.read(min(CHUNK, left))
                if not chunk:
                    raise OSError(f"{self.file} has become shorter while it was sent")
                left -= len(chunk)
                yield chunk
