"""
Keep files that wait to be uploaded, so that removing the originals does no harm.

    uploads/<lane>/<record id>/folder.json     name and step
    uploads/<lane>/<record id>/files/...       hard links, or copies from another file system
    uploads/<lane>/next                        id of the first record that was not looked at

Promises: a folder is kept whole or not at all. A file is removed once it is stored, so that after a
crash only the rest is sent. A record's files are kept once. A link shares its bytes with the
original: if a file is overwritten in place, rather than replaced, the new bytes are uploaded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiofiles.os
import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import DeliveryError
from asynccb._journal.cursor import replace

MOST: Final = 16
"""Folders that may wait at once. Each occupies disk space, although the training may have removed
the checkpoint long ago."""
_NEW: Final = ".new"
LIMIT: Final = 100 << 30
"""Bytes of files that may wait, by default."""


class CrowdedError(DeliveryError):
    """Signal that too many files wait to keep another folder."""


@dataclass(frozen=True)
class Folder:
    """A folder, or a single file, to upload, and its name on the server."""

    path: Path
    name: str
    passing: bool = False
    """Whether the original is removed once it is kept."""


@dataclass(frozen=True)
class KeptFile:
    """A kept file, and its path below the folder, with slashes."""

    path: Path
    name: str


class _About(msgspec.Struct, frozen=True):
    name: str
    step: int


class Kept:
    """A folder's files, kept until they are stored."""

    def __init__(self, place: Path, name: str, step: int, files: list[KeptFile]) -> None:
        self.place = place
        self.name = name
        """The value of `Folder.name`."""
        self.step = step
        """The global step at which the folder was saved."""
        self._files = files

    def pending(self) -> list[KeptFile]:
        """Return the files that are not stored yet, in the order of their names."""
        return list(self._files)

    async def stored(self, file: KeptFile) -> None:
        """Remove a file: it is stored, or never can be."""
        self._files.remove(file)
        await aiofiles.os.unlink(file.path)


class Spool:
    """The folders kept for one tracker, in the order of their records."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        """Take the directory, created with the first folder, and the bytes it may contain."""
        self._path = path
        self._limit = limit
        self._waiting: list[int] = []
        self.next = 0
        """Id of the first record that was not looked at."""

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    async def open(self) -> None:
        """Find the folders that an earlier process has kept."""
        self._waiting, self.next = await anyio.to_thread.run_sync(self._find)

    async def keep(self, number: int, step: int, folder: Folder) -> None:
        """
        Keep the files of a folder for the record with the id `number`.

        Raises `FileNotFoundError` if the folder is gone, `OSError` if the disk is full, and
        `CrowdedError` if too much waits already.
        """
        if len(self._waiting) >= MOST:
            raise CrowdedError(f"{MOST} folders already wait to be uploaded")
        # A copy may take minutes: a deadline abandons it, and it is begun again later.
        await anyio.to_thread.run_sync(self._link, number, step, folder, abandon_on_cancel=True)
        self._waiting.append(number)

    def _check_room(self, folder: Folder) -> None:
        """Raise `CrowdedError` if a folder exceeds the limit; links count as copies would."""
        waiting, more = _size(self._path), _size(folder.path)
        if waiting + more > self._limit:
            raise CrowdedError(
                f"it has {more >> 20} MiB, and {waiting >> 20} MiB already wait to be uploaded: "
                f"more than {self._limit >> 20} MiB; raise ASYNCCB_UPLOAD_LIMIT if the disk has "
                "room"
            )

    async def seen(self, number: int) -> None:
        """Store that no record below the id `number` needs to be looked at again."""
        self.next = number
        with contextlib.suppress(OSError):  # a full disk: a record is looked at, and sent, again
            await replace(self._path / "next", str(number).encode())

    async def first(self) -> Kept:
        """Return the oldest folder; `empty` must be false."""
        return await anyio.to_thread.run_sync(self._load, self._waiting[0])

    async def remove_first(self) -> None:
        """Remove the oldest folder."""
        await anyio.to_thread.run_sync(shutil.rmtree, self._path / f"{self._waiting[0]:012}")
        del self._waiting[0]

    def _find(self) -> tuple[list[int], int]:
        for torn in self._path.glob(f"*{_NEW}"):
            shutil.rmtree(torn) if torn.is_dir() else torn.unlink()
        waiting = sorted(int(place.name) for place in self._path.glob("[0-9]*"))
        try:
            seen = int((self._path / "next").read_bytes())
        except FileNotFoundError:
            seen = 0
        return waiting, max([seen, *(number + 1 for number in waiting)])

    def _link(self, number: int, step: int, folder: Folder) -> None:
        place = self._path / f"{number:012}"
        new = place.with_name(place.name + _NEW)
        self._check_room(folder)
        for folder_of_ours in (self._path.parent, self._path, new):
            folder_of_ours.mkdir(mode=0o700, exist_ok=folder_of_ours is not new)
        try:
            _link_all(folder.path, new / "files")
            about = msgspec.json.encode(_About(folder.name, step))
            (new / "folder.json").write_bytes(about)
        except BaseException:
            shutil.rmtree(new)
            raise
        new.rename(place)
        if folder.passing:
            remove = Path.unlink if folder.path.is_file() else shutil.rmtree
            remove(folder.path)

    def _load(self, number: int) -> Kept:
        place = self._path / f"{number:012}"
        about = msgspec.json.decode((place / "folder.json").read_bytes(), type=_About)
        root = place / "files"
        files = [
            KeptFile(file, file.relative_to(root).as_posix())
            for file in sorted(root.rglob("*"))
            if file.is_file()
        ]
        return Kept(place, about.name, about.step, files)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of a folder's files; files removed meanwhile count as 0."""
    size = 0
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size


def _link_all(source: Path, target: Path) -> None:
    """Link, or copy, a folder's files or a single file; leave out runs with their journals."""
    files = [source] if source.is_file() else [f for f in source.rglob("*") if f.is_file()]
    runs = {about.parent for about in source.rglob("run.json") if _is_run(about.parent)}
    files = [file for file in files if runs.isdisjoint(file.parents)]
    root = source.parent if source.is_file() else source
    for file in files:
        link = target / file.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        original = file.resolve()  # otherwise a link to a link would be kept
        try:
            os.link(original, link)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(original, link)
    # Checked afterwards: if a directory is removed meanwhile, its list is short without an error.
    if not source.exists():
        raise FileNotFoundError(source)


def _is_run(folder: Path) -> bool:
    """Return whether a folder is a run's, as `delivery/README.md` describes it."""
    return (folder / "journal").is_dir() and (folder / "lock").exists()
