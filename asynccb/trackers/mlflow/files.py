"""
Files on their way to a run's artifact store: through the server's proxy, or onto a shared disk.

Promises: files are streamed, never read whole; storing one again overwrites it.
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
    """Signal that no file at all can be stored there."""


class Store(Protocol):
    """Where a run's artifacts go."""

    async def put(self, file: Path, target: str) -> None:
        """Store one file below the run's artifacts, overwriting what is there."""


class ProxyStore:
    """Send files through the server that also tracks (`mlflow-artifacts:`)."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root.strip("/")

    async def put(self, file: Path, target: str) -> None:
        """Stream one file; raises what `Client.put_file` raises."""
        path = quote(f"{self._root}/{artifact_path(target)}")
        await self._client.put_file(f"{_PROXY}/{path}", file)


class SharedDiskStore:
    """Copy files to where the server says that it keeps them, on a disk that we share with it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, file: Path, target: str) -> None:
        """Copy one file; raise OSError, or `UnusableStoreError` where no directory can be made."""
        copy = self._root / target
        await anyio.to_thread.run_sync(self._copy, file, copy, abandon_on_cancel=True)

    @staticmethod
    def _copy(file: Path, copy: Path) -> None:
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnusableStoreError(
                _unusable(f"{copy.parent} cannot be made: {error.strerror}")
            ) from error
        shutil.copyfile(file, copy)


def find_store(client: Client, artifact_uri: str) -> Store:
    """Return the store of a run; raise `UnusableStoreError` for one out of reach."""
    parts, server = urlsplit(artifact_uri), urlsplit(client.base)
    if parts.scheme == "mlflow-artifacts" and parts.netloc in ("", server.netloc):
        return ProxyStore(client, parts.path)
    if parts.scheme in ("", "file") and parts.netloc in ("", "localhost"):
        root = Path(unquote(parts.path) if parts.scheme else artifact_uri)
        if server.hostname in _THIS_MACHINE or _is_mounted(root):
            return SharedDiskStore(root)
    place = f"{parts.scheme or 'file'}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    raise UnusableStoreError(_unusable(f"the server keeps artifacts at {place}, out of our reach"))


def _unusable(why: str) -> str:
    return (
        f"{why}; start the server with `--artifacts-destination`, so that files go through it, or "
        "set HF_MLFLOW_LOG_ARTIFACTS=0"
    )


def _is_mounted(root: Path) -> bool:
    """Tell whether the folder that holds `<experiment>/<run>/artifacts` is here too."""
    return len(root.parents) > 2 and root.parents[2].is_dir() and len(root.parents[2].parts) > 1
