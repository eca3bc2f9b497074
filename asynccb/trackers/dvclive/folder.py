"""
Prepare DVCLive's directory for a run, track its owner, and write the files beside the tables.

A run that begins either clears the directory or continues in it. Before its first row, the run
writes the state that it has found into `.asynccb`. After a crash between rows and cursor, the next
delivery of the run therefore begins at the same offsets. If another run has taken over the
directory, the first run stops writing there. Promises: a file beside the tables is always whole,
either old or new, never torn.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from anyio import to_thread

from asynccb._ground.exceptions import AccessError
from asynccb.trackers.dvclive.settings import DVCLiveSettings, relative
from asynccb.trackers.dvclive.tables import FOLDER, HINT, Tables
from asynccb.trackers.dvclive.yaml_files import ForeignFileError, dump, with_entries
from asynccb.trackers.shared.offset_file import classified

T = TypeVar("T")

_MARK: Final = ".asynccb"
_PLOTS: Final = ("metrics", "images", "custom", "sklearn")
_FILES: Final = ("metrics.json", "params.yaml", "report.html", "report.md", "dvc.yaml")


class Mark(msgspec.Struct, frozen=True):
    """The run that owns a directory, and the state in which the run began."""

    key: str
    training: str
    name: str
    """Name of the experiment."""
    base: int
    """Number added to each step."""
    tables: dict[str, list[Any]]


class DVCLiveFolder:
    """The files of one run; related writes are done together, on a thread."""

    def __init__(self, settings: DVCLiveSettings) -> None:
        self._settings = settings
        self._directory = Path(settings.dir)
        self.tables = Tables(settings.dir)
        self.summary: dict[str, Any] = {}
        """The last value of each metric; NaN and infinity are texts, as DVCLive writes them."""
        self.artifacts: dict[str, dict[str, str]] = {}
        """Entries of `dvc.yaml` for models, by name; paths are absolute."""
        self.base = 0
        """Number added to each step: the last step of an earlier run."""
        self.complaint = ""
        """Why `dvc.yaml` is incomplete; empty if it is complete."""
        self._stale = True  # whether dvc.yaml may lack something
        self._params: Mapping[str, Any] | None = None

    @property
    def metrics_file(self) -> Path:
        """Path of the file with the last values."""
        return self._directory / "metrics.json"

    @property
    def params_file(self) -> Path:
        """Path of the file with the parameters."""
        return self._directory / "params.yaml"

    async def open(self, key: str, training: str, step: int, name: str, *, goes_on: bool) -> Mark:
        """
        Take over the directory for a run that begins at `step`, and return its mark.

        With `goes_on`, or if the directory already belongs to the run, a training is resumed. Rows
        of later steps that are not acknowledged are then removed, since they will be logged again.
        Raises errors as `classified` does.
        """

        def begin() -> Mark:
            mark = self._mark()
            if mark is not None and (mark.key, mark.training) == (key, training):
                self.tables.restore(mark.tables)
                self.base = mark.base
                self.summary = {**flat(self.latest()), **self.summary}
                return mark
            if mark is not None and mark.key == key and not goes_on:
                self.base = mark.base  # a resumed training learns this only from the mark
            self._prepare(step, goes_on=goes_on or (mark is not None and mark.key == key))
            mark = Mark(key, training, name, self.base, self.tables.attributes())
            replace(self._directory / _MARK, msgspec.json.encode(mark))
            return mark

        return await self._done(begin)

    def add(self, step: int, milliseconds: int, metrics: Mapping[str, Any]) -> None:
        """Gather the values that were logged at a step; the directory must be open."""
        for name, value in metrics.items():
            self.tables.add(name, step, milliseconds, value)
            finite = isinstance(value, str | int) or math.isfinite(value)
            self.summary[name] = value if finite else str(value)
        self.summary.pop("step", None)  # last in the file, as a Live writes it
        self.summary["step"] = step

    async def write(self, params: Mapping[str, Any] | None, key: str) -> None:
        """Write the tables and then the summary files; raise errors as `classified` does."""
        mark = await to_thread.run_sync(self._mark)
        if mark is not None and mark.key != key:
            raise AccessError(
                f"{self._directory} belongs to a later run now; set dir to a different directory "
                "for each of the overlapping runs"
            )
        await self.tables.flush()
        await self._done(lambda: self._sum_up(params))

    async def add_artifacts(self, names: Iterable[str]) -> None:
        """Add the models that DVC tracks in the directory to `dvc.yaml`."""
        for name in names:
            path = self.artifact(name)
            if path.with_name(f"{path.name}.dvc").exists():
                self.artifacts[name] = {"path": str(path), "type": "model"}
        if self.artifacts and self._settings.dvcyaml is not None:
            await self._done(lambda: self._add_to_dvcyaml(Path(self._settings.dvcyaml or "")))

    def artifact(self, name: str) -> Path:
        """Return the path where a model, or the whole output, is stored."""
        return self._directory / "artifacts" / name

    async def _done(self, call: Callable[[], T]) -> T:
        try:
            return await to_thread.run_sync(call)
        except OSError as error:
            raise classified(Path(error.filename or self._directory), error, HINT) from error

    # -- the beginning -----------------------------------------------------------------------------

    def _mark(self) -> Mark | None:
        try:
            return msgspec.json.decode((self._directory / _MARK).read_bytes(), type=Mark)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def _prepare(self, step: int, *, goes_on: bool) -> None:
        """Clear the directory, or read the state to continue from."""
        self._directory.mkdir(parents=True, exist_ok=True)
        resumes = self._settings.resume
        if not goes_on and not resumes and not self._settings.keeps:
            self._clear()
            return
        self.summary = {**flat(self.latest()), **self.summary}
        if goes_on:
            self.tables.drop_after(step + self.base)
            return
        if resumes and step:
            self.tables.drop_after(step)
            return
        self.tables.known = self.tables.find()
        if resumes:
            told = self.summary.get("step", 0)
            self.base = max(self.tables.last_step(), told if isinstance(told, int) else 0)

    def _clear(self) -> None:
        """Remove the files of an earlier run, as `Live()` does."""
        for plots in _PLOTS:
            shutil.rmtree(self._directory / "plots" / plots, ignore_errors=True)
        for file in _FILES:
            (self._directory / file).unlink(missing_ok=True)

    # -- the summary -------------------------------------------------------------------------------

    def _sum_up(self, params: Mapping[str, Any] | None) -> None:
        values = self.summary
        if self._settings.keeps:  # the Live writes the same file
            values = {**flat(self.latest()), **values}
        replace(self.metrics_file, f"{json.dumps(nested(values), indent=4)}\n".encode())
        if params is not None and params != self._params:
            replace(self.params_file, dump(params).encode())
            self._params = params
            self._stale = True
        if self._settings.dvcyaml is not None and self._stale:
            self._add_to_dvcyaml(Path(self._settings.dvcyaml))

    def latest(self) -> Any:
        """Return the last values that are stored in the directory."""
        try:
            return json.loads(self.metrics_file.read_bytes())
        except (FileNotFoundError, ValueError):  # or torn: a Live does not write it atomically
            return {}

    def _add_to_dvcyaml(self, file: Path) -> None:
        root = str(file.parent)
        artifacts = {
            name: {**about, "path": relative(about["path"], root)}
            for name, about in self.artifacts.items()
        }
        try:
            found: str | None = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            found = None
        try:
            written = with_entries(
                found,
                [relative(self.params_file, root)] if self.params_file.exists() else [],
                [relative(self.metrics_file, root)],
                [relative(self._directory / FOLDER, root)],
                artifacts,
            )
        except ForeignFileError:
            self.complaint = "the file exists already: to add to it, install ruamel.yaml"
        except ValueError as error:
            self.complaint = f"the file cannot be read: {error}"
        else:
            self.complaint = ""
            self._stale = False
            if written != found:
                replace(file, written.encode())


def replace(file: Path, data: bytes) -> None:
    """Write a new file, sync it, and rename it to `file`, with the usual permissions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with open(new, "wb") as written:
        written.write(data)
        written.flush()
        os.fsync(written.fileno())
    new.replace(file)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values nested by folders; if a name is also a folder's, append a slash to it."""
    folders = {
        "/".join(parts[:end])
        for parts in (name.split("/") for name in values)
        for end in range(1, len(parts))
    }
    root: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split("/")
        place = root
        for part in path:
            place = place.setdefault(part, {})
        place[f"{last}/" if name in folders else last] = value
    return root


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested values by their full names."""
    found: dict[str, Any] = {}
    if isinstance(values, dict):
        for name, value in values.items():
            whole = prefix + name.removesuffix("/")
            found |= flat(value, f"{whole}/") if isinstance(value, dict) else {whole: value}
    return found
