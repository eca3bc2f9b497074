"""
A SwanLab server on loopback, as strict as the vendor's client is careful.

It keeps projects, runs, columns, rows and files; one number for each key and index, the last that
came. What the vendor's client never sends is refused: requests out of a session, times in another
form, more rows than its batches have, anything after the end. The vendor's own package works
against it (`test_vendor.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from tests.trackers.scripted import Answer, CutError, Request, ScriptedServer, serving

KEY: Final = "key-of-the-loopback-server"
USER: Final = "alice"
ROWS: Final = 10_000
COLUMNS: Final = 3000
STATES: Final = ("FINISHED", "CRASHED", "ABORTED")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_NAME: Final = re.compile(r"[0-9A-Za-z_\-+.]{1,100}")
_KEY: Final = re.compile(r"[^\x00-\x1f\x7f./](?:[^\x00-\x1f\x7f]{0,510}[^\x00-\x1f\x7f./])?")


@dataclass
class Run:
    """Hold a run as the server has it."""

    project: str
    run_id: str
    """The id that a client has given it."""
    about: dict[str, Any]
    experiment_id: str = field(default_factory=lambda: f"exp{secrets.token_hex(6)}")
    state: str = "RUNNING"
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Those that are confirmed."""
    failed: set[str] = field(default_factory=set)
    changed: list[Any] = field(default_factory=list)
    """Rows that came again and were not the same."""
    resent: int = 0
    early: set[str] = field(default_factory=set)
    """Columns that had rows before they were declared: the vendor's client does that where it
    resumes a run, and ours never."""
    beats: int = 0
    opened: int = 0
    ended: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {key: one["value"] for key, one in self.profile.get("config", {}).items()}

    def values(self, key: str) -> list[tuple[int, Any]]:
        """Return the numbers under a key, in the order of their steps."""
        return sorted(
            (index, row["data"]) for (name, index), row in self.rows.items() if name == key
        )


@dataclass
class Fault:
    """Say what to do instead of answering: answer otherwise, or cut, before or after obeying."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    obeys: bool = False
    body: bytes | None = None
    """Instead of what the server says itself."""


class RefusedError(Exception):
    """Say that a request is not taken."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class _Upload:
    run: Run
    about: dict[str, Any]
    parts: dict[int, bytes] = field(default_factory=dict)


