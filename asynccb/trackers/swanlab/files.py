"""
Files of a SwanLab run, on a server's storage.

Source: `swanlab.save` 0.10.3. Promises: a file is announced, stored at an address that the server
has signed, and confirmed; otherwise it is not there. A file of 100 MiB or more is sent in parts.
Our session is sent to the server alone, not to its storage.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import RejectedError
from asynccb.delivery.answers import Statuses
from asynccb.delivery.bodies import FileBody
from asynccb.delivery.client import Client
from asynccb.trackers.swanlab.api import Place, SwanLabServer

LARGE: Final = 100 << 20
"""Bytes from which on a file goes in parts."""
PART: Final = 32 << 20
LARGEST: Final = 50 << 30
"""Bytes of a file that SwanLab takes."""
_CONTENT: Final = "application/octet-stream"
_SIGNED: Final = Statuses(again=frozenset({401, 403}))
"""An address that was signed for an hour is refused afterwards; a new one is asked for."""


class _Addresses(msgspec.Struct):
    urls: list[str]


class _Part(msgspec.Struct, rename="camel"):
    part_number: int
    url: str


class _Parts(msgspec.Struct, rename="camel"):
    upload_id: str
    parts: list[_Part]


class _InParts(msgspec.Struct):
    files: list[_Parts]


class Storage:
    """Store files of a run."""

    def __init__(self, api_host: str) -> None:
        self._client = Client(api_host, statuses=_SIGNED)

    async def store(self, server: SwanLabServer, place: Place, name: str, file: Path) -> None:
        """
        Store a file under a name with slashes.

        Raises `RejectedError` if the file is refused, and `OSError` if it cannot be read.
        """
        about = await anyio.to_thread.run_sync(_describe, name, file)
        if about["size"] > LARGEST:
            raise RejectedError(f"it has {about['size']} bytes, and SwanLab takes {LARGEST}")
        if about["size"] >= LARGE:
            await self._store_in_parts(server, place, about, file)
            return
        answer = await server.files(place, "prepare", about)
        (address,) = _checked(answer, _Addresses).urls[:1] or [""]
        _check_address(address, name)
        await self._put(address, FileBody(file, about["mimeType"]))
        await server.files(place, "complete", {"path": name, "state": "UPLOADED"})

    async def _store_in_parts(
        self, server: SwanLabServer, place: Place, about: dict[str, Any], file: Path
    ) -> None:
        count = -(-about["size"] // PART)
        answer = await server.files(place, "prepare-multipart", {**about, "count": count})
        found = _checked(answer, _InParts).files
        numbers = sorted(part.part_number for one in found[:1] for part in one.parts)
        if numbers != list(range(1, count + 1)):
            raise RejectedError(f"SwanLab gives no {count} addresses for it")
        parts = []
        for part in found[0].parts:
            start = (part.part_number - 1) * PART
            _check_address(part.url, about["path"])
            body = FileBody(file, _CONTENT, start, min(PART, about["size"] - start))
            tag = await self._put(part.url, body)
            parts.append({"partNumber": part.part_number, "etag": tag})
        whole = {"path": about["path"], "uploadId": found[0].upload_id, "parts": parts}
        await server.files(place, "complete-multipart", whole)

    async def _put(self, address: str, body: FileBody) -> str:
        reply = await self._client.request("PUT", address, content=body)
        return reply.headers.get("ETag", "").strip('"')

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _describe(name: str, file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        size = stream.tell()
    kind = mimetypes.guess_type(name)[0] or _CONTENT
    return {"path": name, "size": size, "md5": digest.hexdigest(), "mimeType": kind}


def _checked(answer: Any, to: type[Any]) -> Any:
    try:
        return msgspec.convert(answer, to)
    except msgspec.ValidationError as error:
        raise RejectedError(f"SwanLab says nothing about where the file goes: {error}") from None


def _check_address(address: str, name: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise RejectedError(f"SwanLab gives no address for {name}")
