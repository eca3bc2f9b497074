"""
ClearML's API, version 2.23: projects, tasks, events and models, over one `Client`.

Facts are those of `clearml` 2.1 and of server 2.0. Promises: every call may be made again after a
`TransientError` and leaves what one call leaves. Knows nothing of callbacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError, TransientError
from asynccb.delivery.answers import NO_JSON
from asynccb.delivery.client import Client

T = TypeVar("T")

_VERSION: Final = "v2.23"
_LINES: Final = {"Content-Type": "application/json-lines"}
"""Exactly this: with a character set behind it, the server reads one JSON value."""
_TASK_FIELDS: Final = ["id", "name", "project", "status", "status_message"]
_MODEL_FIELDS: Final = ["id", "name", "uri"]
_UNRESPONSIVE: Final = "forced stop (non-responsive)"
"""What the server writes when it stops a task of which it has heard nothing for two hours."""


class TaskInfo(msgspec.Struct, frozen=True):
    """Hold what the server says of a task."""

    id: str
    name: str = ""
    project: str | None = None
    status: str = ""
    status_message: str | None = None
    hyperparams: dict[str, dict[str, Any]] | None = None
    """By section and name; only where they were asked for."""

    @property
    def is_begun(self) -> bool:
        """Whether it runs."""
        return self.status == "in_progress"

    @property
    def is_abandoned(self) -> bool:
        """Whether the server itself has stopped it, for lack of a sign of life."""
        return self.status == "stopped" and self._message == _UNRESPONSIVE

    @property
    def is_open(self) -> bool:
        """Whether nobody has ended it, or reset it."""
        return self.is_begun or self.is_abandoned

    @property
    def wants_stop(self) -> bool:
        """Whether its training is to stop: somebody has ended it, or the server's pages ask."""
        return not self.is_open or (self.is_begun and "stopping" in self._message)

    @property
    def _message(self) -> str:
        return (self.status_message or "").strip().lower()


class ModelInfo(msgspec.Struct, frozen=True):
    """Hold what the server says of a model."""

    id: str
    name: str = ""
    uri: str = ""


class _Id(msgspec.Struct):
    id: str


class _Added(msgspec.Struct):
    added: int = 0
    errors: int = 0
    errors_info: dict[str, Any] | None = None


class _Meta(msgspec.Struct):
    result_code: int
    result_subcode: int = 0
    result_msg: str = ""


class _Envelope(msgspec.Struct):
    meta: _Meta
    data: dict[str, Any] | None = None


def error_of(content: bytes) -> tuple[str, str] | None:
    """Return code and message of an error, or None where it is none of a ClearML server."""
    try:
        meta = msgspec.json.decode(content, type=_Envelope).meta
    except NO_JSON:
        return None
    code = f"{meta.result_code}/{meta.result_subcode}"
    return code, f"{meta.result_msg} ({code})"


class Ending(NamedTuple):
    """Say how a task is ended: the action, and why."""

    action: str
    reason: str


class ClearMLServer:
    """
    Talk to one API server.

    What nothing can go on without is an `AccessError` where it is refused.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the `data` of an action's answer."""
        return _data(await self._client.post(f"{_VERSION}/{action}", body), action)

    # -- the task ----------------------------------------------------------------------------------

    async def project(self, name: str) -> str:
        """Return the id of the project of that name, which is made where there is none."""
        found = await self._project(name)
        if found is not None:
            return found
        try:
            data = await self.call("projects.create", {"name": name, "description": ""})
            return _shaped(data, _Id).id
        except RejectedError as error:  # somebody may have made it meanwhile
            found = await self._project(name)
            if found is None:
                raise AccessError(f"the ClearML project cannot be made: {error}") from error
            return found

    async def task(self, task: str, *, hyperparams: bool = False) -> TaskInfo | None:
        """Return a task, or None where there is no such task."""
        found = await self._tasks({"id": [task]}, ["hyperparams"] if hyperparams else [])
        return found[0] if found else None

    async def find_task(self, project: str, name: str, comment: str) -> TaskInfo | None:
        """Return the task of a project that has the name, and a text in its comment."""
        condition = {
            "project": [project],
            "name": f"^{re.escape(name)}$",
            "_any_": {"pattern": re.escape(comment), "fields": ["comment"]},
        }
        found = await self._tasks(condition, [])
        return found[0] if found else None

    async def create_task(self, fields: Mapping[str, Any]) -> str:
        """Make a task and return its id."""
        return _shaped(await self._demand("tasks.create", fields), _Id).id

    async def start_task(self, task: str) -> None:
        """Have a task run, whatever it did before."""
        await self._demand("tasks.started", {"task": task, "force": True})

    async def end_task(self, task: str, ending: Ending) -> None:
        """End a task."""
        body = {"task": task, "force": True, "status_reason": ending.reason}
        await self._demand(ending.action, body)

    async def ping(self, task: str) -> None:
        """Tell that a task lives."""
        await self.call("tasks.ping", {"task": task})

    # -- events ------------------------------------------------------------------------------------

    async def add_events(self, lines: Sequence[bytes]) -> None:
        """Store events, each a line of JSON; raises `RejectedError` unless all are taken."""
        reply = await self._client.request(
            "POST", f"{_VERSION}/events.add_batch", content=b"\n".join(lines), headers=_LINES
        )
        added = _shaped(_data(reply.json(), "events.add_batch"), _Added)
        if added.errors:
            raise RejectedError(
                f"ClearML refused {added.errors} of {len(lines)} events: {added.errors_info}",
                status=200,
                code="errors",
            )

    # -- models ------------------------------------------------------------------------------------

    async def models(self, task: str) -> list[ModelInfo]:
        """Return the models of a task."""
        body = {"task": [task], "only_fields": _MODEL_FIELDS}
        data = await self.call("models.get_all", body)
        return _shaped(data.get("models", []), list[ModelInfo])

    async def create_model(self, fields: Mapping[str, Any]) -> str:
        """Make a model and return its id."""
        return _shaped(await self.call("models.create", fields), _Id).id

    async def _project(self, name: str) -> str | None:
        body = {"name": f"^{re.escape(name)}$", "only_fields": ["id"], "search_hidden": True}
        data = await self._demand("projects.get_all", body)
        found = _shaped(data.get("projects", []), list[_Id])
        return found[0].id if found else None

    async def _tasks(self, condition: Mapping[str, Any], more: list[str]) -> list[TaskInfo]:
        body = {**condition, "only_fields": [*_TASK_FIELDS, *more], "search_hidden": True}
        data = await self._demand("tasks.get_all", body)
        return _shaped(data.get("tasks", []), list[TaskInfo])

    async def _demand(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self.call(action, body)
        except RejectedError as error:
            raise AccessError(f"the ClearML task cannot be opened: {error}") from error


def _data(answer: Any, action: str) -> dict[str, Any]:
    envelope = _shaped(answer, _Envelope)
    if envelope.meta.result_code >= 500:
        raise TransientError(f"{action} failed: {envelope.meta.result_msg:.200}")
    if envelope.meta.result_code != 200:
        code = envelope.meta.result_code
        raise RejectedError(f"{action} was refused: {envelope.meta.result_msg:.200}", status=code)
    return envelope.data or {}


def _shaped(answer: Any, shape: type[T]) -> T:
    """Return an answer as a structure; raise `AccessError` where no ClearML server gives it."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise AccessError(
            f"this is no answer of a ClearML API server ({error}): see that CLEARML_API_HOST, or "
            "api.api_server in clearml.conf, is that of the API, and not of the pages"
        ) from error
