"""
DVCLive's directory: whose it is, what is in it when a run begins, and its files beside the tables.

A run that begins clears the directory, or goes on in it. What it has found there it writes into
`.asynccb` before its first row, so that a crash between rows and cursor changes nothing: whoever
delivers the run again begins at the same places. A run whose directory another one has taken over
writes there no more. Promises: files beside the tables are there whole, old or new, never torn.
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
    """Say which run a directory belongs to, and where that began."""

    key: str
    training: str
    name: str
    """Of the experiment."""
    base: int
    """What is added to each step."""
    tables: dict[str, list[Any]]


class DVCLiveFolder:
    """Write the files of one run; what belongs together is done in one go, on a thread."""

    def __init__(self, settings: DVCLiveSettings) -> None:
        self._settings = settings
        self._directory = Path(settings.dir)
        self.tables = Tables(settings.dir)
        self.summary: dict[str, Any] = {}
        """The last value of each metric, NaN and infinity as the texts that DVCLive writes."""
        self.artifacts: dict[str, dict[str, str]] = {}
        """What `dvc.yaml` says of models, by name; paths are absolute."""
        self.base = 0
        """What is added to each step: where an earlier run's steps ended."""
        self.complaint = ""
        """Why `dvc.yaml` lacks what it should have; empty where it does not."""
        self._stale = True  # whether dvc.yaml may lack something
        self._params: Mapping[str, Any] | None = None

    @property
    def metrics_file(self) -> Path:
        """Where the last values are."""
        return self._directory / "metrics.json"

    @property
    def params_file(self) -> Path:
        """Where the parameters are."""
        return self._directory / "params.yaml"

    async def open(self, key: str, training: str, step: int, name: str, *, goes_on: bool) -> Mark:
        """
        Take the directory over for a run, at the step at which that begins, and say how it begins.

        With `goes_on`, or where it is the run's already, a training is resumed: what lies behind
        the tables' ends, as far as they are known, and is later than the step, comes again. Raises
        as `classified` does.
        """

        def begin() -> Mark:
            mark = self._mark()
            if mark is not None and (mark.key, mark.training) == (key, training):
                self.tables.restore(mark.tables)
                self.base = mark.base
                self.summary = {**flat(self.latest()), **self.summary}
                return mark
            if mark is not None and mark.key == key and not goes_on:
                self.base = mark.base  # a resumed training that nothing else tells of the first one
            self._prepare(step, goes_on=goes_on or (mark is not None and mark.key == key))
            mark = Mark(key, training, name, self.base, self.tables.attributes())
            replace(self._directory / _MARK, msgspec.json.encode(mark))
            return mark

        return await self._done(begin)

    def add(self, step: int, milliseconds: int, metrics: Mapping[str, Any]) -> None:
        """Gather what was logged at a step; the directory must be open."""
        for name, value in metrics.items():
            self.tables.add(name, step, milliseconds, value)
            finite = isinstance(value, str | int) or math.isfinite(value)
            self.summary[name] = value if finite else str(value)
        self.summary.pop("step", None)  # the last one, as in a Live's
        self.summary["step"] = step

    async def write(self, params: Mapping[str, Any] | None, key: str) -> None:
        """Write the tables, and then what sums them up; raises as `classified` does."""
        mark = await to_thread.run_sync(self._mark)
        if mark is not None and mark.key != key:
            raise AccessError(
                f"{self._directory} belongs to a later run now; give runs that overlap directories "
                "of their own as dir"
            )
        await self.tables.flush()
        await self._done(lambda: self._sum_up(params))

    async def add_artifacts(self, names: Iterable[str]) -> None:
        """Tell `dvc.yaml` of the models that DVC tracks in the directory."""
        for name in names:
            path = self.artifact(name)
            if path.with_name(f"{path.name}.dvc").exists():
                self.artifacts[name] = {"path": str(path), "type": "model"}
        if self.artifacts and self._settings.dvcyaml is not None:
            await self._done(lambda: self._add_to_dvcyaml(Path(self._settings.dvcyaml or "")))

    def artifact(self, name: str) -> Path:
        """Return where a model, or all of the output, is kept."""
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
        """Clear the directory, or find what is to be gone on with."""
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
        """Remove what an earlier run has left, as `Live()` does."""
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
        """Return the last values that the directory has."""
        try:
            return json.loads(self.metrics_file.read_bytes())
        except (FileNotFoundError, ValueError):  # or torn: a Live does not write it in one go
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
            self.complaint = "it is there already: to add to it, install ruamel.yaml"
        except ValueError as error:
            self.complaint = f"it cannot be read: {error}"
        else:
            self.complaint = ""
            self._stale = False
            if written != found:
                replace(file, written.encode())


def replace(file: Path, data: bytes) -> None:
    """Write a file anew and rename it into place, synced first; it keeps the usual permissions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    with open(new, "wb") as written:
        written.write(data)
        written.flush()
        os.fsync(written.fileno())
    new.replace(file)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by folders; one whose name is a folder's too has a slash behind it."""
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
    """Return nested values by their whole names."""
    found: dict[str, Any] = {}
    if isinstance(values, dict):
        for name, value in values.items():
            whole = prefix + name.removesuffix("/")
            found |= flat(value, f"{whole}/") if isinstance(value, dict) else {whole: value}
    return found
