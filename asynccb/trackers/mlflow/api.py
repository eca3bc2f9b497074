"""
What a run needs of MLflow, and the REST protocol 2.0 that provides it, over one `Client`.

Facts are from MLflow 3.17. Promises: a repeated call has the same result as one call, so every call
may be repeated after a `TransientError`. This module knows nothing of callbacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb.delivery.client import Client
from asynccb.trackers.mlflow.files import find_store
from asynccb.trackers.shared.answers import shaped

_WHO: Final = "an MLflow server"
API: Final = "api/2.0/mlflow"
RUN_KEY_TAG: Final = "asynccb.run_key"
"""Tag that identifies our run: the server chooses the run id, and its answer may be lost."""

RunState: TypeAlias = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Point(msgspec.Struct, frozen=True, gc=False):
    """A value of a metric; `timestamp` is in ms and an integer, else the server stores 0."""

    key: str
    value: float | str
    timestamp: int
    step: int


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A parameter or a tag; the value is a text, else the server drops the rest of the request."""

    key: str
    value: str


class RunInfo(msgspec.Struct, frozen=True):
    """A run as the server describes it."""

    run_id: str
    experiment_id: str
    artifact_uri: str = ""
    lifecycle_stage: str = "active"


class _Run(msgspec.Struct):
    info: RunInfo


class _RunAnswer(msgspec.Struct):
    run: _Run


class _SearchAnswer(msgspec.Struct):
    runs: list[_Run] = []


class _Experiment(msgspec.Struct):
    experiment_id: str
    lifecycle_stage: str = "active"


class _ExperimentAnswer(msgspec.Struct):
    experiment: _Experiment


Entity: TypeAlias = Point | Pair
Kind: TypeAlias = Literal["metrics", "params", "tags"]
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The limits of one request and of one run in MLflow 3.17; a host may have others."""

    metrics: int = 1000
    pairs: int = 100
    size: int = 900_000
    """Bytes of a request; 1 MB is documented, and enforced by Databricks."""
    params: int | None = None
    """Parameters of a run; None if their number is not limited."""


class MLflowApi(Protocol):
    """
    A place that keeps runs: a server, or a store on this machine (`MLflowStore`).

    Besides `TransientError`, calls raise `AccessError` if the tracker cannot continue: the place,
    run or experiment does not exist, or was deleted.
    """

    async def experiment(self, name: str) -> str:
        """Return the id of the experiment with that name; create the experiment if necessary."""

    async def run_with_key(
        self,
        key: str,
        experiment_id: str,
        *,
        start_time: int,
        name: str | None,
        tags: Mapping[str, str],
    ) -> RunInfo:
        """
        Return the run tagged with the key; create the run if necessary.

        `start_time` is in milliseconds.
        """

    async def run(self, run_id: str) -> RunInfo:
        """Return the run with that id; raise `AccessError` if it is missing or was deleted."""

    async def update(self, run_id: str, state: RunState, end_time: int | None = None) -> None:
        """Set the state of a run, and its end in ms; an ended run still accepts metrics."""

    async def log(self, run_id: str, kind: Kind, entities: Sequence[Entity]) -> None:
        """
        Store points, parameters or tags, at most as many as `Limits` allows.

        Raises `RejectedError` if one of them is refused. A parameter is written once: if it already
        has a different value, the whole request is refused. Sending an entity again stores nothing.
        """

    async def store_file(self, run: RunInfo, file: Path, target: str) -> None:
        """Store one file below the run's artifacts, overwriting an existing one."""

    async def close(self) -> None:
        """Let go of the place."""


