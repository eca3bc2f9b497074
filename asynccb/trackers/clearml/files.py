"""
Store a ClearML task's files on the file server: checkpoints as models, others as artifacts.

Names are the same as in transformers 5.23. Promises: files are streamed. Storing a file again after
any failure has the same result as storing it once. No more models are kept than the training keeps
checkpoints.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import anyio.to_thread

from asynccb._ground.exceptions import RejectedError
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.delivery.bodies import CHUNK, FormBody
from asynccb.delivery.client import Client
from asynccb.trackers.clearml.api import ClearMLServer

ARTIFACTS: Final = "artifacts"
_MODELS: Final = "models"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_ODD: Final = re.compile(r'[\x00-\x1f\x7f"\\?#%*:|<>]+')
_CONTENT: Final = "application/octet-stream"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Time stamp of every file in a package, so that the same files make the same bytes."""


@dataclass(frozen=True)
class Owner:
    """The task that files belong to."""

    task: str
    name: str
    project: str
    """Id of the project."""
    folder: str
    """Folder of the files on the server: the project's name, or its id for a given task."""
    suffix: str
    """Suffix that distinguishes several trainings of one task, also in file names."""

    def place(self, *names: str) -> str:
        """Return the path of a file on the server."""
        task = f"{self.name}.{self.task}".replace("/", "_")
        parts = [*self.folder.split("/"), task, *names]
        return "/" + "/".join(_ODD.sub("_", part) for part in parts if part not in ("", ".", ".."))


class TaskFiles:
    """The files of one task on the file server."""

    def __init__(self, server: ClearMLServer, storage: Client) -> None:
        """Register files through `server`, and send them through `storage`."""
        self._server = server
        self._storage = storage

    async def close(self) -> None:
        """Close the connections to the file server."""
        await self._storage.close()

    async def store_model(self, owner: Owner, kept: Kept, limit: int | None) -> None:
        """
        Store a checkpoint as one file, register it, and keep at most `limit` checkpoints.

        Raises `RejectedError` if the server refuses the file, `OSError` if it cannot be packed.
        """
        name = kept.name + owner.suffix
        package = kept.place / f"{name}.zip"
        await anyio.to_thread.run_sync(_pack, kept.pending(), package)
        uri = await self._put(package, owner.place(_MODELS, package.name), "application/zip")
        fields: dict[str, Any] = {
            "uri": uri,
            "name": name,
            "comment": f"snapshot {package.name} stored",
            "framework": "PyTorch",
            "labels": {},
            "task": owner.task,
        }
        if owner.project:
            fields["project"] = owner.project
        known = {model.name: model.id for model in await self._server.models(owner.task)}
        if name in known:
            await self._server.call("models.edit", {"model": known[name], **fields})
        else:
            known[name] = await self._server.create_model({**fields, "ready": False})
        await self._server.call(
            "tasks.add_or_update_model",
            {
                "task": owner.task,
                "name": name,
                "model": known[name],
                "type": "output",
                "iteration": kept.step,
            },
        )
        if limit:
            await self._remove_oldest(owner, limit)

    async def store_artifact(self, owner: Owner, file: KeptFile) -> None:
        """Store a file under its path; raise the same errors as `store_model`."""
        digest, size = await anyio.to_thread.run_sync(_summed, file.path)
        changed = (await anyio.to_thread.run_sync(file.path.stat)).st_mtime
        key = file.name + owner.suffix
        uri = await self._put(file.path, owner.place(ARTIFACTS, *key.split("/")))
        artifact = {
            "key": key,
            "type": "custom",
            "mode": "output",
            "uri": uri,
            "content_size": size,
            "hash": digest,
            "timestamp": int(changed),
            "type_data": {
                "preview": f"{file.name} - {size} bytes\n",
                "content_type": _CONTENT,
            },
        }
        await self._server.call(
            "tasks.add_or_update_artifacts",
            {"task": owner.task, "force": True, "artifacts": [artifact]},
        )

    async def _put(self, file: Path, place: str, kind: str = _CONTENT) -> str:
        await self._storage.request(
            "POST", "", content=FormBody(file, place, place, content_type=kind)
        )
        return f"{self._storage.base}{quote(place)}"

    async def _remove_oldest(self, owner: Owner, limit: int) -> None:
        """Remove this training's models beyond the limit, each model's file before the model."""
        found: list[tuple[int, str, str]] = []
        for model in await self._server.models(owner.task):
            step = _CHECKPOINT.fullmatch(model.name.removesuffix(owner.suffix))
            if step is not None and model.name == step[0] + owner.suffix:
                found.append((int(step[1]), model.id, model.uri))
        for _, model_id, uri in sorted(found)[:-limit]:
            if uri.startswith(f"{self._storage.base}/"):
                await self._delete(unquote(urlsplit(uri).path))
            await self._server.call("models.delete", {"model": model_id, "force": True})

    async def _delete(self, place: str) -> None:
        base = urlsplit(self._storage.base).path
        try:
            await self._storage.request("DELETE", quote(place.removeprefix(base).lstrip("/")))
        except RejectedError as error:
            if error.status != 404:
                raise


def _pack(files: Sequence[KeptFile], package: Path) -> None:
    """Write the files into one archive, without compression, which does not shrink weights."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as packed:
        for file in files:
            entry = zipfile.ZipInfo(file.name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.file_size = file.path.stat().st_size
            with file.path.open("rb") as source, packed.open(entry, "w") as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)


def _summed(file: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