class SwanLabServer:
    """Serve one user's projects."""

    def __init__(self) -> None:
        self.key = KEY
        self.expires = "2099-01-01T00:00:00.000Z"
        self.sessions: set[str] = set()
        self.logins = 0
        self.projects: dict[str, dict[str, Any]] = {}
        self.runs: dict[tuple[str, str], Run] = {}
        """By project and run id."""
        self.legacy = False
        """Whether projects are made without views."""
        self.problems: list[str] = []
        """What was refused, other than by a fault that the test wanted."""
        self.faults: Callable[[Request], Fault | None] = lambda request: None
        self.batches: list[int] = []
        """Rows of each request that brought some."""
        self._uploads: dict[str, _Upload] = {}
        self._http: ScriptedServer | None = None

    @property
    def url(self) -> str:
        assert self._http is not None
        return self._http.url

    @property
    def requests(self) -> list[Request]:
        assert self._http is not None
        return self._http.requests

    def run(self, project: str | None = None) -> Run:
        """Return the only run, or the only one of a project."""
        (found,) = [run for run in self.runs.values() if project in (None, run.project)]
        return found

    async def __call__(self, request: Request) -> Answer:
        fault = self.faults(request)
        if fault is not None and not fault.obeys:
            if fault.status is None:
                raise CutError
            if fault.body is not None:
                return Answer(fault.status, fault.body, fault.headers)
            return _answer(fault.status, {"code": "Fault", "message": "wanted"}, fault.headers)
        answer = self._answer(request)
        if fault is not None:
            raise CutError
        return answer

    def _answer(self, request: Request) -> Answer:
        parts = urlsplit(request.target)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        try:
            if path[0] == "storage":
                return self._take(request, path[1], path[2])
            body = json.loads(request.body) if request.body else None
            status, reply = self._api(request, path[1:], body, parse_qs(parts.query))
            return _answer(status, reply)
        except RefusedError as error:
            status, message = error.status, str(error)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            status, message = 400, f"{type(error).__name__}: {error}"
        if status != 404:
            self.problems.append(f"{request.method} {request.target}: {status} {message}")
        return _answer(status, {"code": HTTPStatus(status).phrase, "message": message})

    # -- what the endpoints do ---------------------------------------------------------------------

    def _api(
        self, request: Request, path: list[str], body: Any, query: dict[str, list[str]]
    ) -> tuple[int, Any]:
        _need("x-swanlab-sdk-version" in request.headers, "no version of the client")
        if request.method == "POST" and path == ["login", "api_key"]:
            return self._open(request)
        if request.headers.get("cookie", "").removeprefix("sid=") not in self.sessions:
            raise RefusedError(401, "no session")
        _need("authorization" not in request.headers, "the key goes to the login alone")
        match request.method, *path:
            case "GET", "project", user, name if user == USER:
                return 200, self._project(name)
            case "POST", "projects", user if user == USER and not self.legacy:
                return self._make(body)
            case "POST", "project" if self.legacy:
                _need(body.pop("username") == USER, "whose?")
                return self._make(body)
            case "GET", "project", user, name, "runs", run_id if user == USER:
                return 200, _about(self._run_of(name, run_id))
            case "POST", "project", user, name, "experiment" if user == USER:
                return self._open_run(self._project(name)["name"], body)
            case "POST", "house", "experiments", key, "heartbeat":
                _need(body == {"flagId": "123456"}, "no heartbeat")
                self._by_key(key).beats += 1
            case "PUT", "project", user, name, "runs", key, "profile" if user == USER:
                _put_profile(self._by_key(key, name), body)
            case "POST", "projects", user, name, "series" if user == USER:
                _need("version" in self._project(name), "the project has no views")
                for run in self.runs.values():
                    if run.project == name:
                        _declare(run, body["series"])
            case "POST", "experiment", key, "columns":
                run = self._by_key(key)
                _need("version" not in self._project(run.project), "the project has views")
                _declare(run, body)
            case "POST", "house", "metrics":
                return 202, self._store(body)
            case "GET", "house", "metrics", "summaries", project, key:
                _need(query["all"] == ["True"] and int(query["createdAt"][0]) >= 0, "which?")
                return 200, _summary(self._by_key(key), project)
            case "POST", "experiment", key, "files", action:
                return self._files(self._by_key(key), action, body["files"])
            case "PUT", "project", user, name, "runs", key, "state" if user == USER:
                _end(self._by_key(key, name), body)
            case _:
                raise RefusedError(404, "no such endpoint")
        return 200, {}

    def _open(self, request: Request) -> tuple[int, Any]:
        _need(not request.body, "a login has no body")
        if request.headers.get("authorization") != self.key:
            raise RefusedError(401, "no such key")
        self.logins += 1
        sid = secrets.token_hex(8)
        self.sessions.add(sid)
        user = {"username": USER, "name": "Alice"}
        return 200, {"sid": sid, "expiredAt": self.expires, "userInfo": user}

    def _project(self, name: str) -> dict[str, Any]:
        if name not in self.projects:
            raise RefusedError(404, "project not found")
        return self.projects[name]

    def _make(self, body: Any) -> tuple[int, Any]:
        name = body["name"]
        _need(_NAME.fullmatch(name), f"no name of a project: {name!r}")
        _need(body["visibility"] in ("PUBLIC", "PRIVATE"), "who may see it?")
        status = 200 if name in self.projects else 201
        version = {} if self.legacy else {"version": 1}
        self.projects.setdefault(
            name,
            {
                "cuid": f"project-{name}",
                "name": name,
                "path": f"/{USER}/{name}",
                "visibility": body["visibility"],
                "group": {"username": USER, "type": "PERSON", "status": "ENABLED", "name": USER},
                "_count": {"experiments": 3, "contributors": 1, "collaborators": 0, "clones": 0},
                **version,
            },
        )
        return status, {key: self.projects[name][key] for key in ("cuid", "name", "path")}

    def _open_run(self, project: str, body: Any) -> tuple[int, Any]:
        _need(_TIME.fullmatch(body["createdAt"]), "createdAt is no time")
        _need(all(body.values()), "something is empty")
        _need(len(body["name"]) <= 512 and len(body["cuid"]) <= 512, "too long")
        _need(len(body["colors"]) == 2, "two colors")
        _need(all(set(label) == {"name"} for label in body.get("labels", [])), "labels")
        found = self.runs.get((project, body["cuid"]))
        run = found or Run(project, body["cuid"], body)
        self.runs[project, body["cuid"]] = run
        run.state = "RUNNING"
        run.opened += 1
        return (201 if found is None else 200), _about(run)

    def _store(self, body: Any) -> Any:
        run = self._by_key(body["experimentId"])
        _need(body["projectId"] == self.projects[run.project]["cuid"], "another project's")
        _need(run.state == "RUNNING", "the run has ended")
        rows = body["metrics"]
        _need(0 < len(rows) <= ROWS, f"{len(rows)} rows")
        _need(body["type"] in ("scalar", "log", "media"), "rows of what?")
        self.batches.append(len(rows))
        take = {"scalar": _take_scalar, "log": _take_line, "media": _take_scalar}[body["type"]]
        for row in rows:
            _need(_TIME.fullmatch(row["create_time"]), f"no time: {row['create_time']}")
        for row in rows:
            take(run, row)
        return {}

    def _files(self, run: Run, action: str, files: Any) -> tuple[int, Any]:
        _need(0 < len(files) <= 100, f"{len(files)} files")
        if action in ("prepare", "prepare-multipart"):
            return 201, self._prepare(run, files, in_parts=action != "prepare")
        for one in files:
            if one.get("state") == "FAILED":
                run.failed.add(one["path"])
                continue
            (upload,) = [
                up
                for up in self._uploads.values()
                if up.run is run and up.about["path"] == one["path"]
            ][-1:]
            if action == "complete-multipart":
                _need(upload is self._uploads[one["uploadId"]], "another upload")
                for part in one["parts"]:
                    _need(part["etag"] == _tag(upload.parts[part["partNumber"]]), "etag")
            content = b"".join(upload.parts[number] for number in sorted(upload.parts))
            _need(hashlib.md5(content).hexdigest() == upload.about["md5"], "md5")
            _need(len(content) == upload.about["size"], "size")
            run.files[one["path"]] = content
        return 200, {}

    def _prepare(self, run: Run, files: Any, *, in_parts: bool) -> Any:
        found = []
        for about in files:
            key = secrets.token_hex(8)
            _need(re.fullmatch(r"[0-9a-f]{32}", about["md5"]), "md5")
            _need(about["mimeType"] and about["size"] >= 0 and about["path"], "about what?")
            self._uploads[key] = _Upload(run, about)
            urls = [
                f"{self.url}/storage/{key}/{number}?sig=1"
                for number in range(1, about.get("count", 1) + 1)
            ]
            parts = [{"partNumber": n, "url": url} for n, url in enumerate(urls, 1)]
            found.append({"uploadId": key, "parts": parts} if in_parts else urls[0])
        return {"files" if in_parts else "urls": found}

    def _take(self, request: Request, key: str, number: str) -> Answer:
        _need("cookie" not in request.headers, "the session goes to the server alone")
        _need("authorization" not in request.headers, "the key goes to the login alone")
        upload = self._uploads[key]
        if "count" not in upload.about:
            _need(request.headers["content-type"] == upload.about["mimeType"], "content type")
        upload.parts[int(number)] = request.body
        return Answer(200, b"", {"ETag": f'"{_tag(request.body)}"'}, reason="OK")

    def _run_of(self, project: str, run_id: str) -> Run:
        for run in self.runs.values():
            if run.project == project and run_id in (run.run_id, run.experiment_id):
                return run
        raise RefusedError(404, "experiment not found")

    def _by_key(self, experiment_id: str, project: str | None = None) -> Run:
        for run in self.runs.values():
            if run.experiment_id == experiment_id and project in (None, run.project):
                return run
        raise RefusedError(404, "experiment not found")


