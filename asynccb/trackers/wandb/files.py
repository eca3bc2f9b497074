"""
Artifacts of W&B: versions of named collections of files.

Source: `wandb` 0.31. Promises: files are streamed. Storing a version again, after any failure in
between, results in the same version. Files that the server has already are not sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio.to_thread

from asynccb._ground.exceptions import RejectedError, TransientError
from asynccb._journal.uploads import KeptFile
from asynccb.delivery.bodies import CHUNK, FileBody
from asynccb.delivery.client import Client
from asynccb.trackers.wandb.api import RunInfo, WandbServer
from asynccb.trackers.wandb.values import base36

LARGE: Final = 2 << 30
"""Bytes from which on a file goes in parts; a storage takes 5 GB at once."""
PART: Final = 100 << 20
_BATCH: Final = 50
"""Files whose addresses are asked for at once; they are good for an hour or so."""
_LONGEST_NAME: Final = 128
_ID_LENGTH: Final = 128
_ODD: Final = re.compile(r"[^a-zA-Z0-9_\-.]")
_MOST_REFUSALS: Final = 10
"""Refusals of signed addresses after which a version is given up; one is what expiry looks like."""


@dataclass(frozen=True)
class Version:
    """The name, the aliases and the metadata of a version."""

    name: str
    """The artifact's name, which all versions share."""
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]
    history_step: int
    seed: str
    """The same for the same version, however often it is stored, and for no other."""


@dataclass(frozen=True)
class _Entry:
    """A file's entry in the manifest."""

    file: KeptFile
    md5: str
    """Base64."""
    size: int
    parts: Sequence[str] = field(default=())
    """MD5 of each part in hexadecimal, for a file that is too large to be sent in one."""


def artifact_name(text: str) -> str:
    """Return a name that W&B takes: letters, digits and `_ - .`; the same for the same text."""
    name = _ODD.sub("-", text)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{zlib.crc32(text.encode()):08x}"


class Artifacts:
    """Store versions for one run."""

    def __init__(self, server: WandbServer, storage: Client) -> None:
        """Take the server, and a client that sends no credentials."""
        self._server = server
        self._storage = storage
        self._refusals = 0

    async def store(self, run: RunInfo, version: Version, files: Sequence[KeptFile]) -> None:
        """
        Store a version; raise `RejectedError` if the server refuses it.

        Its aliases move to it. If the last version has the same files, they move to that one.
        """
        try:
            await self._store(run, version, files)
        except TransientError as error:
            self._refusals += error.cause in ("401", "403")
            if self._refusals >= _MOST_REFUSALS:
                raise RejectedError(f"the storage does not take it: {error}") from error
            raise
        self._refusals = 0

    async def close(self) -> None:
        """Close the connections to the storage."""
        await self._storage.close()

    async def _store(self, run: RunInfo, version: Version, files: Sequence[KeptFile]) -> None:
        entries = [await anyio.to_thread.run_sync(_summed, file) for file in files]
        artifact = await self._create(run, version, entries)
        if artifact["state"] == "COMMITTED":
            return
        manifest = await self._manifest(run, artifact["id"], digest="", upload=False)
        births: dict[str, str] = {}
        for batch in _batches(entries):
            births |= await self._send(artifact["id"], manifest["id"], batch)
        content = _manifest(entries, births)
        digest = base64.b64encode(_md5(content)).decode()
        latest = (artifact.get("artifactSequence") or {}).get("latestArtifact") or {}
        whole = await self._manifest(
            run, artifact["id"], digest=digest, upload=True, base=latest.get("id")
        )
        file = whole["file"]
        headers = _headers(file.get("uploadHeaders"))
        await self._storage.request("PUT", file["uploadUrl"], content=content, headers=headers)
        await self._server.execute("CommitArtifact", _COMMIT, {"artifactID": artifact["id"]})

    async def _create(self, run: RunInfo, version: Version, entries: Sequence[_Entry]) -> Any:
        whole = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
        for entry in sorted(entries, key=lambda entry: entry.file.name):
            whole.update(f"{entry.file.name}:{entry.md5}\n".encode())
        given = {
            "entityName": run.entity,
            "projectName": run.project,
            "runName": run.run_id,
            "artifactTypeName": "model",
            "artifactCollectionName": version.name,
            "aliases": [
                {"artifactCollectionName": version.name, "alias": alias}
                for alias in ("latest", *version.aliases)
            ],
            "metadata": json.dumps(version.metadata, allow_nan=False, default=str),
            "digest": whole.hexdigest(),
            "digestAlgorithm": "MANIFEST_MD5",
            "enableDigestDeduplication": True,
            "clientID": _identity(version.seed),
            "sequenceClientID": _identity(f"{run.run_id}/{version.name}"),
            "historyStep": version.history_step,
        }
        data = await self._server.execute("CreateArtifact", _CREATE, {"input": given})
        return data["createArtifact"]["artifact"]

    async def _manifest(
        self, run: RunInfo, artifact: str, *, digest: str, upload: bool, base: str | None = None
    ) -> Any:
        data = await self._server.execute(
            "CreateArtifactManifest",
            _MANIFEST,
            {
                "artifactID": artifact,
                "baseArtifactID": base,
                "name": "wandb_manifest.json",
                "digest": digest,
                "entityName": run.entity,
                "projectName": run.project,
                "runName": run.run_id,
                "manifestType": "FULL",
                "includeUpload": upload,
            },
        )
        return data["createArtifactManifest"]["artifactManifest"]

    async def _send(
        self, artifact: str, manifest: str, entries: Sequence[_Entry]
    ) -> dict[str, str]:
        """Send files that the server has not got; return which artifact each was born in."""
        given = [
            {
                "artifactID": artifact,
                "artifactManifestID": manifest,
                "name": entry.file.name,
                "md5": entry.md5,
                "uploadPartsInput": _parts(entry) or None,
            }
            for entry in entries
        ]
        variables = {"input": {"artifactFiles": given, "storageLayout": "V2"}}
        data = await self._server.execute("CreateArtifactFiles", _FILES, variables)
        nodes = [edge["node"] for edge in data["createArtifactFiles"]["files"]["edges"]]
        births: dict[str, str] = {}
        for entry, node in zip(entries, nodes, strict=True):
            births[entry.file.name] = node["artifact"]["id"]
            if node.get("uploadMultipartUrls"):
                await self._send_parts(artifact, entry, node)
            elif node.get("uploadUrl"):
                headers = _headers(node.get("uploadHeaders"))
                body = FileBody(entry.file.path)
                await self._storage.request("PUT", node["uploadUrl"], content=body, headers=headers)
        return births

    async def _send_parts(self, artifact: str, entry: _Entry, node: Any) -> None:
        urls = node["uploadMultipartUrls"]
        headers = _headers(node.get("uploadHeaders"))
        own = {key: value for key, value in headers.items() if key.lower() == "content-type"}
        for part in urls["uploadUrlParts"]:
            start = (part["partNumber"] - 1) * PART
            length = min(PART, entry.size - start)
            body = FileBody(entry.file.path, start=start, length=length)
            await self._storage.request("PUT", part["uploadUrl"], content=body, headers=own)
        await self._server.execute(
            "CompleteMultipartUploadArtifact",
            _COMPLETE,
            {
                "completeMultipartAction": "Complete",
                "completedParts": _parts(entry),
                "artifactID": artifact,
                "storagePath": node["storagePath"],
                "uploadID": urls["uploadID"],
            },
        )


