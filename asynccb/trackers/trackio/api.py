"""
Trackio's HTTP interface, version 1: rows, runs and artifacts, over one `Client`.

Source: Trackio 0.43. Promises: every call may be made again after a `TransientError`, with the
effect of one call: rows are identified by their ids, files by their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import AccessError, DeliveryError, RejectedError, TransientError
from asynccb.delivery.bodies import FormBody
from asynccb.delivery.client import Client
from asynccb.trackers.shared.answers import shaped
from asynccb.trackers.trackio.values import AlertRow, MetricRow, Row, SystemRow

_WHO: Final = "a Trackio server"
ROWS: Final = 1000
"""Rows of one request; more of them are not faster (16,000 rows a second)."""
SIZE: Final = 4 << 20
"""Bytes of one request, so that a proxy takes it."""
_NAMES: Final[dict[type[Row], tuple[str, str]]] = {
    MetricRow: ("bulk_log", "logs"),
    SystemRow: ("bulk_log_system", "logs"),
    AlertRow: ("bulk_alert", "alerts"),
}
_CREDENTIALS: Final = ("write_token", "hf_token")
"""Named in a server's error if it refuses our rows: the status is 400 or 500, not 401."""
_VERSION: Final = 1

T = TypeVar("T")


class KnownRun(msgspec.Struct, frozen=True):
    """The server's description of a run."""

    id: str
    name: str
    created_at: str | None = None
    """Time of its first row, as text; the server gives runs of one project the same form."""


class _Staged(msgspec.Struct):
    paths: list[str]


class _Present(msgspec.Struct):
    present: list[str]


class _Version(msgspec.Struct):
    version: str = "unknown"
    api_version: int = 0


@dataclass(frozen=True)
class Blob:
    """A file of an artifact: its path there, its digest, and its path on disk."""

    path: str
    digest: str
    size: int
    file: Path


class TrackioServer:
    """Talk to one server, of one's own or in a Space."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def check(self) -> None:
        """Raise `AccessError` unless a Trackio server of this version is there."""
        try:
            answer = await self.client.get("version")
        except RejectedError as error:
            raise AccessError(f"this is no Trackio server, or one before 0.25: {error}") from error
        found = shaped(answer, _Version, _WHO)
        if found.api_version != _VERSION:
            raise AccessError(
                f"{self.client!r} is Trackio {found.version} with interface {found.api_version}, "
                f"and this version of asynccb speaks {_VERSION}: upgrade the older of the two"
            )

    async def runs(self, project: str) -> list[KnownRun]:
        """Return the runs of a project."""
        answer = await self._call("get_runs_for_project", {"project": project})
        return shaped(answer, list[KnownRun], _WHO)

    async def store(self, rows: Sequence[Row], name: str) -> None:
        """
        Store rows of one kind, at most `ROWS`; `name` is not needed here.

        Raises `RejectedError` if a row is refused; then none is stored.
        """
        call, field = _NAMES[type(rows[0])]
        await self._call(call, {field: rows, "hf_token": None})

    async def store_artifact(
        self,
        project: str,
        blobs: Sequence[Blob],
        *,
        name: str,
        kind: str,
        metadata: Mapping[str, Any],
        aliases: Sequence[str],
        run: str,
        run_id: str,
    ) -> None:
        """Store the files that the server has not, then the version of the artifact."""
        digests = sorted({blob.digest for blob in blobs})
        asked = {"project": project, "digests": digests, "hf_token": None}
        answer = await self._call("check_artifact_blobs", asked)
        present = set(shaped(answer, _Present, _WHO).present)
        for blob in {blob.digest: blob for blob in blobs}.values():
            if blob.digest not in present:
                await self._store_blob(project, blob)
        version = {
            "project": project,
            "name": name,
            "type": kind,
            "description": None,
            "metadata": metadata,
            "manifest": [{"path": b.path, "digest": b.digest, "size": b.size} for b in blobs],
            "aliases": list(aliases),
            "run_name": run,
            "run_id": run_id,
            "hf_token": None,
        }
        await self._call("artifact_log", version)

    async def _store_blob(self, project: str, blob: Blob) -> None:
        """Stream a file to a place of the server's own, and have it taken from there."""
        form = FormBody(blob.file, "files", blob.digest)
        async with self._credentials_told():
            reply = await self.client.request("POST", "api/upload", content=form)
        (path,) = shaped(reply.json(), _Staged, _WHO).paths
        uploaded = {"path": path, "orig_name": blob.digest, "meta": {"_type": "gradio.FileData"}}
        entry = {"project": project, "digest": blob.digest, "uploaded_file": uploaded}
        await self._call(
            "bulk_upload_artifact_blob", {"project": project, "uploads": [entry], "hf_token": None}
        )

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        async with self._credentials_told():
            answer = await self.client.post(f"api/{name}", arguments)
        if not isinstance(answer, dict) or "data" not in answer:
            raise TransientError(
                f"{self.client!r} answered {name} with something that no Trackio server says",
                cause="no data",
            )
        return answer["data"]

    @asynccontextmanager
    async def _credentials_told(self) -> AsyncIterator[None]:
        """Turn an error about our credentials into an `AccessError`."""
        try:
            yield
        except AccessError:
            raise
        except DeliveryError as error:
            if any(name in str(error) for name in _CREDENTIALS):
                raise AccessError(
                    f"{error}; set TRACKIO_WRITE_TOKEN to the server's token, or for a Space "
                    "HF_TOKEN to one that may write to it"
                ) from error
            raise


async def blob_of(path: str, file: Path) -> Blob:
    """Return a file with its digest; raise `OSError` if it cannot be read."""
    digest, size = await anyio.to_thread.run_sync(_digest, file, abandon_on_cancel=True)
    return Blob(path, digest, size, file)


def _digest(file: Path) -> tuple[str, int]:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256")
        return found.hexdigest(), stream.tell()
