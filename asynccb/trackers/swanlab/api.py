"""
The requests of a SwanLab server that a run needs.

Sources: `swanlab` 0.10.3 and its recorded traffic. Promises: each request may be sent again without
an effect. A server's answer is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import msgspec

from asynccb._ground.exceptions import AccessError, RejectedError
from asynccb.delivery.answers import Reply
from asynccb.delivery.client import Client
from asynccb.trackers.shared.answers import shaped
from asynccb.trackers.swanlab.values import SYSTEM, Line, Row

_WHO: Final = "a SwanLab server"
COLUMNS: Final = 3000
"""Columns that one request may declare."""
_JSON: Final = {"Content-Type": "application/json"}
_FLAG: Final = {"flagId": "123456"}
"""The body of every heartbeat of the vendor's client."""

State = Literal["FINISHED", "CRASHED", "ABORTED"]
T = TypeVar("T")


class _Group(msgspec.Struct):
    username: str


class Project(msgspec.Struct):
    """The fields of a project that are used here."""

    cuid: str
    name: str
    group: _Group
    path: str = ""
    version: int | None = None
    """None for a project made before projects had views; its columns are declared differently."""


class Experiment(msgspec.Struct, rename="camel"):
    """The fields of a run that are used here; the server calls a run an experiment."""

    cuid: str
    name: str = ""
    slug: str | None = None
    created_at: str | float | None = None


class Place(msgspec.Struct, frozen=True):
    """A run of a project, for the paths of requests."""

    username: str
    project: str
    project_id: str
    experiment_id: str
    has_views: bool
    path: str
    """Path of the run's page below the address of pages."""


class _Step(msgspec.Struct):
    key: str = ""
    step: int = 0


class Summary(msgspec.Struct):
    """The last steps of a run's columns and console."""

    log: list[_Step] | None = None
    scalar: list[_Step] | None = None
    media: list[_Step] | None = None

    @property
    def keys(self) -> set[str]:
        """The names of columns that have data."""
        return {one.key for one in [*(self.scalar or ()), *(self.media or ())]}

    @property
    def samples(self) -> int:
        """Samples of the machine so far: their steps count from 0."""
        steps = [one.step for one in self.scalar or () if one.key.startswith(SYSTEM)]
        return max(steps, default=-1) + 1

    @property
    def lines(self) -> int:
        """Lines of the console so far."""
        return max((line.step for line in self.log or ()), default=0)


class SwanLabServer:
    """Send requests in a session."""

    def __init__(self, client: Client) -> None:
        """Take a client whose base ends in `/api`."""
        self.client = client

    async def project(self, username: str, name: str, *, public: bool) -> Project:
        """Find a project, or make it; raises `AccessError` where neither can be."""
        path = f"project/{_names(username, name)}"
        found = await self._found(path)
        if found is None:
            await self._make_project(username, name, "PUBLIC" if public else "PRIVATE")
            found = await self._found(path)
        if found is None:
            raise AccessError(
                f"SwanLab makes no project {name} for {username}: see SWANLAB_PROJECT and "
                "SWANLAB_WORKSPACE"
            )
        return shaped(found, Project, _WHO)

    async def _make_project(self, username: str, name: str, visibility: str) -> None:
        body = {"name": name, "visibility": visibility}
        try:
            await self._send("POST", f"projects/{_names(username)}", body)
        except RejectedError as error:
            if error.status == 409:  # somebody else has just made it
                return
            if error.status != 404:
                raise AccessError(f"the SwanLab project cannot be made: {error}") from error
            # A server from before projects had views.
            await self._send_once("project", {**body, "username": username})

    async def run(self, username: str, project: str, run_id: str) -> Experiment | None:
        """Return a run by the id that a client has given it."""
        found = await self._found(f"project/{_names(username, project)}/runs/{_names(run_id)}")
        return None if found is None else shaped(found, Experiment, _WHO)

    async def open_run(
        self, username: str, project: str, about: Mapping[str, Any]
    ) -> tuple[Experiment, bool]:
        """Make a run, or take it up again; return it, and whether it was there before."""
        try:
            reply = await self._send(
                "POST", f"project/{_names(username, project)}/experiment", about
            )
        except RejectedError as error:
            raise AccessError(f"the SwanLab run cannot be made: {error}") from error
        return shaped(reply.json(), Experiment, _WHO), reply.status == 200

    async def summary(self, place: Place, created: int) -> Summary:
        """Return how far a run has come; `created` is the Unix time in seconds when it was made."""
        reply = await self.client.request(
            "GET",
            f"house/metrics/summaries/{_names(place.project_id, place.experiment_id)}",
            params={"all": "True", "createdAt": str(created)},
        )
        return shaped(reply.json(), Summary, _WHO)

    async def beat(self, place: Place) -> None:
        """Send a heartbeat."""
        await self._send(
            "POST", f"house/experiments/{_names(place.experiment_id)}/heartbeat", _FLAG
        )

    async def put_profile(self, place: Place, **part: Any) -> None:
        """Replace the configuration (`config`), or the facts of the machine (`metadata`)."""
        await self._send("PUT", f"{self._run_path(place)}/profile", part)

    async def declare(self, place: Place, keys: Sequence[str]) -> None:
        """Declare columns of numbers; one with a slash goes to the section before it."""
        columns = [_column(key) for key in keys]
        if place.has_views:
            path = f"projects/{_names(place.username, place.project)}/series"
            await self._send("POST", path, {"series": columns})
        else:
            await self._send("POST", f"experiment/{_names(place.experiment_id)}/columns", columns)

    async def store(self, place: Place, kind: str, rows: Iterable[Row | Line]) -> None:
        """Store numbers (`scalar`) or lines of the console (`log`)."""
        body = {
            "type": kind,
            "projectId": place.project_id,
            "experimentId": place.experiment_id,
            "metrics": rows,
        }
        await self._send("POST", "house/metrics", body)

    async def end(self, place: Place, state: State, moment: str) -> None:
        """Send the end of the run: its state and time."""
        body = {"state": state, "finishedAt": moment, "from": "sdk"}
        await self._send("PUT", f"{self._run_path(place)}/state", body)

    async def files(self, place: Place, action: str, about: Mapping[str, Any]) -> Any:
        """Ask for something about a file of the run, by the endpoint of that name."""
        path = f"experiment/{_names(place.experiment_id)}/files/{action}"
        return (await self._send("POST", path, {"files": [about]})).json()

    async def _found(self, path: str) -> Any:
        try:
            return await self.client.get(path)
        except RejectedError as error:
            if error.status == 404:
                return None
            raise AccessError(f"SwanLab does not say what it has: {error}") from error

    async def _send_once(self, path: str, body: Any) -> None:
        try:
            await self._send("POST", path, body)
        except RejectedError as error:
            if error.status != 409:
                raise AccessError(f"the SwanLab project cannot be made: {error}") from error

    async def _send(self, method: str, path: str, body: Any) -> Reply:
        content = msgspec.json.encode(body)
        reply = await self.client.request(method, path, content=content, headers=_JSON)
        if reply.content:  # an answer may be empty, but not a page of a proxy
            reply.json()
        return reply

    def _run_path(self, place: Place) -> str:
        return f"project/{_names(place.username, place.project)}/runs/{_names(place.experiment_id)}"


def _column(key: str) -> dict[str, str]:
    section, slash, _ = key.partition("/")
    column = {"key": key, "type": "SYSTEM" if key.startswith(SYSTEM) else "FLOAT"}
    return {**column, "sectionName": section} if slash else column


def _names(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)
