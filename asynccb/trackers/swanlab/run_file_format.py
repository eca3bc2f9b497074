"""
The format of a SwanLab run file: records, framed in blocks.

Format of `swanlab` 0.10.3, file version 2. A file is 7 bytes (`:SWL`, u16 magic, u8 version) and
then records in blocks of 32 KiB, the first of which those 7 bytes belong to. A record is one piece
or more, each u32 CRC-32 of the type and the data, u16 length, u8 type (1 whole, 2 first, 3 middle,
4 last), data. The rest of a block that is too short for a piece's head is zeros. The data is a
protocol buffer; the few fields that we fill are written here by hand. Promises: the same
records from the same offset on make the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Final

HEADER: Final = struct.pack("<4sHB", b":SWL", 0xE1D6, 2)
_BLOCK: Final = 32 << 10
_PIECE: Final = struct.Struct("<IHB")
_KINDS: Final = {(True, False): 1, (True, True): 2, (False, True): 3, (False, False): 4}
"""Types of a piece, by whether it is the first, and whether more come."""
_SEEDS: Final = {kind: zlib.crc32(bytes([kind])) for kind in _KINDS.values()}

_START, _FINISH, _SCALAR, _LINE, _SAVE = 10, 11, 13, 16, 20
"""Numbers of a record's contents."""
FIRST_NUMBER: Final = -1
LAST_NUMBER: Final = -2
CONFIG_NUMBER: Final = -3
METADATA_NUMBER: Final = -4
"""Numbers of the records that a file has once; the others count from 1."""
CUSTOM, CONFIG, METADATA = 0, 1, 2
"""The kind of a saved file."""


def framed(records: Iterable[bytes], offset: int) -> bytes:
    """Return records as they are in a file from an offset on."""
    data = bytearray()
    for record in records:
        _frame(record, offset, data)
    return bytes(data)


def _frame(record: bytes, offset: int, data: bytearray) -> None:
    rest, first = memoryview(record), True
    while first or rest:
        room = _BLOCK - (offset + len(data)) % _BLOCK
        if room < _PIECE.size:
            data += bytes(room)
            room = _BLOCK
        piece, rest = rest[: room - _PIECE.size], rest[room - _PIECE.size :]
        kind = _KINDS[first, bool(rest)]
        data += _PIECE.pack(zlib.crc32(piece, _SEEDS[kind]), len(piece), kind)
        data += piece
        first = False


def start(
    time: int,
    *,
    project: str,
    workspace: str | None,
    public: bool,
    name: str,
    description: str | None,
    tags: Iterable[str],
    group: str | None,
    job_type: str | None,
    color: str,
    run_id: str,
    resume: int,
    started: int,
) -> bytes:
    """Return the first record of a file; times are Unix nanoseconds."""
    about = b"".join(
        (
            _text(1, project),
            _text(2, workspace),
            _number(3, public),
            _text(4, name),
            _text(5, description),
            *(_text(6, tag) for tag in tags),
            _text(7, group),
            _text(8, job_type),
            _text(9, color),
            _text(10, run_id),
            _number(11, resume),
            _message(12, _moment(started)),
        )
    )
    return _record(FIRST_NUMBER, time, _START, about)


def scalar(number: int, time: int, key: str, step: int, value: float) -> bytes:
    """Return a number's record."""
    about = b"".join(
        (
            _text(1, key),
            _number(2, step),
            _number(3, 1),  # it is a scalar
            _message(4, _moment(time)),
            _message(5, _double(1, value)),
        )
    )
    return _record(number, time, _SCALAR, about)


def line(number: int, time: int, text: str, place: int) -> bytes:
    """Return a line of the console, with its place among them, from 1."""
    about = _text(1, text) + _message(3, _moment(time)) + _number(4, place)
    return _record(number, time, _LINE, about)


def save(
    number: int, time: int, kind: int, name: str, *, path: str = "", content: bytes | None = None
) -> bytes:
    """Return a record of a file, which is at `path`, or in the record itself."""
    about = _text(1, name) + _text(2, path) + _number(5, kind)
    if content is not None:
        about += _message(6, content)
    return _record(number, time, _SAVE, about)


def finish(time: int, state: int, error: str | None) -> bytes:
    """Return the last record: how the run has ended, and why."""
    about = _number(1, state) + _text(2, error) + _message(3, _moment(time))
    return _record(LAST_NUMBER, time, _FINISH, about)


def _record(number: int, time: int, kind: int, content: bytes) -> bytes:
    return _number(1, number) + _message(2, _moment(time)) + _message(kind, content)


def _moment(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 10**9)
    return _number(1, seconds) + _number(2, rest)


def _text(field: int, text: str | None) -> bytes:
    return _message(field, text.encode("utf-8", "backslashreplace")) if text else b""


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, number: int) -> bytes:
    """Return an integer; protocol buffers leave zero out."""
    return _varint(field << 3) + _varint(number & (2**64 - 1)) if number else b""


def _double(field: int, value: float) -> bytes:
    data = struct.pack("<d", value)
    return _varint(field << 3 | 1) + data if any(data) else b""


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
