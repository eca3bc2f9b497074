"""
Send files as the body of a request.

Promises: a file is streamed from disk, 1 MiB at a time, and its length is announced. The same file
and fields produce the same bytes.
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
"""Bytes of a file that are read at once. Each read is a trip to a worker thread, about 0.1 ms."""

_CONTENT: Final = "application/octet-stream"


@runtime_checkable
class Body(Protocol):
    """A request's body; raises `OSError` if the file cannot be read or becomes shorter."""

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the length in bytes, the content type, and an iterator of the bytes."""


@dataclass(frozen=True)
class FileBody:
    """A file, or a part of it; bytes that are appended to the file meanwhile are not sent."""

    file: Path
    content_type: str = _CONTENT
    start: int = 0
    """Bytes before the part."""
    length: int | None = None
    """Bytes of the part; None for all the rest of the file."""

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the length, the content type and the bytes of the part."""
        size = self.length
        if size is None:
            size = (await aiofiles.os.stat(self.file)).st_size - self.start
        return size, self.content_type, chunks(self.file, size, self.start)


@dataclass(frozen=True)
class FormBody:
    """A file in a form (`multipart/form-data`), after the form's fields."""

    file: Path
    name: str
    """The name of the file's field."""
    filename: str
    fields: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _CONTENT

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the length, the content type and the bytes of the form."""
        form = FilesBody(((self.file, self.filename),), self.name, self.fields, self.content_type)
        return await form.open()


@dataclass(frozen=True)
class FilesBody:
    """Several files in one form, under one field's name, after the form's fields."""

    files: tuple[tuple[Path, str], ...]
    """Each file with its name in the form."""
    name: str
    """The name of the files' field."""
    fields: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _CONTENT

    async def open(self) -> tuple[int, str, AsyncIterator[bytes]]:
        """Return the length, the content type and the bytes of the form."""
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
        """Return the separator of the parts: the same each time, and in no ordinary file."""
        names = [filename for _, filename in self.files]
        text = repr((self.name, names, sorted(self.fields.items())))
        return "asynccb-" + hashlib.sha256(text.encode()).hexdigest()[:32]


async def chunks(file: Path, size: int, start: int = 0) -> AsyncIterator[bytes]:
    """Yield the bytes from `start` on: exactly `size`, as the request has announced."""
    left = size
    async with aiofiles.open(file, "rb") as stream:
        await stream.seek(start)
        while left:
            chunk = await stream.read(min(CHUNK, left))
            if not chunk:
                raise OSError(f"{file} became shorter while it was being sent")
            left -= len(chunk)
            yield chunk


def _field(boundary: str, name: str, value: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n{value}\r\n'
    ).encode()


def _quoted(text: str) -> str:
    """Return a name escaped for the quotes in a form, as browsers escape it."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
