"""
A run in a folder, in the form of the vendor's local and offline modes; `swanlab sync` uploads it.

    <log_dir>/run-<date>_<time>-<id>/run-<id>.swanlab     records (`run_file_format.py`)
    <log_dir>/run-<date>_<time>-<id>/files/...            files of models

Promises: `flush` leaves every queued record whole in the file. A repeated write overwrites the same
bytes and never appends. If the run goes on, the record of the end is overwritten.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import AccessError
from asynccb._ground.types import RunStatus
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.trackers.shared.offset_file import ShortFileError, write_at
from asynccb.trackers.swanlab import run_file_format as records
from asynccb.trackers.swanlab.run import SwanLabRun
from asynccb.trackers.swanlab.settings import SwanLabSettings
from asynccb.trackers.swanlab.values import lines_of

_FILES: Final = "files"
_STATES: Final[dict[RunStatus, int]] = {"finished": 1, "failed": 2, "crashed": 2, "killed": 3}
_RESUME: Final = {"never": 0, "allow": 1, "must": 2}
_HINT: Final = "give a directory that can be made and written as log_dir or in SWANLAB_LOG_DIR"
_ODD: Final = re.compile(r"[^\w.\-]")


class RunFile:
    """The writer of a run's records, behind earlier ones."""

    def __init__(self, settings: SwanLabSettings, run: SwanLabRun) -> None:
        self._settings = settings
        self._run = run
        self._waiting: list[bytes] = []
        self._folder: str | None = None
        self._offset = 0
        """Bytes that are written and stay."""
        self._count = 0
        """Records so far that are counted."""
        self._said = 0
        """Lines of the console so far."""
        self._described: int | None = None
        """Checksum of the description that is there."""
        self._changed = True

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def folder(self) -> Path:
        """The run's folder, named from its own start, in local time."""
        if self._folder is None:
            started = time.localtime(self._run.description.started // 10**9)
            name = f"run-{time.strftime('%Y%m%d_%H%M%S', started)}-{self._id}"
            self._folder = os.path.join(self._settings.log_dir, name)
        return Path(self._folder)

    @property
    def _id(self) -> str:
        return _ODD.sub("_", self._run.id)[:100]

    def describe(self) -> None:
        """Compare the run's description again with the next record."""
        self._changed = True

    def add(self, time: int, step: int, numbers: Mapping[str, float]) -> None:
        """Queue a record for each number."""
        self._begin(time)
        for key, value in numbers.items():
            self._count += 1
            self._waiting.append(records.scalar(self._count, time, key, step, value))

    def say(self, time: int, told: Sequence[tuple[bool, int, str]]) -> None:
        """Queue a record for each line of the console."""
        self._begin(time)
        for one, (_, when, _) in zip(lines_of(told, self._said + 1), told, strict=True):
            self._count += 1
            self._waiting.append(records.line(self._count, when, one.message, one.epoch))
        self._said += len(told)

    async def flush(self) -> None:
        """Write all; raises as `write_at` does."""
        data = records.framed(self._waiting, self._offset or len(records.HEADER))
        await self._write(data)
        self._waiting.clear()
        self._offset = (self._offset or len(records.HEADER)) + len(data)

    async def finish(self, status: RunStatus, time: int) -> None:
        """Write which files there are, and how the run ended, behind everything else."""
        number, last = self._count, []
        for path in await anyio.to_thread.run_sync(self._saved):
            number += 1
            name = path.relative_to(self.folder / _FILES).as_posix()
            last.append(records.save(number, time, records.CUSTOM, name, path=str(path)))
        last.append(records.finish(time, _STATES[status], self._run.ending(status)))
        await self._write(records.framed(last, self._offset))

    async def keep(self, kept: Kept, file: KeptFile) -> None:
        """Put a file of a model into the run's folder."""
        target = self.folder / _FILES / kept.name / file.name
        await anyio.to_thread.run_sync(_link, file.path, target)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that a new object needs to continue."""
        return {
            "folder": self._folder,
            "offset": self._offset,
            "count": self._count,
            "said": self._said,
            "described": self._described,
        }

    def restore(self, attributes: Mapping[str, Any]) -> None:
        """Restore the attributes; the file is overwritten behind the offset."""
        self._folder = attributes["folder"]
        self._offset, self._count = attributes["offset"], attributes["count"]
        self._said, self._described = attributes["said"], attributes["described"]

    @property
    def begun(self) -> bool:
        """Whether anything is in the file."""
        return self._offset > 0

    def _begin(self, time: int) -> None:
        """Queue the run's description before the first record, and again after a change."""
        run, settings = self._run, self._settings
        if not self._offset and not self._waiting:
            self._waiting.append(
                records.start(
                    time,
                    project=settings.project,
                    workspace=settings.workspace,
                    public=settings.public,
                    name=run.name,
                    description=settings.description,
                    tags=settings.tags,
                    group=settings.group,
                    job_type=settings.job_type,
                    color=run.color,
                    run_id=run.id,
                    resume=_RESUME[settings.resume],
                    started=run.description.started,
                )
            )
        if self._changed:
            self._changed = False
            self._describe(time)

    def _describe(self, time: int) -> None:
        """Queue metadata and configuration, unless they are there."""
        # JSON is YAML, which the reader expects of a configuration.
        metadata = msgspec.json.encode(self._run.metadata())
        config = msgspec.json.encode(self._run.config())
        checksum = zlib.crc32(config, zlib.crc32(metadata))
        if self._described == checksum:
            return
        self._described = checksum
        for number, kind, name, text in (
            (records.METADATA_NUMBER, records.METADATA, "metadata", metadata),
            (records.CONFIG_NUMBER, records.CONFIG, "config", config),
        ):
            self._waiting.append(records.save(number, time, kind, name, content=text))

    async def _write(self, data: bytes) -> None:
        file = self.folder / f"run-{self._id}.swanlab"
        head = b"" if self._offset else records.HEADER
        try:
            await write_at(file, self._offset, head + data, hint=_HINT)
        except ShortFileError:
            raise AccessError(
                f"{file} is gone or shorter than what was written to it: what is left of the run "
                "cannot be written behind that"
            ) from None

    def _saved(self) -> list[Path]:
        return sorted(path for path in (self.folder / _FILES).rglob("*") if path.is_file())


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
