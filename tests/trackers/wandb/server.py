"""
A W&B server on loopback: GraphQL, file streams and signed uploads, as strict as the vendor's.

It executes GraphQL documents against a schema, keeps runs as their file streams describe them
(`stream.py`), signs upload addresses and takes bytes only there, and answers what the real
one refuses with the real one's statuses. The vendor's own package works against it
(`test_vendor.py`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from graphql import build_schema, graphql_sync

from tests.trackers.wandb.artifacts import Artifact, Upload, b64md5
from tests.trackers.wandb.schema import SCHEMA
from tests.trackers.wandb.stream import CONSOLE, EVENTS, HISTORY, PER_SECOND, Refused, Run, strict

KEY: Final = "0123456789abcdef0123456789abcdef01234567"
ENTITY: Final = "ent"
LARGEST: Final = 10 << 20


@dataclass
class Sent:
    """Hold one request with what became of it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    problem: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Fault:
    """Say what to do instead of answering: answer otherwise, or cut, before or after obeying."""

    status: int | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    obeys: bool = False


Faults = Callable[[Sent], Fault | None]


class WandbServer:
    """Serve runs of one entity; what is kept outlives `stop`."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], Run] = {}
        """By project and run id."""
        self.artifacts: list[Artifact] = []
        self.sent: list[Sent] = []
        self.faults: Faults = lambda request: None
        self.key = KEY
        self.crash_after = 300.0
        self.per_second = PER_SECOND
        self.quota: dict[str, str] = {}
        """Headers of every answer that is a success."""
        self._uploads: dict[str, Upload] = {}
        self._secret = secrets.token_bytes(16)
        self._schema = build_schema(SCHEMA)
        self._lock = threading.RLock()
        self._http: _Listener | None = None
        self._port = 0

    # -- what tests ask for ------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def run(self, project: str | None = None) -> Run:
        """Return the only run, or the only one of a project."""
        found = [run for run in self.runs.values() if project in (None, run.project)]
        assert len(found) == 1, f"{len(found)} runs"
        return found[0]

    @property
    def refused(self) -> list[str]:
        """What was not taken, other than by a fault that the test wanted."""
        return [f"{s.method} {s.path}: {s.status} {s.problem}" for s in self.sent if s.problem]

    def versions(self, name: str) -> list[Artifact]:
        return [a for a in self.artifacts if a.name == name and a.state == "COMMITTED"]

    def start(self) -> None:
        self._http = _Listener(("127.0.0.1", self._port), self)
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away: no connection is taken, and those that are there are cut."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.cut()
            self._http = None

    # -- requests ----------------------------------------------------------------------------------

    def answer(self, request: Sent) -> tuple[int, dict[str, str], Any]:
        try:
            return 200, self.quota, self._obey(request)
        except Refused as error:
            request.problem = str(error)
            return error.status, error.headers, {"error": str(error)}

    def _obey(self, request: Sent) -> Any:
        path = request.path.partition("?")[0]
        if request.method == "PUT":
            return self._store(request)
        expected = "Basic " + base64.b64encode(f"api:{self.key}".encode()).decode()
        if request.headers.get("authorization") != expected:
            raise Refused(401, "no such key")
        if request.method != "POST":
            raise Refused(404, "not found")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refused(400, "a body is JSON")
        if len(request.body) > LARGEST:
            raise Refused(413, "request entity too large")
        try:
            body = strict(request.body)
        except ValueError as error:
            raise Refused(400, f"no JSON: {error}") from None
        if path == "/graphql":
            return self._execute(body, request)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if len(parts) == 5 and parts[0] == "files" and parts[4] == "file_stream":
            return self._stream(*parts[1:4], body)
        raise Refused(404, "not found")

    def _stream(self, entity: str, project: str, name: str, body: Any) -> Any:
        with self._lock:
            run = self.runs.get((project, name))
            if run is None or entity != ENTITY:
                raise Refused(404, f"no run {entity}/{project}/{name}")
            if run.busy:
                raise Refused(409, "two requests for one run at once")
            run.admit(time.monotonic(), self.per_second)
            run.busy = True
        try:
            run.take(body)
            return {"exitcode": run.exit_code, "limits": {}, "stopped": run.stop}
        finally:
            run.busy = False

    def _store(self, request: Sent) -> None:
        parts = urlsplit(request.path)
        if "authorization" in request.headers:
            raise Refused(400, "only one way to authenticate is allowed: the address is signed")
        signature = parse_qs(parts.query).get("signature", [""])[0]
        if not hmac.compare_digest(signature, self._signature(parts.path)):
            raise Refused(403, "the signature does not match")
        upload = self._uploads[parts.path]
        for name, value in upload.headers.items():
            if request.headers.get(name.lower()) != value:
                raise Refused(403, f"the signature covers the header {name}: {value}")
        if upload.md5 is not None and b64md5(request.body) != upload.md5:
            raise Refused(400, "the content is not that of its MD5")
        upload.content = request.body

    def sign(self, path: str, upload: Upload) -> str:
        place = f"/storage/{quote(path)}"
        self._uploads[place] = upload
        return f"{self.url}{place}?signature={self._signature(place)}"

    def _signature(self, path: str) -> str:
        return hmac.new(self._secret, path.encode(), hashlib.sha256).hexdigest()

    def _execute(self, body: Any, request: Sent) -> Any:
        with self._lock:
            result = graphql_sync(
                self._schema,
                body["query"],
                root_value=_Root(self),
                variable_values=body.get("variables") or {},
                operation_name=body.get("operationName") or None,
            )
        if result.errors:
            request.problem = "; ".join(error.message for error in result.errors)
        return result.formatted


class _Root:
    """Resolve the schema's top fields."""

    def __init__(self, server: WandbServer) -> None:
        self._server = server

    def viewer(self, info: Any) -> Any:
        names = {"entity": ENTITY, "username": "ada", "email": "ada@example.org"}
        return {"id": "VXNlcjox", **names, "flags": "{}", "teams": {"edges": []}}

    def serverInfo(self, info: Any) -> Any:  # noqa: N802
        return {"features": [{"name": "ARTIFACT_TAGS", "isEnabled": True}]}

    def project(self, info: Any, name: str | None = None, entityName: str | None = None) -> Any:  # noqa: N803
        return _project_of(self._server, name or "uncategorized")

    model = project

    def upsertBucket(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        runs = self._server.runs
        if input.get("entityName") not in (None, ENTITY):
            raise ValueError(f"entity {input['entityName']} not found")
        run = next((run for run in runs.values() if run.id == input.get("id")), None)
        if run is None and input.get("id"):
            raise ValueError("no such run")
        project = input.get("modelName") or "uncategorized"
        name = input.get("name") or secrets.token_hex(4)
        run = run or runs.get((project, name))
        inserted = run is None
        if run is None:
            run = Run(ENTITY, project, name, display_name=f"run-{name}")
            run.crash_after = self._server.crash_after
            runs[project, name] = run
        run.upserts += 1
        if run.state != "running":
            run.exit_code = None
        run.heard = time.monotonic()
        if input.get("config") is not None:
            run.config = strict(input["config"])
        if input.get("summaryMetrics") is not None:
            run.summary = strict(input["summaryMetrics"])
        run.display_name = input.get("displayName") or run.display_name
        run.fields.update({key: value for key, value in input.items() if value is not None})
        return {"bucket": _bucket_of(run), "inserted": inserted}

    def createRunFiles(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        run = self._server.runs[input["projectName"], input["runName"]]
        files = []
        for name in input["files"]:
            url = self._server.sign(f"{run.project}/{run.name}/{name}", _RunFile(run, name))
            files.append({"id": name, "name": name, "uploadUrl": url})
        return {"runID": run.id, "uploadHeaders": [], "files": files}

    def createArtifact(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        if (input["projectName"], input["runName"]) not in self._server.runs:
            raise ValueError("no such run")
        if not input["artifactCollectionName"].replace("-", "").replace(".", "").isidentifier():
            raise ValueError(f"invalid artifact name {input['artifactCollectionName']}")
        for artifact in self._server.artifacts:
            mine = artifact.input["clientID"] == input["clientID"]
            same = artifact.name == input["artifactCollectionName"]
            if mine or (same and artifact.input["digest"] == input["digest"]):
                artifact.aliases |= {alias["alias"] for alias in input.get("aliases") or ()}
                return {"artifact": _artifact_of(self._server, artifact)}
        artifact = Artifact(len(self._server.artifacts) + 1, input)
        self._server.artifacts.append(artifact)
        return {"artifact": _artifact_of(self._server, artifact)}

    def createArtifactManifest(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifact(input["artifactID"])
        artifact.manifest = Upload(md5=input["digest"] or None)
        path = f"{artifact.number}/{input['name']}"
        url = self._server.sign(path, artifact.manifest)
        headers = {"Content-Md5": input["digest"]} if input["digest"] else {}
        artifact.manifest.headers = headers
        file = {
            "id": "F",
            "uploadUrl": url,
            "uploadHeaders": [f"{k}:{v}" for k, v in headers.items()],
        }
        return {"artifactManifest": {"id": f"Manifest:{artifact.number}", "file": file}}

    def createArtifactFiles(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        nodes = [self._file(given) for given in input["artifactFiles"]]
        return {"files": {"edges": [{"node": node} for node in nodes]}}

    def _file(self, given: dict[str, Any]) -> Any:
        artifact, name = self._artifact(given["artifactID"]), given["name"]
        if given["artifactManifestID"] != f"Manifest:{artifact.number}":
            raise ValueError("no such manifest")
        known = artifact.uploads.get(name)
        path = f"wandb_artifacts/{artifact.number}/{name}"
        node = {"id": name, "name": name, "displayName": name, "storagePath": path}
        node["artifact"] = _artifact_of(self._server, artifact)
        if known is not None and known.content is not None and known.md5 == given["md5"]:
            return {**node, "uploadUrl": None, "uploadHeaders": [], "uploadMultipartUrls": None}
        headers = {"Content-Md5": given["md5"], "Content-Type": "application/octet-stream"}
        upload = artifact.uploads[name] = Upload(headers, given["md5"])
        shown = [f"{key}:{value}" for key, value in headers.items()]
        url = self._server.sign(path, upload)
        urls = None
        if given.get("uploadPartsInput"):
            artifact.parts[path] = [
                Upload(md5=base64.b64encode(bytes.fromhex(part["hexMD5"])).decode())
                for part in given["uploadPartsInput"]
            ]
            places = [
                {"partNumber": n, "uploadUrl": self._server.sign(f"{path}.part{n}", part)}
                for n, part in enumerate(artifact.parts[path], 1)
            ]
            urls = {"uploadID": f"upload-{artifact.number}", "uploadUrlParts": places}
        return {**node, "uploadUrl": url, "uploadHeaders": shown, "uploadMultipartUrls": urls}

    def completeMultipartUploadArtifact(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifact(input["artifactID"])
        parts = artifact.parts[input["storagePath"]]
        if [part["partNumber"] for part in input["completedParts"]] != list(
            range(1, len(parts) + 1)
        ):
            raise ValueError("parts are missing")
        if any(part.content is None for part in parts):
            raise ValueError("a part was never uploaded")
        upload = artifact.uploads[input["storagePath"].split("/", 2)[2]]
        upload.content = b"".join(part.content or b"" for part in parts)
        return {"digest": b64md5(upload.content)}

    def commitArtifact(self, info: Any, input: dict[str, Any]) -> Any:  # noqa: N802
        artifact = self._artifact(input["artifactID"])
        if problem := artifact.check():
            raise ValueError(problem)
        mine = {alias["alias"] for alias in artifact.input.get("aliases") or ()}
        if artifact.state != "COMMITTED":
            for other in self._server.versions(artifact.name):
                other.aliases -= mine
            artifact.aliases |= mine
            artifact.state = "COMMITTED"
        return {"artifact": _artifact_of(self._server, artifact)}

    def _artifact(self, key: str) -> Artifact:
        return next(artifact for artifact in self._server.artifacts if artifact.id == key)


class _RunFile(Upload):
    """Take a file of a run, and put it where the run's files are."""

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name
        super().__init__()

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, value)
        if key == "content" and value is not None:
            self._run.files[self._name] = value


def _project_of(server: WandbServer, name: str) -> Any:
    def bucket(info: Any, name: str, missingOk: bool = False, project: str = name) -> Any:  # noqa: N803
        run = server.runs.get((project, name))
        if run is None and not missingOk:
            raise ValueError(f"could not find run {name}")
        return None if run is None else _bucket_of(run)

    entity = {"id": "RW50aXR5OjE=", "name": ENTITY}
    return {"id": "UHJvamVjdDox", "name": name, "entity": entity, "bucket": bucket}


def _bucket_of(run: Run) -> Any:
    def wandb_config(info: Any, keys: list[str] | None = None) -> str:
        hidden = run.config.get("_wandb", {}).get("value", {})
        return json.dumps({key: hidden[key] for key in keys or hidden if key in hidden})

    return {
        "id": run.id,
        "name": run.name,
        "displayName": run.display_name,
        "notes": run.fields.get("notes"),
        "tags": run.fields.get("tags", []),
        "config": json.dumps(run.config),
        "wandbConfig": wandb_config,
        "summaryMetrics": json.dumps(run.summary),
        "project": {
            "id": "UHJvamVjdDox",
            "name": run.project,
            "entity": {"id": "RW50aXR5OjE=", "name": run.entity},
        },
        "historyLineCount": run.count(HISTORY),
        "eventsLineCount": run.count(EVENTS),
        "logLineCount": run.count(CONSOLE),
        "historyTail": json.dumps(run.lines.get(HISTORY, [])[-1:]),
        "eventsTail": json.dumps(run.lines.get(EVENTS, [])[-1:]),
    }


def _artifact_of(server: WandbServer, artifact: Artifact) -> Any:
    latest = server.versions(artifact.name)[-1:]
    return {
        "id": artifact.id,
        "digest": artifact.input["digest"],
        "state": artifact.state,
        "artifactType": {"name": artifact.input["artifactTypeName"]},
        "artifactSequence": {"latestArtifact": {"id": latest[0].id} if latest else None},
    }


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], wandb: WandbServer) -> None:
        self.wandb = wandb
        self.open: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def cut(self) -> None:
        for connection in tuple(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that is cut is no error here."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener
    wbufsize = -1  # one packet for an answer, or each one waits 40 ms for an acknowledgement

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Sent(self.command, self.path, headers, self.rfile.read(length))
        if len(request.body) < length:
            self.close_connection = True
            return
        wandb = self.server.wandb
        wandb.sent.append(request)
        fault = wandb.faults(request)
        if fault is not None and fault.status is not None and not fault.obeys:
            request.status = fault.status
            self._write(fault.status, fault.headers, fault.body)
            return
        if fault is None or fault.obeys:
            request.status, answered, body = wandb.answer(request)
        if fault is not None:
            self.close_connection = True
            return
        self._write(request.status, answered, json.dumps(body).encode())

    do_POST = do_PUT = do_GET = serve  # noqa: N815

    def _write(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Run a server for as long as the block lasts."""
    server = WandbServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
