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
    """Send a file, or a part of it; what is appended to it meanwhile is not sent."""

    file: Path
    content_type: str = _CONTENT
    start: int = 0
    """Bytes before the part."""
    length: int | None = None
    """Bytes of the part; None for all that follow."""

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the bytes."""
        size = self.length
        if size is None:
            size = (await aiofiles.os.stat(self.file)).st_size - self.start
        return size, self.content_type, chunks(self.file, size, self.start)


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
        form = FilesBody(((self.file, self.filename),), self.name, self.fields, self.content_type)
        return await form.open()


@dataclass(frozen=True)
class FilesBody:
    """Send several files in one form, under one field's name, after the form's fields."""

    files: tuple[tuple[Path, str], ...]
    """Each with the name that the form gives it."""
    name: str
    """Name of the field that holds the files."""
    fields: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _CONTENT

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the form's bytes."""
        boundary = self._boundary()
        fields = b"".join(_field(boundary, name, value) for name, value in self.fields.items())
        heads = [self._head(boundary, filename) for _, filename in self.files]
        sizes = [(await aiofiles.os.stat(file)).st_size for file, _ in self.files]
        tail = f"--{boundary}--\r\n".encode()
        length = len(fields) + sum(map(len, heads)) + sum(sizes) + 2 * len(sizes) + len(tail)

        async def content() -> AsyncIterator[bytes]:
            yield fields
            for head, size, (file, _) in zip(heads, sizes, self.files, strict=True):
                yield head
                async for chunk in chunks(file, size):
                    yield chunk
                yield b"\r\n"
            yield tail

        return length, f"multipart/form-data; boundary={boundary}", content()

    def _head(self, boundary: str, filename: str) -> bytes:
        return (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{_quoted(self.name)}"; filename="{_quoted(filename)}"\r\n'
            f"Content-Type: {self.content_type}\r\n\r\n"
        ).encode()

    def _boundary(self) -> str:
        """Return what stands between the parts: the same each time, and in no ordinary file."""
        names = [filename for _, filename in self.files]
        text = repr((self.name, names, sorted(self.fields.items())))
        return "asynccb-" + hashlib.sha256(text.encode()).hexdigest()[:32]


async def chunks(file: Path, size: int, start: int = 0) -> AsyncIterator[bytes]:
    """Read exactly `size` bytes, which the request has announced, from `start` on."""
    left = size
    async with aiofiles.open(file, "rb") as stream:
        await stream.seek(start)
        while left:
            chunk = await stream.read(min(CHUNK, left))
            if not chunk:
                raise OSError(f"{file} has become shorter while it was sent")
            left -= len(chunk)
            yield chunk


def _field(boundary: str, name: str, value: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
    ).encode()


def _quoted(text: str) -> str:
    """Return a name as it stands between quotes in a form (as browsers write it)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
