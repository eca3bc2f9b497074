"""
The files of a journal, and the frames in them; format version 1 is written down in `README.md`.

Promises: what is yielded is what was written, with ids that only grow; bytes that a crash tore, a
power cut left as zeros, or a disk has changed are skipped, never yielded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from asynccb._ground.exceptions import JournalError
from asynccb._ring.frame import HEADER, checksum, frame_size

SEGMENT_HEADER: Final = Struct("<8sQ")
"""Magic with the format's version, id of the first record that the segment may hold."""
_MAGIC: Final = b"asynccb\x01"
_SUFFIX: Final = ".segment"
_NUMBER: Final = re.compile("[0-9]{20}")
_WORD: Final = 8
FARTHEST: Final = 1 << 32
"""Ids that follow one another are nearer than this; a frame's checksum covers 32 bits of its id."""


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return a journal's segments with the least ids that they may hold, oldest first."""
    return sorted(
        (int(path.stem), path)
        for path in folder.glob(f"*{_SUFFIX}")
        if _NUMBER.fullmatch(path.stem)
    )


def segment_path(folder: Path, first: int) -> Path:
    """Return the path of the segment that begins with a record."""
    return folder / f"{first:020d}{_SUFFIX}"


def segment_header(first: int) -> bytes:
    """Return the bytes that a segment begins with."""
    return SEGMENT_HEADER.pack(_MAGIC, first)


def check_header(path: Path, data: bytes) -> None:
    """Raise `JournalError` unless the data begins as a segment of that name does."""
    if len(data) < SEGMENT_HEADER.size or not data.startswith(_MAGIC[:7]):
        raise JournalError(f"{path} is no segment of a journal")
    if data[7] != _MAGIC[7]:
        raise JournalError(f"{path} has format {data[7]}; this version of asynccb reads format 1")
    if SEGMENT_HEADER.unpack_from(data)[1] != int(path.stem):
        raise JournalError(f"{path} is damaged: its header has another number than its name")


def is_blank(data: bytes) -> bool:
    """Tell whether a header is what a power cut may leave of one that was not synced: zeros."""
    return data.startswith(bytes(SEGMENT_HEADER.size))


def open_private(path: str | Path, flags: int) -> int:
    """Open a file that nobody but its owner may read; for `open(..., opener=...)`."""
    return os.open(path, flags, 0o600)


def split_frames(
    data: bytes | bytearray | memoryview, start: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield (id, payload's start, frame's end) of each frame, up to the first that is not whole."""
    view = memoryview(data)
    while start + HEADER.size <= len(view):
        length, crc, record = HEADER.unpack_from(view, start)
        payload, end = start + HEADER.size, start + frame_size(length)
        if end > len(view) or checksum(view[payload : payload + length], record) != crc:
            return
        yield record, payload, end
        start = end


def frames_after(
    previous: int, data: bytes | bytearray | memoryview, start: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield as `split_frames` does, with ids above `previous`, past whatever is damaged."""
    view = memoryview(data)
    while True:
        for record, payload, end in split_frames(view, start):
            if not previous < record < previous + FARTHEST or end == payload:
                break
            yield record, payload, end
            previous, start = record, end
        found = find_frame(previous, view, start + _WORD)
        if found is None:
            return
        start = found


def find_frame(previous: int, data: bytes | bytearray | memoryview, start: int = 0) -> int | None:
    """Return where the next whole frame with an id above `previous` begins, or None."""
    view = memoryview(data)
    whole = (len(view) - start) // _WORD * _WORD
    if whole <= 0:
        return None
    # A frame's id is its second word; words are looked at before any checksum is computed.
    words = view[start : start + whole].cast("Q")
    for index in range(1, len(words)):
        if previous < words[index] < previous + FARTHEST:
            place = start + (index - 1) * _WORD
            for _, payload, end in split_frames(view, place):
                if end > payload:
                    return place
                break
    return None


def last_record(folder: Path) -> tuple[int, bytes] | None:
    """Return the last record of a journal, with its id, without changing anything."""
    for first, path in reversed(segments(folder)):
        data = path.read_bytes()
        if len(data) < SEGMENT_HEADER.size:
            continue  # torn while it was begun
        if not is_blank(data):
            check_header(path, data)
        last = None
        for record, payload, _ in frames_after(first - 1, data, SEGMENT_HEADER.size):
            last = record, payload
        if last is not None:
            return last[0], payload_at(data, last[1])
    return None


def payload_at(data: bytes | bytearray | memoryview, start: int) -> bytes:
    """Return the payload that begins there, behind its header."""
    length = HEADER.unpack_from(data, start - HEADER.size)[0]
    return bytes(data[start : start + length])
