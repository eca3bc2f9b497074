"""
MLflow's own store on this machine, a SQLite database or a folder, written by MLflow's own client.

Facts are from MLflow 3.17. Promises: the same as `MLflowServer`. The package is imported when a
store is opened, in a worker thread, and every call runs in one; the event loop never waits. Calls
that write run one at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from asynccb._ground.exceptions import AccessError, FaultError, RejectedError, TransientError
from asynccb.trackers.mlflow.address import ALLOW_FOLDERS, is_folder
from asynccb.trackers.mlflow.api import (
    RUN_KEY_TAG,
    Entity,
    Kind,
    Point,
    RunInfo,
    RunState,
    check_experiment,
    check_run,
    with_key,
)
from asynccb.trackers.mlflow.appended import AppendedPoints
from asynccb.trackers.mlflow.opening import excerpt, naming_failures, open_database

T = TypeVar("T")


class MLflowStore:
    """One open store."""

    def __init__(self, address: str, folder: str) -> None:
        """
        Open the store, and create it if it is missing. Takes seconds, so call it in a thread.

        `folder` is the working directory of the training. Raises `AccessError` if the store cannot
        be used, and `TransientError` while another process creates it.
        """
        # The package starts a thread that reports the use of MLflow to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if is_folder(address):  # allowed where the tracker was made, perhaps in another process
            os.environ.setdefault(ALLOW_FOLDERS, "true")
        try:
            import mlflow
        except ImportError as error:
            raise AccessError(
                f"{address} is written with MLflow's package, which is missing here ({error}): run "
                "`pip install 'asynccb[mlflow]'`"
            ) from error
        with naming_failures(address):
            self._maker: Any = None if is_folder(address) else open_database(address, folder)
            self._client: Any = mlflow.MlflowClient(tracking_uri=address)
        self._appended = None
        if is_folder(address):
            self._appended = AppendedPoints(self._client.get_metric_history)

    async def experiment(self, name: str) -> str:
        """Return the id of the experiment with that name; create the experiment if necessary."""
        return await self._demand(self._experiment, name)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            with contextlib.suppress(RejectedError), _errors():  # someone else may be faster
                (self._maker or self._client).create_experiment(name)
            found = self._client.get_experiment_by_name(name)
        if found is None:
            raise AccessError(f"the MLflow experiment {name!r} cannot be created")
        check_experiment(name, found.experiment_id, found.lifecycle_stage)
        return str(found.experiment_id)

    async def run_with_key(
        self,
        key: str,
        experiment_id: str,
        *,
        start_time: int,
        name: str | None,
        tags: Mapping[str, str],
    ) -> RunInfo:
        """Return the run tagged with the key; create the run if necessary."""

        def find() -> RunInfo:
            found = self._client.search_runs([experiment_id], with_key(key), max_results=1)
            if found:
                return _info(found[0])
            # The key first: a folder has the tags written one by one.
            wanted = {RUN_KEY_TAG: key, **tags}
            return _info(self._client.create_run(experiment_id, start_time, wanted, name))

        return await self._demand(find)

    async def run(self, run_id: str) -> RunInfo:
        """Return the run with that id; raise `AccessError` if it is missing or was deleted."""
        try:
            info = _info(await self._call(self._client.get_run, run_id))
        except RejectedError as error:
            raise AccessError(f"the MLflow run {run_id} cannot be continued: {error}") from error
        check_run(info)
        return info

    async def update(self, run_id: str, state: RunState, end_time: int | None = None) -> None:
        """Set the state of a run, and its end in ms; an ended run still accepts metrics."""
        if end_time is None:
            await self._demand(self._client.update_run, run_id, state)
        else:
            await self._demand(self._client.set_terminated, run_id, state, end_time)

    async def log(self, run_id: str, kind: Kind, entities: Sequence[Entity]) -> None:
        """
        Store points, parameters or tags.

        A database stores a point once, since run, key, timestamp, step and value make the primary
        key. A folder appends each, so the points that it has are left out here.
        """
        await self._call(self._log, run_id, kind, entities)

    def _log(self, run_id: str, kind: Kind, entities: Sequence[Entity]) -> None:
        if kind == "metrics" and self._appended is not None:
            with self._appended.only_new(run_id, entities) as new:
                self._send(run_id, kind, new)
        else:
            self._send(run_id, kind, entities)

    def _send(self, run_id: str, kind: Kind, entities: Sequence[Entity]) -> None:
        batch = {kind: [_entity(kind, entity) for entity in entities]}
        self._client.log_batch(run_id, **batch, synchronous=True)

    async def store_file(self, run: RunInfo, file: Path, target: str) -> None:
        """Store one file; raise OSError if it cannot be read or written."""
        folder = PurePosixPath(target).parent
        assert PurePosixPath(target).name == file.name  # MLflow has no other way to name it

        def copy() -> None:
            with _errors():
                self._client.log_artifact(run.run_id, str(file), str(folder))

        # Beside the calls that write to the store: a large file would hold them up.
        await anyio.to_thread.run_sync(copy, abandon_on_cancel=True)

    async def close(self) -> None:
        """Do nothing: MLflow keeps its stores open for the life of the process."""

    async def _demand(self, call: Callable[..., T], *arguments: Any) -> T:
        """Make a call that the tracker cannot do without: a refusal becomes an `AccessError`."""
        try:
            return await self._call(call, *arguments)
        except RejectedError as error:
            raise AccessError(str(error)) from error

    async def _call(self, call: Callable[..., T], *arguments: Any) -> T:
        def run() -> T:
            with _errors():
                return call(*arguments)

        # A database that others have locked holds a call for 20 s, which no close waits for.
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._one)

    @cached_property
    def _one(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(1)


def _info(run: Any) -> RunInfo:
    info = run.info
    return RunInfo(info.run_id, info.experiment_id, info.artifact_uri, info.lifecycle_stage)


def _entity(kind: Kind, entity: Entity) -> Any:
    from mlflow.entities import Metric, Param, RunTag

    if isinstance(entity, Point):
        return Metric(entity.key, float(entity.value), entity.timestamp, entity.step)
    return (Param if kind == "params" else RunTag)(entity.key, entity.value)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn MLflow's errors into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise _translated(error) from error


def _translated(error: Any) -> TransientError | RejectedError:
    # A folder's errors come wrapped as INTERNAL_ERROR, whatever they are.
    origin = error.__context__ if isinstance(error.__context__, type(error)) else error
    status, code, why = origin.get_http_status_code(), origin.error_code, excerpt(origin)
    if status == 503:  # a locked database
        return TransientError(why, cause=code)
    if status >= 500:
        return FaultError(why, status=status, code=code)
    return RejectedError(why, status=status, code=code)
