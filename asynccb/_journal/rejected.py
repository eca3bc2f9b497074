"""
Records that can never be delivered, set aside in a file of the run's folder.

Promises: one JSON object a line, readable by their owner alone; at most 16 MiB; a disk that does
not take them costs these lines, never the run. After a crash a line may be there twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import aiofiles
import msgspec

logger = logging.getLogger("asynccb")

_LARGEST: Final = 16 << 20
"""Bytes of one file, about 50,000 records with their answers; later ones are only counted."""


class Refusal(msgspec.Struct, frozen=True):
    """Hold a record that can never be delivered, and why."""

    tracker: str
    what: str
    why: str
    """What the server answered, or what is wrong with it."""
    time: int
    """When it was emitted: Unix time in nanoseconds."""
    record: Any
    """The record as it would have been sent."""


class RejectedFile:
    """Append refusals to one file, which is made when there is one to append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = False

    async def append(self, refusals: Iterable[Refusal]) -> None:
        """Write them down, those that there is room for; never raises `OSError`."""
        lines = b"".join(msgspec.json.encode(refusal) + b"\n" for refusal in refusals)
        if not lines or self._over:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with aiofiles.open(self._path, "ab", opener=_private) as file:
                self._over = await file.tell() + len(lines) > _LARGEST
                if not self._over:
                    await file.write(lines)
        except OSError as error:
            self._over = True
            logger.warning(
                "%s cannot be written (%s): rejected records are lost", self._path, error
            )
            return
        if self._over:
            logger.warning("%s is full: rejected records are only counted from now on", self._path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
