"""
Comet's offline archive: the file that `comet upload` sends.

    <directory>/<name>.parts/messages.json    one message a line, while the run goes on
    <directory>/<name>.parts/<asset id>       an asset, and its message as <asset id>.json
    <directory>/<name>.zip                    all of it, when the run has ended

Sources: `comet_ml` 3.58 and its JSON schemas. Promises: an archive is there whole or not at all. A
message that is written again after a crash is in it once.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiofiles.os
import anyio.to_thread
import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb._journal.uploads import Kept, KeptFile
from asynccb.trackers.comet_ml.api import asset_fields
from asynccb.trackers.comet_ml.values import Metric, Note, Parameter
from asynccb.trackers.shared.offset_file import ShortFileError, classified, write_at

_MESSAGES: Final = "messages.json"
_HINT: Final = "name a folder that can be made and written in COMET_OFFLINE_DIRECTORY"
_TYPES: Final = {
    "log-other": "log_other",
    "graph": "graph",
    "file-path": "file_name",
    "system-details": "system_details",
}
_RENAMED: Final = {
    "filePath": "file_name",
    "executable": "python_exe",
    "osRelease": "os_release",
    "osType": "os_type",
    "pythonVersion": "python_version",
    "pythonVersionVerbose": "python_version_verbose",
}
_DETAILS: Final = (
    "ip",
    "machine",
    "os",
    "os_release",
    "os_type",
    "processor",
    "python_exe",
    "python_version",
    "python_version_verbose",
)
"""Fields that the uploader asks for, known or not."""


@dataclass(frozen=True)
class About:
    """The experiment of an archive; times are Unix milliseconds."""

    key: str
    project_name: str | None
    workspace: str | None
    tags: list[str]
    strategy: str
    """The upload's way with an experiment of that key: `create`, `get`, `get_or_create`."""
    chosen: bool
    """Whether somebody has chosen the key, so that there may be an experiment of that key."""
    start: int


class CometArchive:
    """Write messages, from the byte `written` on; `name` is that of the archive."""

    def __init__(self, directory: str, name: str, written: int = 0) -> None:
        self._parts = Path(directory, f"{name}.parts")
        self.path = Path(directory, f"{name}.zip")
        self.written = written

    async def store_metrics(self, values: Sequence[Metric]) -> None:
        """Append metrics."""
        await self._append([_metric(value) for value in values])

    async def store_parameters(self, values: Sequence[Parameter]) -> None:
        """Append parameters."""
        await self._append([_parameter(value) for value in values])

    async def store_note(self, note: Note) -> None:
        """Append a fact."""
        await self._append([_note(note)])

    async def store_asset(self, key: str, kept: Kept, file: KeptFile, time: int) -> None:
        """
        Add a file; messages may be written at the same time.

        Raises `RejectedError` if the file is missing or cannot be read.
        """
        fields = asset_fields(key, kept, file)
        name = str(fields["assetId"])
        message = {
            "type": "file_upload",
            "payload": {
                "additional_params": {"context": None, **fields},
                "file_path": name,
                "local_timestamp": time,
                "metadata": None,
                "upload_type": "asset",
            },
        }
        try:
            await anyio.to_thread.run_sync(_take, file.path, self._parts / name)
        except OSError as error:
            failure = classified(self._parts / name, error, _HINT)
            if isinstance(failure, TransientError):
                raise failure from error
            raise RejectedError(str(error)) from error
        await write_at(self._parts / f"{name}.json", 0, _line(message), hint=_HINT)

    async def end(self, about: About, time: int, error: str | None) -> bool:
        """
        Make the archive; tell whether there was anything to put into it.

        Called again after a failure, it begins again; called after success, it does nothing.
        """
        described = {
            "offline_id": about.key,
            "project_name": about.project_name,
            "workspace": about.workspace,
            "start_time": about.start,
            "stop_time": time,
            "tags": about.tags,
            "resume_strategy": about.strategy,
            "customer_error_reported": error is not None,
            "customer_error_message": error,
            "user_provided_experiment_key": about.chosen,
            "comet_start_sourced": True,
        }
        if not await aiofiles.os.path.isdir(self._parts):
            return False
        try:
            await anyio.to_thread.run_sync(self._pack, msgspec.json.encode(described))
        except OSError as failure:
            raise classified(self.path, failure, _HINT) from failure
        return True

    async def _append(self, messages: list[dict[str, Any]]) -> None:
        data = b"".join(map(_line, messages))
        try:
            await write_at(self._parts / _MESSAGES, self.written, data, hint=_HINT)
        except ShortFileError:
            # After the archive was made, and before that was noted, the end comes once more.
            if not await aiofiles.os.path.exists(self.path):
                raise AccessError(
                    f"{self._parts} has been cut or removed, with messages that are nowhere else"
                ) from None
        self.written += len(data)

    def _pack(self, described: bytes) -> None:
        shutil.rmtree(self._parts.with_suffix(".packed"), ignore_errors=True)
        unfinished = self.path.with_suffix(".zip.new")
        assets = sorted(path for path in self._parts.glob("*.json") if path.name != _MESSAGES)
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("experiment.json", described)
            with packed.open(_MESSAGES, "w", force_zip64=True) as messages:
                for part in (self._parts / _MESSAGES, *assets):
                    if part.exists():
                        with part.open("rb") as file:
                            shutil.copyfileobj(file, messages)
            for asset in assets:
                packed.write(asset.with_suffix(""), asset.stem, zipfile.ZIP_STORED)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(self.path)
        # At once, or a crash would leave half of them, to be packed again.
        shutil.rmtree(self._parts.rename(self._parts.with_suffix(".packed")))


def _take(source: Path, target: Path) -> None:
    """Link a file, or copy it from another file system."""
    source = source.resolve(strict=True)  # or a link to nowhere would be linked
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def _metric(value: Metric) -> dict[str, Any]:
    metric = msgspec.to_builtins(value)
    told = {"context": metric.pop("context"), "local_timestamp": metric.pop("timestamp")}
    return {"type": "metric_msg", "payload": {**told, "metric": metric}}


def _parameter(value: Parameter) -> dict[str, Any]:
    # A list has a name of its own in the schema, which takes no list for a single parameter.
    kind = "params" if isinstance(value.parameter_value, list) else "param"
    told = {
        "paramName": value.parameter_name,
        "paramValue": value.parameter_value,
        "step": value.step,
        "source": value.source,
    }
    payload = {"context": value.part, "local_timestamp": value.timestamp, kind: told}
    return {"type": "parameter_msg", "payload": payload}


def _note(note: Note) -> dict[str, Any]:
    payload = {_RENAMED.get(name, name): value for name, value in note.fields.items()}
    if note.endpoint == "system-details":
        payload = {"env": None, **dict.fromkeys(_DETAILS, ""), **payload}
    return {"type": _TYPES[note.endpoint], "payload": payload}
