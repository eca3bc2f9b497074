"""A record's frame in the ring and in the journal: length, checksum, id, payload."""

from __future__ import annotations

from struct import Struct
from typing import Final
from zlib import crc32

HEADER: Final = Struct("<IIQ")
"""Payload length, CRC-32 of the payload seeded with the id, record id."""


def frame_size(length: int) -> int:
    """Return the size in bytes of a frame with a payload of this length."""
    return HEADER.size + (length + 7 & ~7)


def checksum(payload: bytes | memoryview, record: int) -> int:
    """Return a frame's CRC-32: over the payload, seeded with the id."""
    return crc32(payload, record & 0xFFFFFFFF)


def frame(payload: bytes, record: int) -> bytes:
    """Return a payload in its frame, padded."""
    header = HEADER.pack(len(payload), checksum(payload, record), record)
    return (header + payload).ljust(frame_size(len(payload)), b"\0")
