"""
Set aside records that can never be delivered, in a file of the run's folder.

Promises: the file contains one JSON object a line, is readable by its owner alone, and has at most
16 MiB. If the disk refuses the lines, only they are lost, never the run. After a crash a line may
appear twice.
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
    """A record that can never be delivered, and the reason."""

    tracker: str
    what: str
    why: str
    """The server's answer, or the fault in the record."""
    time: int
    """Unix time of the emission, in nanoseconds."""
    record: Any
    """The record as it would have been sent."""


class RejectedFile:
    """A file of refusals, created with the first refusal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = False

    async def append(self, refusals: Iterable[Refusal]) -> None:
        """Append the refusals if the file has room for them; never raise `OSError`."""
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
