"""
Store files in an AzureML run: request an address from the run history, then send the blob.

Facts are from azureml-mlflow 1.62 and Azure's blob service. Promises: files are streamed. A file
that already exists counts as stored, because a run's artifact is never overwritten.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

import aiofiles.os
import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb.delivery.bodies import FileBody
from asynccb.delivery.client import Client

_VERSION: Final = "2021-08-06"
"""Version of the blob service."""
WHOLE: Final = 256 << 20
BLOCK: Final = 100 << 20
_THERE_ALREADY: Final = (409, 412)


class _Place(msgspec.Struct):
    uri: str = msgspec.field(name="contentUri")


class _Places(msgspec.Struct):
    artifacts: dict[str, _Place] = msgspec.field(
        name="artifactContentInformation", default_factory=dict
    )


async def put_blob(
    client: Client,
    run_path: str,
    file: Path,
    target: str,
    *,
    whole: int = WHOLE,
    block: int = BLOCK,
) -> None:
    """
    Store a file below a run's artifacts.

    `client` is connected to the region's server, and `run_path` is the run's path in the history.
    Up to `whole` bytes are sent in one request, more bytes in blocks of `block` bytes, 50,000
    blocks at most.

    Raises the same errors as `Client.request`, except for a blob that already exists.
    """
    answer = await client.post(
        f"{run_path}/artifacts/batch/metadata", {"paths": [{"path": target}]}
    )
    try:
        address = msgspec.convert(answer, _Places).artifacts[target].uri
    except (msgspec.ValidationError, KeyError):
        raise RejectedError(f"AzureML returns no address for {target}", status=200) from None
    size = (await aiofiles.os.stat(file)).st_size
    try:
        if size <= whole:
            await _put(client, address, FileBody(file), {"x-ms-blob-type": "BlockBlob"})
        else:
            await _put_blocks(client, address, file, size, block)
    except RejectedError as error:
        if error.status not in _THERE_ALREADY:
            raise


async def _put_blocks(client: Client, address: str, file: Path, size: int, block: int) -> None:
    """Store a large file block by block; Azure drops blocks missing from the final list."""
    names: list[str] = []
    for start in range(0, size, block):
        name = base64.b64encode(f"block-{start:016d}".encode()).decode()
        body = FileBody(file, start=start, length=min(block, size - start))
        quoted = name.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
        await _put(client, f"{address}&comp=block&blockid={quoted}", body, {}, once=False)
        names.append(name)
    listed = "".join(f"<Latest>{name}</Latest>" for name in names)
    content = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
    await _put(client, f"{address}&comp=blocklist", content.encode(), {})


async def _put(
    client: Client,
    address: str,
    content: bytes | FileBody,
    headers: dict[str, str],
    *,
    once: bool = True,
) -> None:
    # The address is signed, so the request is sent without our token.
    kept = {"If-None-Match": "*"} if once else {}
    sent = {"x-ms-version": _VERSION, **headers, **kept}
    try:
        await client.request("PUT", address, content=content, headers=sent)
    except AccessError as error:  # concerns only this address
        raise RejectedError(str(error), status=403) from error