class MLflowServer:
    """A client of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def experiment(self, name: str) -> str:
        """Return the id of the experiment with that name; create the experiment if necessary."""
        found = await self._find_experiment(name) or await self._create_experiment(name)
        check_experiment(name, found.experiment_id, found.lifecycle_stage)
        return found.experiment_id

    async def _find_experiment(self, name: str) -> _Experiment | None:
        query = {"experiment_name": name}
        try:
            answer = await self._client.get(f"{API}/experiments/get-by-name", query)
        except RejectedError as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise AccessError(
                f"the server did not answer like an MLflow server: {error}"
            ) from error
        return shaped(answer, _ExperimentAnswer, _WHO).experiment

    async def _create_experiment(self, name: str) -> _Experiment:
        try:
            answer = await self._client.post(f"{API}/experiments/create", {"name": name})
        except RejectedError as error:
            # Someone else, or an earlier request whose answer was lost, has created it meanwhile.
            exists = error.code == "RESOURCE_ALREADY_EXISTS"
            found = await self._find_experiment(name) if exists else None
            if found is None:
                raise AccessError(f"the experiment cannot be created: {error}") from error
            return found
        return shaped(answer, _Experiment, _WHO)

    async def run_with_key(
        self,
        key: str,
        experiment_id: str,
        *,
        start_time: int,
        name: str | None,
        tags: Mapping[str, str],
    ) -> RunInfo:
        """
        Return the run tagged with the key; create the run if necessary.

        Each request to create a run would create another one, so always search for the run first.
        """
        query = {
            "experiment_ids": [experiment_id],
            "filter": with_key(key),
            "max_results": 1,
        }
        found = shaped(await self._demand("runs/search", query), _SearchAnswer, _WHO).runs
        if found:
            return found[0].info
        request = {
            "experiment_id": experiment_id,
            "start_time": start_time,
            "tags": pairs({RUN_KEY_TAG: key, **tags}),
            **({"run_name": name} if name else {}),
        }
        return shaped(await self._demand("runs/create", request), _RunAnswer, _WHO).run.info

    async def run(self, run_id: str) -> RunInfo:
        """Return the run with that id; raise `AccessError` if it is missing or was deleted."""
        try:
            answer = await self._client.get(f"{API}/runs/get", {"run_id": run_id})
        except RejectedError as error:
            raise AccessError(f"the MLflow run {run_id} cannot be continued: {error}") from error
        info = shaped(answer, _RunAnswer, _WHO).run.info
        check_run(info)
        return info

    async def update(self, run_id: str, state: RunState, end_time: int | None = None) -> None:
        """Set the state of a run, and its end in ms; an ended run still accepts metrics."""
        end = {} if end_time is None else {"end_time": end_time}
        await self._demand("runs/update", {"run_id": run_id, "status": state, **end})

    async def log(self, run_id: str, kind: Kind, entities: Sequence[Entity]) -> None:
        """
        Store points, parameters or tags.

        If one of them is refused, none is stored. Sending a point again stores nothing, since in
        SQL stores run, key, timestamp, step and value make the primary key.
        """
        await self._client.post(f"{API}/runs/log-batch", {"run_id": run_id, kind: entities})

    async def store_file(self, run: RunInfo, file: Path, target: str) -> None:
        """Store one file, through the server's proxy or on a shared disk."""
        await find_store(self._client, run.artifact_uri).put(file, target)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _demand(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post a request that the tracker cannot do without: a refusal becomes an `AccessError`."""
        try:
            return await self._client.post(f"{API}/{path}", body)
        except RejectedError as error:
            raise AccessError(str(error)) from error


def pairs(values: Mapping[str, str]) -> list[Pair]:
    """Return a mapping in the server's form of parameters and tags."""
    return [Pair(key, value) for key, value in values.items()]


def with_key(key: str) -> str:
    """Return the filter of a search for the run tagged with a key."""
    return f"tags.`{RUN_KEY_TAG}` = '{key}'"


def check_experiment(name: str, experiment_id: str, stage: str) -> None:
    """Raise `AccessError`, with the remedy, if an experiment was deleted."""
    if stage != "active":
        raise AccessError(
            f"the MLflow experiment {name!r} is deleted but still owns its name: restore it with "
            f"`mlflow experiments restore --experiment-id {experiment_id}`, or choose another name"
        )


def check_run(info: RunInfo) -> None:
    """Raise `AccessError`, with the remedy, if a run was deleted."""
    if info.lifecycle_stage != "active":
        raise AccessError(
            f"the MLflow run {info.run_id} was deleted: restore it with "
            f"`mlflow runs restore --run-id {info.run_id}`, then deliver the stored events"
        )