def _answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Answer:
    kind = {"Content-Type": "application/json", **(headers or {})}
    return Answer(status, json.dumps(body).encode(), kind, reason=HTTPStatus(status).phrase)


def _need(condition: object, why: str) -> None:
    if not condition:
        raise RefusedError(400, why)


def _about(run: Run) -> dict[str, Any]:
    about = {"cuid": run.experiment_id, "slug": run.run_id, "name": run.about["name"]}
    return {**about, "createdAt": run.about["createdAt"]}


def _put_profile(run: Run, body: Any) -> None:
    _need(body and set(body) <= {"config", "metadata", "requirements", "conda"}, "no profile")
    for one in body.get("config", {}).values():
        _need(set(one) == {"value", "sort", "desc"}, "no value of a configuration")
    run.profile |= body


def _declare(run: Run, columns: Any) -> None:
    _need(0 < len(columns) <= COLUMNS, f"{len(columns)} columns")
    for column in columns:
        _need(_KEY.fullmatch(column["key"]), f"no key: {column['key']!r}")
        _need(column["type"] in ("FLOAT", "SYSTEM", "TEXT", "IMAGE"), "no type of a column")
        # "class" and the like are what projects without views have.
        run.columns[column["key"]] = column


def _take_scalar(run: Run, row: Any) -> None:
    if row["key"] not in run.columns:
        run.early.add(row["key"])
    index, data = row["index"], row["data"]
    _need(type(index) is int and 0 <= index <= 1 << 48, f"no step: {index!r}")
    _need(data == "nan" or type(data) in (int, float, list), f"no number: {data!r}")
    before = run.rows.get((row["key"], index))
    run.resent += before == row
    if before not in (None, row):
        run.changed.append(row)
    run.rows[row["key"], index] = row


def _take_line(run: Run, row: Any) -> None:
    _need(row["level"] in ("INFO", "ERROR") and row["epoch"] >= 1, "no line")
    run.lines[row["epoch"]] = row


def _summary(run: Run, project: str) -> Any:
    last: dict[str, int] = {}
    for key, index in run.rows:
        last[key] = max(index, last.get(key, -1))
    log = [{"key": "LOG", "step": max(run.lines)}] if run.lines else []
    return {"log": log, "media": [], "scalar": [{"key": k, "step": s} for k, s in last.items()]}


def _end(run: Run, body: Any) -> None:
    _need(body["state"] in STATES and body["from"] == "sdk", "no end")
    _need(_TIME.fullmatch(body["finishedAt"]), "finishedAt is no time")
    last = max((row["create_time"] for row in run.rows.values()), default="")
    _need(body["finishedAt"] >= last[:19], "it ends before its last row")
    run.state, run.ended = body["state"], body["finishedAt"]


def _tag(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@contextmanager
def swanlab_server() -> Iterator[SwanLabServer]:
    """Run a server for as long as the block lasts."""
    server = SwanLabServer()
    with serving(server) as http:
        server._http = http
        yield server
