"""
ClearML's API, version 2.23: projects, tasks, events and models, over one `Client`.

Facts are from `clearml` 2.1 and server 2.0. Promises: every call may be repeated after a
`TransientError`, with the same result as one call. This module knows nothing of callbacks.
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
"""Must be exactly this: with a character set appended, the server reads one JSON value."""
_TASK_FIELDS: Final = ["id", "name", "project", "status", "status_message"]
_MODEL_FIELDS: Final = ["id", "name", "uri"]
_UNRESPONSIVE: Final = "forced stop (non-responsive)"
"""Status message of a task that the server has stopped after two hours without a ping."""


class TaskInfo(msgspec.Struct, frozen=True):
    """A task as the server describes it."""

    id: str
    name: str = ""
    project: str | None = None
    status: str = ""
    status_message: str | None = None
    hyperparams: dict[str, dict[str, Any]] | None = None
    """Hyper-parameters by section and name; None unless they were requested."""

    @property
    def is_begun(self) -> bool:
        """Whether the task is running."""
        return self.status == "in_progress"

    @property
    def is_abandoned(self) -> bool:
        """Whether the server itself has stopped the task, because pings stopped arriving."""
        return self.status == "stopped" and self._message == _UNRESPONSIVE

    @property
    def is_open(self) -> bool:
        """Whether the task runs, or was only stopped by the server itself."""
        return self.is_begun or self.is_abandoned

    @property
    def wants_stop(self) -> bool:
        """Whether the training must stop: the task was ended or reset, or its page asks for it."""
        return not self.is_open or (self.is_begun and "stopping" in self._message)

    @property
    def _message(self) -> str:
        return (self.status_message or "").strip().lower()


class ModelInfo(msgspec.Struct, frozen=True):
    """A model as the server describes it."""

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
    """Return an error's code and message; None if the answer is not from a ClearML server."""
    try:
        meta = msgspec.json.decode(content, type=_Envelope).meta
    except NO_JSON:
        return None
    code = f"{meta.result_code}/{meta.result_subcode}"
    return code, f"{meta.result_msg} ({code})"


class Ending(NamedTuple):
    """The action that ends a task, and the reason."""

    action: str
    reason: str


class ClearMLServer:
    """
    A client of one API server.

    If the server refuses a call that the tracker cannot do without, it raises `AccessError`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the `data` of an action's answer."""
        return _data(await self._client.post(f"{_VERSION}/{action}", body), action)

    # -- the task ----------------------------------------------------------------------------------

    async def project(self, name: str) -> str:
        """Return the id of the project with that name; create the project if necessary."""
        found = await self._project(name)
        if found is not None:
            return found
        try:
            data = await self.call("projects.create", {"name": name, "description": ""})
            return _shaped(data, _Id).id
        except RejectedError as error:  # somebody may have created it meanwhile
            found = await self._project(name)
            if found is None:
                raise AccessError(f"the ClearML project cannot be created: {error}") from error
            return found

    async def task(self, task: str, *, hyperparams: bool = False) -> TaskInfo | None:
        """Return a task, or None if it does not exist."""
        found = await self._tasks({"id": [task]}, ["hyperparams"] if hyperparams else [])
        return found[0] if found else None

    async def find_task(self, project: str, name: str, comment: str) -> TaskInfo | None:
        """Return the project's task with that name whose comment contains `comment`."""
        condition = {
            "project": [project],
            "name": f"^{re.escape(name)}$",
            "_any_": {"pattern": re.escape(comment), "fields": ["comment"]},
        }
        found = await self._tasks(condition, [])
        return found[0] if found else None

    async def create_task(self, fields: Mapping[str, Any]) -> str:
        """Create a task and return its id."""
        return _shaped(await self._demand("tasks.create", fields), _Id).id

    async def start_task(self, task: str) -> None:
        """Mark a task as running, whatever its status was."""
        await self._demand("tasks.started", {"task": task, "force": True})

    async def end_task(self, task: str, ending: Ending) -> None:
        """End a task."""
        body = {"task": task, "force": True, "status_reason": ending.reason}
        await self._demand(ending.action, body)

    async def ping(self, task: str) -> None:
        """Report that a task is alive."""
        await self.call("tasks.ping", {"task": task})

    # -- events ------------------------------------------------------------------------------------

    async def add_events(self, lines: Sequence[bytes]) -> None:
        """Store events, each a line of JSON; raise `RejectedError` unless all are accepted."""
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
        """Create a model and return its id."""
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
    """Convert an answer to `shape`; raise `AccessError` if it is not from a ClearML server."""
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise AccessError(
            f"the answer is not from a ClearML API server ({error}): check that CLEARML_API_HOST, "
            "or api.api_server in clearml.conf, is the API server and not the web server"
        ) from error