def _summed(file: KeptFile) -> _Entry:
    """Read a file for its sums, never whole into memory."""
    whole = hashlib.md5(usedforsecurity=False)
    large = file.path.stat().st_size >= LARGE
    parts: list[str] = []
    size = 0
    with file.path.open("rb") as content:
        while chunk := content.read(PART if large else CHUNK):
            whole.update(chunk)
            size += len(chunk)
            if large:
                parts.append(_md5(chunk).hex())
    return _Entry(file, base64.b64encode(whole.digest()).decode(), size, parts)


def _parts(entry: _Entry) -> list[dict[str, Any]]:
    return [{"partNumber": n, "hexMD5": md5} for n, md5 in enumerate(entry.parts, 1)]


def _batches(entries: Sequence[_Entry]) -> Iterator[Sequence[_Entry]]:
    for start in range(0, len(entries), _BATCH):
        yield entries[start : start + _BATCH]


def _manifest(entries: Sequence[_Entry], births: Mapping[str, str]) -> bytes:
    contents = {
        entry.file.name: {
            "digest": entry.md5,
            "size": entry.size,
            "birthArtifactID": births[entry.file.name],
        }
        for entry in entries
    }
    manifest = {
        "version": 1,
        "storagePolicy": "wandb-storage-policy-v1",
        "storagePolicyConfig": {"storageLayout": "V2"},
        "contents": contents,
    }
    return json.dumps(manifest).encode()


def _headers(lines: Sequence[str] | None) -> dict[str, str]:
    """Return headers that come as `Name:value`."""
    pairs = (line.partition(":") for line in lines or ())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _identity(seed: str) -> str:
    """Return an id in place of the vendor's random letters; the same for the same seed."""
    return base36(int.from_bytes(hashlib.shake_256(seed.encode()).digest(96)), _ID_LENGTH)


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


# The documents; `wandb` 0.31 asks for every field in them.

_CREATE: Final = """\
mutation CreateArtifact($input: CreateArtifactInput!) {
  createArtifact(input: $input) {
    artifact { id state artifactSequence { latestArtifact { id } } }
  }
}"""
_MANIFEST: Final = """\
mutation CreateArtifactManifest($artifactID: ID!, $baseArtifactID: ID, $name: String!, \
$digest: String!, $entityName: String!, $projectName: String!, $runName: String!, \
$manifestType: ArtifactManifestType!, $includeUpload: Boolean!) {
  createArtifactManifest(input: {artifactID: $artifactID, baseArtifactID: $baseArtifactID, \
name: $name, digest: $digest, entityName: $entityName, projectName: $projectName, \
runName: $runName, type: $manifestType}) {
    artifactManifest {
      id
      file {
        uploadUrl @include(if: $includeUpload)
        uploadHeaders @include(if: $includeUpload)
      }
    }
  }
}"""
_FILES: Final = """\
mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) {
  createArtifactFiles(input: $input) {
    files {
      edges {
        node {
          storagePath
          uploadUrl
          uploadHeaders
          uploadMultipartUrls { uploadID uploadUrlParts { partNumber uploadUrl } }
          artifact { id }
        }
      }
    }
  }
}"""
_COMPLETE: Final = """\
mutation CompleteMultipartUploadArtifact($completeMultipartAction: CompleteMultipartAction!, \
$completedParts: [UploadPartsInput!]!, $artifactID: ID!, $storagePath: String!, \
$uploadID: String!) {
  completeMultipartUploadArtifact(input: {completeMultipartAction: $completeMultipartAction, \
completedParts: $completedParts, artifactID: $artifactID, storagePath: $storagePath, \
uploadID: $uploadID}) {
    digest
  }
}"""
_COMMIT: Final = """\
mutation CommitArtifact($artifactID: ID!) {
  commitArtifact(input: {artifactID: $artifactID}) { artifact { id digest } }
}"""
