"""
The GraphQL side of a W&B server: runs and the addresses of files.

Source: `wandb` 0.31, which sends every operation, variable and field used here. Promises: a
repeated call has the effect of one call, so every call may be made again after a `TransientError`.
Knows nothing of callbacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.client import Client
from asynccb.trackers.shared.answers import shaped

_WHO: Final = "a W&B server"
T = TypeVar("T")

_UPSERT: Final = """\
mutation UpsertBucket($id: String, $name: String, $project: String, $entity: String, \
$groupName: String, $displayName: String, $notes: String, $config: JSONString, $host: String, \
$program: String, $jobType: String, $tags: [String!]) {
  upsertBucket(input: {id: $id, name: $name, groupName: $groupName, modelName: $project, \
entityName: $entity, displayName: $displayName, notes: $notes, config: $config, host: $host, \
jobProgram: $program, jobType: $jobType, tags: $tags}) {
    bucket { id name displayName project { name entity { name } } }
  }
}"""
_RESUME: Final = """\
query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) {
      id summaryMetrics logLineCount historyLineCount eventsLineCount historyTail config
    }
  }
}"""


class RunInfo(msgspec.Struct, frozen=True):
    """The identity of a run on the server."""

    run_id: str
    """The `name` of the protocol."""
    entity: str
    project: str
    name: str = ""
    """The name that the pages show."""


class Known(NamedTuple):
    """The part of a run that the server has already."""

    id: str
    """Storage id."""
    history: int
    events: int
    console: int
    """Lines of each file."""
    config: dict[str, Any]
    summary: dict[str, Any]
    last: dict[str, Any]
    """The last line of the history."""


class _Entity(msgspec.Struct):
    name: str


class _Project(msgspec.Struct):
    name: str
    entity: _Entity


class _Bucket(msgspec.Struct):
    name: str
    project: _Project
    displayName: str | None = None  # noqa: N815 - the protocol's


class _Resumed(msgspec.Struct, rename="camel"):
    id: str
    history_line_count: int | None = 0
    events_line_count: int | None = 0
    log_line_count: int | None = 0
    history_tail: str | None = None
    summary_metrics: str | None = None
    config: str | None = None


class WandbServer:
    """
    Talk to one server.

    A refusal of what nothing can go on without is an `AccessError`; `execute` raises
    `RejectedError`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def execute(self, operation: str, document: str, variables: Mapping[str, Any]) -> Any:
        """Return the `data` of an operation; errors beside it make it a `RejectedError`."""
        body = {"operationName": operation, "query": document, "variables": variables}
        try:
            answer = await self._client.post("graphql", body)
        except RejectedError as error:
            if error.status == 409:  # as the vendor's client has it
                raise TransientError(str(error), cause="409") from error
            raise
        if not isinstance(answer, dict):
            raise AccessError(f"{operation} got no answer of a W&B server: {answer!r:.200}")
        if errors := answer.get("errors"):
            raise RejectedError(f"{operation} was refused: {_messages(errors)}", status=200)
        return answer.get("data") or {}

    async def known(self, project: str, entity: str | None, run_id: str) -> Known | None:
        """Return the part of a run that the server has; None without such a run."""
        names = {"project": project, "entity": entity, "name": run_id}
        data = await self._demand("RunResumeStatus", _RESUME, names)
        model = data.get("model")
        bucket = model.get("bucket") if isinstance(model, dict) else None
        if bucket is None:
            return None
        found = shaped(bucket, _Resumed, _WHO)
        tail = _decoded(found.history_tail, list)
        return Known(
            id=found.id,
            history=found.history_line_count or 0,
            events=found.events_line_count or 0,
            console=found.log_line_count or 0,
            config=_decoded(found.config, dict),
            summary=_decoded(found.summary_metrics, dict),
            last=_decoded(tail[-1], dict) if tail else {},
        )

    async def upsert(self, run_id: str, project: str, **fields: Any) -> RunInfo:
        """Create the run of that id, or update it; a field that is None stays as it is."""
        variables = {"name": run_id, "project": project, **fields}
        data = await self._demand("UpsertBucket", _UPSERT, variables)
        bucket = shaped((data.get("upsertBucket") or {}).get("bucket"), _Bucket, _WHO)
        project_of = bucket.project
        return RunInfo(
            bucket.name, project_of.entity.name, project_of.name, bucket.displayName or bucket.name
        )

    async def _demand(self, operation: str, document: str, variables: Mapping[str, Any]) -> Any:
        try:
            return await self.execute(operation, document, variables)
        except RejectedError as error:
            raise AccessError(f"the W&B run cannot be opened: {error}") from error


def _messages(errors: Any) -> str:
    """Return the texts in a list of errors, whose entries are texts or have a `message`."""
    entries = errors if isinstance(errors, list) else [errors]
    return "; ".join(
        str(entry.get("message", entry) if isinstance(entry, dict) else entry) for entry in entries
    )[:500]


def _decoded(text: str | None, kind: type[T]) -> T:
    """Return a parsed JSON object, in which NaN may stand bare; empty for anything else."""
    try:
        value = json.loads(text or "null")
    except ValueError:
        value = None
    return value if isinstance(value, kind) else kind()
