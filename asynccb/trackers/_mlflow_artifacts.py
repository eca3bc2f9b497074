"""
Files on their way to a run's artifact store: through the server's proxy, or onto a shared disk.

Promises: files are streamed, never read whole; a file is named pending until it is stored, so that
after a `TransientError` the same call goes on with that file; storing one again overwrites it.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote, unquote, urlsplit

import anyio.to_thread

from asynccb._exceptions import RejectedError
from asynccb.delivery.client import Client
from asynccb.trackers._mlflow_names import artifact_path

Reject = Callable[[str, str], None]

_PROXY: Final = "api/2.0/mlflow-artifacts/artifacts"
_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


class UnusableStoreError(RejectedError):
    """Signal that no file at all can be stored there."""


class Upload(NamedTuple):
    """Name a local file and the path in the run's artifacts that it goes to."""

    file: Path
    target: str


class Store(Protocol):
    """Where a run's artifacts go."""

    async def put(self, upload: Upload) -> None:
        """Store one file, overwriting what is there."""


class ProxyStore:
    """Send files through the server that also tracks (`mlflow-artifacts:`)."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root.strip("/")

    async def put(self, upload: Upload) -> None:
        """Stream one file; raises what `Client.put_file` raises."""
        path = quote(f"{self._root}/{artifact_path(upload.target)}")
        await self._client.put_file(f"{_PROXY}/{path}", upload.file)


class SharedDiskStore:
    """Copy files to where the server says that it keeps them, on a disk that we share with it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, upload: Upload) -> None:
        """Copy one file; raise OSError, or `UnusableStoreError` where no directory can be made."""
        await anyio.to_thread.run_sync(self._copy, upload, abandon_on_cancel=True)

    def _copy(self, upload: Upload) -> None:
        target = self._root / upload.target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnusableStoreError(f"{target.parent} cannot be made: {error.strerror}") from error
        shutil.copyfile(upload.file, target)


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
    raise UnusableStoreError(f"the server keeps the run's artifacts at {place}, out of our reach")


def _is_mounted(root: Path) -> bool:
    """Tell whether the folder that holds `<experiment>/<run>/artifacts` is here too."""
    return len(root.parents) > 2 and root.parents[2].is_dir() and len(root.parents[2].parts) > 1


class Uploads:
    """Hold the directories that are still to be stored, in order."""

    def __init__(self) -> None:
        self._directories: deque[Upload] = deque()
        self._files: deque[Upload] | None = None
        """Files of the first directory that are not stored yet; None before it was listed."""

    def __bool__(self) -> bool:
        return bool(self._directories)

    def add(self, directory: Path, name: str) -> None:
        """Add a directory, to be stored under that name."""
        self._directories.append(Upload(directory, name))

    async def send(self, client: Client, artifact_uri: str, reject: Reject) -> None:
        """Store all that is pending; call `reject` for what can never be stored, and why."""
        while self._directories:
            directory = self._directories[0]
            try:
                await self._send_directory(directory, find_store(client, artifact_uri), reject)
            except FileNotFoundError:
                reject(
                    f"the rest of {directory.file}" if self._files else str(directory.file),
                    "it is gone; keep checkpoints until they are uploaded, with a higher "
                    "save_total_limit",
                )
            except UnusableStoreError as error:
                reject(
                    str(directory.file),
                    f"{error}; start the server with `--artifacts-destination`, so that files go "
                    "through it, or set HF_MLFLOW_LOG_ARTIFACTS=0",
                )
            self._directories.popleft()
            self._files = None

    async def _send_directory(self, directory: Upload, store: Store, reject: Reject) -> None:
        if self._files is None:
            self._files = deque(await anyio.to_thread.run_sync(_list_files, directory))
        while self._files:
            upload = self._files[0]
            try:
                await store.put(upload)
            except (FileNotFoundError, UnusableStoreError):
                raise
            except (OSError, RejectedError) as error:
                reject(str(upload.file), str(error))
            self._files.popleft()


def _list_files(directory: Upload) -> list[Upload]:
    """Return all files below a directory, sorted; raise FileNotFoundError where it is gone."""
    root = directory.file
    found = [
        Upload(file, f"{directory.target}/{file.relative_to(root).as_posix()}")
        for file in sorted(root.rglob("*"))
        if file.is_file()
    ]
    # Afterwards, because a list of a directory that goes meanwhile is short without a word.
    if not root.is_dir():
        raise FileNotFoundError(root)
    return found
