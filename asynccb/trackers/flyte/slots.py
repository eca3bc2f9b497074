"""
Arrange checkpoints for a store that overwrites by name, deletes nothing, and may be cut off.

    slot-0/...        the files of one checkpoint, and remaining files of earlier ones
    slot-0.json       its manifest, uploaded after all files: names, sizes, SHA-256
    slot-1/...        another checkpoint
    slot-1.json

A checkpoint is uploaded into the slot without the last whole checkpoint. Promises: if uploading
stops at any moment, in the middle of a file or between two files, the last completely uploaded
checkpoint is found again. A checkpoint with missing or mixed files is never used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

logger = logging.getLogger("asynccb")

SLOTS: Final = ("slot-0", "slot-1")
_FORMAT: Final = 1
_NAME: Final = re.compile(r"checkpoint-\d+")


class _File(msgspec.Struct, frozen=True):
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The list of a whole slot's files."""

    format: int
    name: str
    """Name of the checkpoint's folder, `checkpoint-<step>`."""
    step: int
    files: dict[str, _File]
    """Files by path below the slot, with slashes."""


def write_manifest(slot: Path, name: str, step: int) -> Path:
    """Write a slot's manifest beside its folder and return its path; read all the slot's files."""
    files = {
        path.relative_to(slot).as_posix(): _File(path.stat().st_size, _digest(path))
        for path in sorted(slot.rglob("*"))
        if path.is_file()
    }
    written = slot.with_name(f"{slot.name}.json")
    written.write_bytes(msgspec.json.encode(Manifest(_FORMAT, name, step, files)))
    return written


def newest_whole(folder: Path) -> tuple[Path, Manifest] | None:
    """Return the slot with the newest whole checkpoint, or None; read the files to check them."""
    found = [
        (slot, manifest)
        for slot in (folder / name for name in SLOTS)
        if (manifest := _read_manifest(slot)) is not None
    ]
    for slot, manifest in sorted(found, key=lambda pair: pair[1].step, reverse=True):
        wrong = next((name for name in manifest.files if not _is_whole(slot, name, manifest)), None)
        if wrong is None:
            return slot, manifest
        logger.warning(
            "%s was not completely uploaded (%s is missing or different); trying an earlier one",
            *(manifest.name, wrong),
        )
    return None


def put_back(slot: Path, manifest: Manifest, directory: Path) -> Path:
    """Copy a whole checkpoint back into a training's directory; return the checkpoint's path."""
    folder = directory / f".{manifest.name}.incomplete"
    shutil.rmtree(folder, ignore_errors=True)
    for name in manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(slot / name, folder / name)
    path = directory / manifest.name
    shutil.rmtree(path, ignore_errors=True)
    folder.rename(path)
    return path


def link(checkpoint: Path, folder: Path) -> None:
    """
    Fill a folder with hard links to a checkpoint's files, so the checkpoint may be removed.

    Raises OSError if the file system has no hard links, or the checkpoint is gone.
    """
    for parent, _, names in os.walk(checkpoint, onerror=_raise):
        place = folder / Path(parent).relative_to(checkpoint)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.link(os.path.realpath(os.path.join(parent, name)), place / name)


def _raise(error: OSError) -> None:
    raise error


def _read_manifest(slot: Path) -> Manifest | None:
    """Return a slot's manifest; None if it is missing or torn."""
    try:
        found = msgspec.json.decode(slot.with_name(f"{slot.name}.json").read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    if found.format != _FORMAT or not _NAME.fullmatch(found.name):
        logger.warning("%s.json has an unknown version and is ignored", slot.name)
        return None
    return found


def _is_whole(slot: Path, name: str, manifest: Manifest) -> bool:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        return False
    path, expected = slot / name, manifest.files[name]
    try:
        return path.stat().st_size == expected.size and _digest(path) == expected.sha256
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
