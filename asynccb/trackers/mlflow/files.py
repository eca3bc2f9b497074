"""
Store files in a run's artifact store, through the server's proxy or on a shared disk.

Promises: files are streamed, never read whole; storing a file again overwrites it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, unquote, urlsplit

import anyio.to_thread

from asynccb._ground.exceptions import RejectedError
from asynccb.delivery.client import Client
from asynccb.trackers.mlflow.values import artifact_path

_PROXY: Final = "api/2.0/mlflow-artifacts/artifacts"
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


class UnusableStoreError(RejectedError):
    """The store cannot receive any file."""


class Store(Protocol):
    """The destination of a run's artifacts."""

    async def put(self, file: Path, target: str) -> None:
        """Store one file below the run's artifacts, overwriting an existing one."""


class ProxyStore:
    """A store behind the tracking server's own proxy (`mlflow-artifacts:`)."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root.strip("/")

    async def put(self, file: Path, target: str) -> None:
        """Stream one file; raise the same errors as `Client.put_file`."""
        path = quote(f"{self._root}/{artifact_path(target)}")
        await self._client.put_file(f"{_PROXY}/{path}", file)


class SharedDiskStore:
    """A store on a disk that this machine shares with the server, at the server's own path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, file: Path, target: str) -> None:
        """Copy one file; raise OSError, or `UnusableStoreError` if its directory cannot be made."""
        copy = self._root / target
        await anyio.to_thread.run_sync(self._copy, file, copy, abandon_on_cancel=True)

    @staticmethod
    def _copy(file: Path, copy: Path) -> None:
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnusableStoreError(
                _unusable(f"{copy.parent} cannot be created: {error.strerror}")
            ) from error
        shutil.copyfile(file, copy)


def find_store(client: Client, artifact_uri: str) -> Store:
    """Return the store of a run; raise `UnusableStoreError` if it cannot be reached."""
    parts, server = urlsplit(artifact_uri), urlsplit(client.base)
    if parts.scheme == "mlflow-artifacts" and parts.netloc in ("", server.netloc):
        return ProxyStore(client, parts.path)
    if parts.scheme in ("", "file") and parts.netloc in ("", "localhost"):
        root = Path(unquote(parts.path) if parts.scheme else artifact_uri)
        if server.hostname in _THIS_MACHINE or _is_mounted(root):
            return SharedDiskStore(root)
    place = f"{parts.scheme or 'file'}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    raise UnusableStoreError(_unusable(f"the server stores artifacts at {place}, out of our reach"))


def _unusable(why: str) -> str:
    return (
        f"{why}; start the server with `--artifacts-destination`, so that it forwards files, or "
        "set HF_MLFLOW_LOG_ARTIFACTS=0"
    )


def _is_mounted(root: Path) -> bool:
    """Tell whether the folder above `<experiment>/<run>/artifacts` exists on this machine."""
    return len(root.parents) > 2 and root.parents[2].is_dir() and len(root.parents[2].parts) > 1
