"""
Files as the body of a request.

Promises: a file is streamed from disk, 1 MiB at a time, with its length announced; the same file
and fields make the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import aiofiles
import aiofiles.os

CHUNK: Final = 1 << 20
"""Bytes of a file that are read at once: each read is a trip to a worker thread, about 0.1 ms."""

_CONTENT: Final = "application/octet-stream"


@runtime_checkable
class Body(Protocol):
    """What a request carries; raises `OSError` where the file cannot be read or gets shorter."""

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the length in bytes, the content type, and the bytes, which come once."""


@dataclass(frozen=True)
class FileBody:
    """Send a file as it is; what is appended to it meanwhile is not sent."""

    file: Path
    content_type: str = _CONTENT

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the file's bytes."""
        size = (await aiofiles.os.stat(self.file)).st_size
        return size, self.content_type, chunks(self.file, size)


@dataclass(frozen=True)
class FormBody:
    """Send a file in a form (`multipart/form-data`), after the form's fields."""

    file: Path
    name: str
    """Name of the field that holds the file."""
    filename: str
    fields: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _CONTENT

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the form's bytes."""
        size = (await aiofiles.os.stat(self.file)).st_size
        boundary = self._boundary()
        head = b"".join(self._part(boundary, name, value) for name, value in self.fields.items())
        head += (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{_quoted(self.name)}"; filename="{_quoted(self.filename)}"\r\n'
            f"Content-Type: {self.content_type}\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        length = len(head) + size + len(tail)
        content = _around(head, chunks(self.file, size), tail)
        return length, f"multipart/form-data; boundary={boundary}", content

    def _boundary(self) -> str:
        """Return what stands between the parts: the same each time, and in no ordinary file."""
        text = repr((self.name, self.filename, sorted(self.fields.items())))
        return "asynccb-" + hashlib.sha256(text.encode()).hexdigest()[:32]

    @staticmethod
    def _part(boundary: str, name: str, value: str) -> bytes:
        return (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n'
            f"{value}\r\n"
        ).encode()


async def chunks(file: Path, size: int) -> AsyncIterator[bytes]:
    """Read exactly `size` bytes, which the request has announced."""
    left = size
    async with aiofiles.open(file, "rb") as stream:
        while left:
            chunk = await stream.read(min(CHUNK, left))
            if not chunk:
                raise OSError(f"{file} has become shorter while it was sent")
            left -= len(chunk)
            yield chunk


async def _around(head: bytes, middle: AsyncIterator[bytes], tail: bytes) -> AsyncIterator[bytes]:
    yield head
    async for chunk in middle:
        yield chunk
    yield tail


def _quoted(text: str) -> str:
    """Return a name as it stands between quotes in a form (as browsers write it)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
