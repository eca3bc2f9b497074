"""
A Comet server on loopback, as strict as the vendor's client lets one see.

It takes the requests that `comet_ml` 3.58 was seen to send, checks their form, and keeps what they
say by experiment; the vendor's own client works against it (`test_vendor.py`). A value that
is sent twice is there twice. Limits are those of Comet's documentation.
"""

from __future__ import annotations

import gzip
import json
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tests.trackers.scripted import Answer, Request, serving

KEY: Final = "0123456789abcdefghijklmno"
LIMITS: Final = {"metric": 12_000, "parameter": 10_000, "output": 12_000, "other": 8_000}
"""Values of a kind in a minute, for each experiment."""
_NAME: Final = 100
_JSON: Final = {"Content-Type": "application/json"}


class RefusedError(Exception):
    def __init__(self, why: str, status: int = 400, code: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.code = code


@dataclass
class Experiment:
    """Hold what the server knows of an experiment."""

    key: str
    project: str | None
    workspace: str | None
    offline: bool
    metrics: list[dict[str, Any]] = field(default_factory=list)
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: the last value of each metric."""
    parameters: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    assets: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    """By name: what came with the file, and its bytes."""
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By endpoint: the last that was written there."""
    sessions: int = 1
    alive: bool | None = None
    error: str | None = None
    beats: int = 0
    times: tuple[Any, Any] | None = None
    """Start and end, of an archive."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Buttons that were pressed and not asked for yet."""

    @property
    def run_id(self) -> str:
        return f"run-{self.key[:6]}-{self.sessions}"

    @property
    def status(self) -> str:
        if self.alive:
            return "running"
        return "finished" if self.error is None else "crashed"

    def points(self, name: str) -> list[tuple[int, Any]]:
        """Return step and value of a metric, in the order in which they came."""
        found = [entry for entry in self.metrics if entry["metricName"] == name]
        return [(entry["step"], entry["metricValue"]) for entry in found]

    def summary(self) -> list[dict[str, Any]]:
        """Return the last value of each metric, its number as a text, as Comet has it."""
        return [
            {
                "name": name, "valueCurrent": str(entry["metricValue"]).replace("e", "E"),
                "timestampCurrent": entry["timestamp"], "stepCurrent": entry["step"],
                "editable": False,
            }
            for name, entry in self.latest.items()
        ]  # fmt: skip

    def press_stop(self) -> None:
        self.calls.append(
            {"callId": "c1", "userName": "ada", "functionName": "stop", "cometDefined": True,
             "createdAt": 1, "arguments": [], "experimentKey": self.key, "projectId": "p"}
        )  # fmt: skip


@dataclass
class Sent:
    """Hold one request, unpacked, with what became of it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float
    problem: str = ""
    status: int = 200

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Fault = Callable[[Sent], Answer | None]


class CometServer:
    """Serve experiments of one user."""

    def __init__(self) -> None:
        self.key = KEY
        self.url = ""
        self.experiments: dict[str, Experiment] = {}
        self.sent: list[Sent] = []
        self.fault: Fault = lambda request: None
        self.beat = 10.0
        self.period = 60.0
        """Seconds for which the limits are."""
        self.limits = dict(LIMITS)
        self.largest_asset = 100 * 1024
        self.stops = False
        """Whether somebody presses the button of each new experiment."""
        self._taken: dict[tuple[str, str], deque[tuple[float, int]]] = defaultdict(deque)

    def experiment(self, project: str | None = None) -> Experiment:
        """Return the only one, or the only one of a project."""
        found = [e for e in self.experiments.values() if project in (None, e.project)]
        assert len(found) == 1, f"{len(found)} experiments"
        return found[0]

    @property
    def refused(self) -> list[str]:
        return [f"{s.method} {s.path}: {s.status} {s.problem}" for s in self.sent if s.problem]

    async def __call__(self, request: Request) -> Answer:
        parts = urlsplit(request.target)
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        sent = Sent(request.method, parts.path, query, request.headers, body, time.monotonic())
        self.sent.append(sent)
        if (answer := self.fault(sent)) is not None:
            return answer
        try:
            found = self._obey(sent)
        except RefusedError as error:
            sent.problem, sent.status = str(error), error.status
            told = {"msg": str(error), "code": error.status, "sdk_error_code": error.code}
            wait = {"Retry-After-Custom": "0.2"} if error.status == 429 else {}
            return Answer(error.status, json.dumps(told).encode(), {**_JSON, **wait})
        return Answer(200, json.dumps({"msg": "ok", "code": 200, **found}).encode(), _JSON)

    # -- requests ----------------------------------------------------------------------------------

    def _obey(self, sent: Sent) -> dict[str, Any]:
        if sent.path == "/clientlib/isAlive/ver":
            return {"msg": "Alive", "version": "4.40.0"}
        if sent.path == "/clientlib/health/ping":
            return {}
        if sent.headers.get("authorization") != self.key:
            raise RefusedError("no such key", 400, 90212)
        path = sent.path.removeprefix("/clientlib/").removeprefix("/")
        for prefix in ("api/rest/v2/write/experiment/", "rest/v2/write/experiment/"):
            if path.startswith(prefix):
                return self._write(path.removeprefix(prefix), sent)
        if path == "asset/upload":
            return self._store(sent)
        if path == "rpc/get-pending-rpcs":
            experiment = self._known(sent.query["experimentKey"])
            calls, experiment.calls = experiment.calls, []
            return {"remoteProcedureCalls": calls}
        if path.startswith("batch/logger/experiment/"):
            return self._batch(path.rpartition("/")[2], sent)
        if path == "api/rest/v2/experiment/metrics/summary":
            return {"values": self._known(sent.query["experimentKey"]).summary()}
        if path == "api/rest/v2/experiment/tags":
            return {"tags": sorted(self._known(sent.query["experimentKey"]).tags)}
        if path == "api/rest/v2/experiment/metadata":
            experiment = self._known(sent.query["experimentKey"])
            return {
                "experimentKey": experiment.key, "experimentName": "n", "projectId": "p1",
                "projectName": "proj", "workspaceName": "alice", "throttle": False,
                "throttleReasons": [], "running": experiment.alive, "archived": False,
            }  # fmt: skip
        obey = {
            "logger/add/run": self._add,
            "logger/get/run": self._get,
            "status-report/update": self._beat,
            "status-report/offline-metadata": self._offline,
            "tags/add-tags-to-experiment": self._tag,
            "asset/3d-limits": lambda body: {},
            "notification/experiment": lambda body: {},
        }.get(path)
        if obey is None or sent.method != "POST":
            raise RefusedError(f"there is no {sent.method} {sent.path}", 404)
        body = sent.json
        if path != "notification/experiment":
            _has(body, apiKey=str)
            if body["apiKey"] != self.key:
                raise RefusedError("no such key", 400, 90212)
        return obey(body)

    def _add(self, body: dict[str, Any]) -> dict[str, Any]:
        _has(body, experimentKey=str, local_timestamp=int, offline=bool, libVersion=str)
        _has(body, projectName=(str, None), teamName=(str, None), getOrCreateEnabled=bool)
        key = body["experimentKey"]
        if not (32 <= len(key) <= 50 and key.isalnum()):
            raise RefusedError("an experiment's key has 32 to 50 letters and digits")
        if key in self.experiments:
            raise RefusedError("experiment exists", 400, 90999)
        if body["teamName"] not in (None, "alice"):
            raise RefusedError("no such workspace", 400, 90219)
        place = body["projectName"], body["teamName"], body["offline"]
        self.experiments[key] = Experiment(key, *place)
        if self.stops:
            self.experiments[key].press_stop()
        return self._session(self.experiments[key])

    def _get(self, body: dict[str, Any]) -> dict[str, Any]:
        _has(body, previousExperiment=str, local_timestamp=int, libVersion=str)
        experiment = self._known(body["previousExperiment"])
        experiment.sessions += 1
        return self._session(experiment)

    def _session(self, experiment: Experiment) -> dict[str, Any]:
        return {
            "msg": None, "runId": experiment.run_id, "project_id": "p1", "githubEnabled": False,
            "focusUrl": f"{self.url}/alice/proj/", "lastOffset": 0, "featureToggles": [],
            "upload_file_size_limit_in_mb": 200, "uploadVideoMaxSizeMB": 200,
            "asset_upload_file_size_limit_in_mb": self.largest_asset, "name": "dry_sun_1",
            **dict.fromkeys(("cometWebAssetUrl", "cometWebImageUrl"), self.url),
            **dict.fromkeys(("cometRestApiAssetUrl", "cometRestApiImageUrl"), self.url),
        }  # fmt: skip

    def _beat(self, body: dict[str, Any]) -> dict[str, Any]:
        _has(body, runId=str, projectId=str, is_alive=bool, local_timestamp=int, offline=bool)
        experiment = self._known(body["experimentKey"])
        if body["runId"] != experiment.run_id:
            raise RefusedError("this run is none of the experiment's")
        experiment.alive = body["is_alive"]
        experiment.beats += 1
        return {
            "is_alive_beat_duration_millis": int(self.beat * 1000),
            "gpu_monitor_interval_millis": 60000,
            "cpu_monitor_interval_millis": 60000,
            "parameter_update_interval_millis": 3000,
            "pending_rpcs": bool(experiment.calls),
        }

    def _offline(self, body: dict[str, Any]) -> dict[str, Any]:
        experiment = next(e for e in self.experiments.values() if e.run_id == body["runId"])
        experiment.times = body.get("startTimestamp"), body.get("endTimestamp")
        return {}

    def _tag(self, body: dict[str, Any]) -> dict[str, Any]:
        _has(body, experimentKey=str, addedTags=list)
        self._known(body["experimentKey"]).tags.update(body["addedTags"])
        return {}

    def _write(self, endpoint: str, sent: Sent) -> dict[str, Any]:
        body = sent.json
        _has(body, experimentKey=str)
        experiment = self._known(body["experimentKey"])
        if endpoint == "output":
            self._take(experiment, "output", len(body["outputLines"]))
            return {}
        self._take(experiment, "other", 1)
        required = _WRITES.get(endpoint)
        if required is None:
            raise RefusedError(f"nothing is written to {endpoint}", 404)
        _has(body, **required)
        if endpoint == "log-other":
            experiment.others[body["key"]] = body["value"]
        if endpoint == "update-status" and body.get("hasCrashed"):
            experiment.error = body["error"]
        experiment.written[endpoint] = body
        return {}

    def _batch(self, kind: str, sent: Sent) -> dict[str, Any]:
        if sent.headers.get("content-encoding") != "gzip":
            raise RefusedError("a batch is compressed")
        body = sent.json
        _has(body, experimentKey=str, values=list)
        experiment = self._known(body["experimentKey"])
        if len(body["values"]) > 1000:
            raise RefusedError("that is too much for one batch", 413)
        name = {"metric": "metricName", "parameter": "parameterName"}[kind]
        for value in body["values"]:
            _has(value, **_VALUES[kind])
            if len(value[name]) > _NAME:
                raise RefusedError("a name is too long")
            if not 1e12 < value["timestamp"] < 1e13:
                raise RefusedError("a time is no milliseconds")
        self._take(experiment, kind, len(body["values"]))
        for value in body["values"]:
            if kind == "parameter":
                experiment.parameters[value[name]] = value["parameterValue"]
                continue
            experiment.metrics.append(value)
            experiment.latest[value[name]] = value
        return {}

    def _store(self, sent: Sent) -> dict[str, Any]:
        experiment = self._known(sent.query["experimentId"])
        self._take(experiment, "other", 1)
        _has(sent.query, projectId=str, runId=str, assetId=str, fileName=str, overwrite=str)
        head = f"Content-Type: {sent.headers['content-type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in BytesParser().parsebytes(head + sent.body).get_payload()
        }
        if "file" not in parts or not parts.keys() <= {"file", "metadata"}:
            raise RefusedError("a form has the field 'file', and perhaps 'metadata'")
        name = sent.query["fileName"]
        if name in experiment.assets and sent.query["overwrite"] != "True":
            name += "#again"
        experiment.assets[name] = (sent.query, parts["file"].get_payload(decode=True))
        return {"msg": "success", "assetId": sent.query["assetId"], "data": None}

    # -- rules -------------------------------------------------------------------------------------

    def _known(self, key: str) -> Experiment:
        if key not in self.experiments:
            raise RefusedError("no such experiment, or no access", 400, 90210)
        return self.experiments[key]

    def _take(self, experiment: Experiment, kind: str, count: int) -> None:
        taken, now = self._taken[experiment.key, kind], time.monotonic()
        while taken and taken[0][0] < now - self.period:
            taken.popleft()
        if sum(number for _, number in taken) + count > self.limits[kind]:
            raise RefusedError(f"too much of {kind}", 429)
        taken.append((now, count))


_NUMBER = (int, float, None)
_WRITES: Final[dict[str, dict[str, Any]]] = {
    "log-other": {"key": str},
    "graph": {"graph": str},
    "file-path": {"filePath": str},
    "system-details": {},
    "update-status": {"isAlive": bool, "error": str},
}
_VALUES: Final[dict[str, dict[str, Any]]] = {
    "metric": {
        "metricName": str,
        "metricValue": (int, float, str),
        "step": _NUMBER,
        "epoch": _NUMBER,
        "context": (str, None),
        "timestamp": int,
    },
    "parameter": {
        "parameterName": str,
        "parameterValue": (str, int, float, bool, list, None),
        "step": _NUMBER,
        "source": str,
        "context": (str, None),
        "timestamp": int,
    },
}


def _has(body: Any, **fields: Any) -> None:
    """Refuse a body that lacks a field, or has it with a value of another type."""
    for name, kinds in fields.items():
        if name not in body:
            raise RefusedError(f"{name} is missing")
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        types = tuple(type(None) if kind is None else kind for kind in kinds)
        if not isinstance(body[name], types):
            raise RefusedError(f"{name} is {body[name]!r}")


@contextmanager
def comet_server() -> Iterator[CometServer]:
    """Run a server for as long as the block lasts."""
    server = CometServer()
    with serving(server) as listening:
        server.url = listening.url
        yield server
