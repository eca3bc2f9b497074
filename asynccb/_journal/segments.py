"""
Parse the files of a journal and the frames in them; see `delivery/README.md` for format version 1.

Promises: frames are yielded as they were written, with ids that only grow. Bytes that a crash tore,
a power cut left as zeros, or a disk has changed are skipped, never yielded.
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
"""Magic with the format's version, least id of a record that the segment may contain."""
_MAGIC: Final = b"asynccb\x01"
_SUFFIX: Final = ".segment"
_NUMBER: Final = re.compile("[0-9]{20}")
_WORD: Final = 8
FARTHEST: Final = 1 << 32
"""Consecutive ids differ by less than this; a frame's checksum covers 32 bits of its id."""


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return a journal's segments, oldest first, each with the least id that it may contain."""
    return sorted(
        (int(path.stem), path)
        for path in folder.glob(f"*{_SUFFIX}")
        if _NUMBER.fullmatch(path.stem)
    )


def segment_path(folder: Path, first: int) -> Path:
    """Return the path of the segment that begins with the id `first`."""
    return folder / f"{first:020d}{_SUFFIX}"


def segment_header(first: int) -> bytes:
    """Return the header of the segment that begins with the id `first`."""
    return SEGMENT_HEADER.pack(_MAGIC, first)


def check_header(path: Path, data: bytes) -> None:
    """Raise `JournalError` unless the data begins with the header that belongs to the path."""
    if len(data) < SEGMENT_HEADER.size or not data.startswith(_MAGIC[:7]):
        raise JournalError(f"{path} is not a segment of a journal")
    if data[7] != _MAGIC[7]:
        raise JournalError(f"{path} has format {data[7]}; this version of asynccb reads format 1")
    if SEGMENT_HEADER.unpack_from(data)[1] != int(path.stem):
        raise JournalError(f"{path} is damaged: the number in its header differs from its name")


def is_blank(data: bytes) -> bool:
    """Return whether a header is all zeros, as a power cut may leave a header not yet synced."""
    return data.startswith(bytes(SEGMENT_HEADER.size))


def open_private(path: str | Path, flags: int) -> int:
    """Open a file that only its owner may read; for `open(..., opener=...)`."""
    return os.open(path, flags, 0o600)


def split_frames(
    data: bytes | bytearray | memoryview, start: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield (id, payload's start, frame's end) of each frame, up to the first torn or damaged."""
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
    """Yield as `split_frames` does, with ids above `previous`, and skip damaged bytes."""
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
    """Return the offset of the next whole frame with an id above `previous`, or None."""
    view = memoryview(data)
    whole = (len(view) - start) // _WORD * _WORD
    if whole <= 0:
        return None
    # A frame's id is its second word. The words are compared before any checksum is computed.
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
    """Return the id and payload of a journal's last record, without changing anything."""
    for first, path in reversed(segments(folder)):
        data = path.read_bytes()
        if len(data) < SEGMENT_HEADER.size:
            continue  # torn while it was being created
        if not is_blank(data):
            check_header(path, data)
        last = None
        for record, payload, _ in frames_after(first - 1, data, SEGMENT_HEADER.size):
            last = record, payload
        if last is not None:
            return last[0], payload_at(data, last[1])
    return None


def payload_at(data: bytes | bytearray | memoryview, start: int) -> bytes:
    """Return the payload that begins at `start`, behind its header."""
    length = HEADER.unpack_from(data, start - HEADER.size)[0]
    return bytes(data[start : start + length])
